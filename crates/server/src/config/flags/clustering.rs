//! Flags about the cluster and how a member finds it. SRV-070 to SRV-087.

use super::Group::Clustering;
use super::{Flag, Kind};

const V2_DEPRECATION: Kind =
    Kind::Choices(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]);

pub(super) const FLAGS: &[Flag] = &[
    Flag::new(Clustering, "initial-advertise-peer-urls", Kind::Urls, "http://localhost:2380", "URLs at which the other members reach this one.").acts(),
    Flag::new(Clustering, "initial-cluster", Kind::Text, "default=http://localhost:2380", "Members of the cluster at its first start, as NAME=URL separated by commas. Ignored once the data folder holds a member.").acts(),
    Flag::new(Clustering, "initial-cluster-state", Kind::Choice(&["new", "existing"]), "new", "'new' to found a cluster, 'existing' to join one. Ignored once the data folder holds a member.").acts(),
    Flag::new(Clustering, "initial-cluster-token", Kind::Text, "etcd-cluster", "Text mixed into the ids of cluster and members, so that two clusters never mistake each other.").acts(),
    Flag::new(Clustering, "advertise-client-urls", Kind::Urls, "http://localhost:2379", "URLs at which clients reach this member; needed when --listen-client-urls is set.").acts(),
    Flag::new(Clustering, "discovery", Kind::Text, "", "URL of a v2 discovery token, below which founders find each other: http://HOST:PORT/v2/keys/TOKEN.").since("up to 3.6").acts(),
    Flag::new(Clustering, "discovery-token", Kind::Text, "", "v3 discovery: token of the cluster to found.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-endpoints", Kind::WordSet, "", "v3 discovery: addresses of the etcd that serves discovery.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-dial-timeout", Kind::Duration, "2s", "v3 discovery: time to connect.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-request-timeout", Kind::Duration, "5s", "v3 discovery: time for one request.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-keepalive-time", Kind::Duration, "2s", "v3 discovery: time between two pings.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-keepalive-timeout", Kind::Duration, "6s", "v3 discovery: time to wait for the answer to a ping.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-insecure-transport", Kind::Bool, "true", "v3 discovery: connect without TLS.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-insecure-skip-tls-verify", Kind::Bool, "false", "v3 discovery: do not verify the server's certificate; for tests only.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-cert", Kind::Text, "", "v3 discovery: certificate file to identify with.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-key", Kind::Text, "", "v3 discovery: key file to identify with.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-cacert", Kind::Text, "", "v3 discovery: file of the authorities that sign the server's certificate.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-user", Kind::Text, "", "v3 discovery: NAME or NAME:PASSWORD to log in with.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-password", Kind::Text, "", "v3 discovery: password to log in with.").since("3.6").acts(),
    Flag::new(Clustering, "discovery-fallback", Kind::Choice(&["exit", "proxy"]), "exit", "What to do when discovery finds members enough: 'exit', or 'proxy' to forward v2 requests to them.").acts(),
    Flag::new(Clustering, "discovery-proxy", Kind::Text, "", "HTTP proxy towards the v2 discovery service.").since("up to 3.6").acts(),
    Flag::new(Clustering, "discovery-srv", Kind::Text, "", "DNS domain whose SRV records name the members.").acts(),
    Flag::new(Clustering, "discovery-srv-name", Kind::Text, "", "Suffix of the SRV service name.").acts(),
    Flag::new(Clustering, "strict-reconfig-check", Kind::Bool, "true", "Refuse membership changes that would lose the quorum.").acts(),
    Flag::new(Clustering, "pre-vote", Kind::Bool, "true", "Ask for votes without a new term first, so that a returning member does not disturb the leader.").acts(),
    Flag::new(Clustering, "auto-compaction-retention", Kind::Text, "0", "How much history automatic compaction keeps: a duration or hours ('5m', '1'), or revisions; 0 switches it off.").acts(),
    Flag::new(Clustering, "auto-compaction-mode", Kind::Text, "periodic", "What --auto-compaction-retention counts: 'periodic' for time, 'revision' for revisions.").acts(),
    Flag::new(Clustering, "v2-deprecation", V2_DEPRECATION, "write-only", "Accepted and checked, without effect: the v2 API hangs on --enable-v2.").since("3.5").acts(),
];
