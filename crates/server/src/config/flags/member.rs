//! Flags about this member alone. SRV-040 to SRV-068.

use super::Group::Member;
use super::{Flag, Kind};

pub(super) const FLAGS: &[Flag] = &[
    Flag::new(Member, "name", Kind::Text, "default", "This member's name, as people read it; it must stand in --initial-cluster.").acts(),
    Flag::new(Member, "data-dir", Kind::Text, "", "Folder of this member's data; '<name>.etcd' when empty.").acts(),
    Flag::new(Member, "wal-dir", Kind::Text, "", "Folder of the write-ahead log, when it shall be on another disk than the rest.").acts(),
    Flag::new(Member, "snapshot-count", Kind::Unsigned, "10000", "Applied entries after which a snapshot is taken and the log shortened.").acts(),
    Flag::new(Member, "heartbeat-interval", Kind::Unsigned, "100", "Milliseconds between two heartbeats of a leader.").acts(),
    Flag::new(Member, "election-timeout", Kind::Unsigned, "1000", "Milliseconds without a heartbeat after which a member stands for election; at least five heartbeats, at most 50000.").acts(),
    Flag::new(Member, "initial-election-tick-advance", Kind::Bool, "true", "Wait only for the last part of an election timeout after a start, once more than one other member is reached.").acts(),
    Flag::new(Member, "listen-peer-urls", Kind::Urls, "http://localhost:2380", "URLs to listen on for other members.").acts(),
    Flag::new(Member, "listen-client-urls", Kind::Urls, "http://localhost:2379", "URLs to listen on for clients: gRPC, and HTTP unless --listen-client-http-urls is set.").acts(),
    Flag::new(Member, "listen-client-http-urls", Kind::Urls, "", "URLs to listen on for HTTP clients only; the URLs of --listen-client-urls then serve gRPC only.").since("3.4.25").acts(),
    Flag::new(Member, "max-snapshots", Kind::Unsigned, "5", "Snapshot files to keep, 0 for all.").acts(),
    Flag::new(Member, "max-wals", Kind::Unsigned, "5", "Log files to keep, 0 for all.").acts(),
    Flag::new(Member, "memory-mlock", Kind::Bool, "false", "Lock the process in memory, and so the pages of the database that it keeps there; the limit of locked memory must be unlimited.").since("3.6").acts(),
    Flag::new(Member, "quota-backend-bytes", Kind::Signed, "0", "Size of the database, in bytes, above which an alarm is raised and writes are refused; 0 means 2 GiB, a negative number no limit.").acts(),
    Flag::new(Member, "backend-bbolt-freelist-type", Kind::Text, "map", "How free pages are kept track of: array or map.").since("3.5").idle("free pages are kept by number, and the file is the same either way"),
    Flag::new(Member, "backend-batch-interval", Kind::Duration, "100ms", "Longest time between two commits of the database.").acts(),
    Flag::new(Member, "backend-batch-limit", Kind::Signed, "10000", "Most changes between two commits of the database.").acts(),
    Flag::new(Member, "max-txn-ops", Kind::Unsigned, "128", "Most operations in one transaction.").acts(),
    Flag::new(Member, "max-request-bytes", Kind::Unsigned, "1572864", "Size of the largest request a client may send, in bytes.").acts(),
    Flag::new(Member, "max-concurrent-streams", Kind::Unsigned32, "4294967295", "Most streams one client connection may have open.").acts().since("3.4.20"),
    Flag::new(Member, "grpc-keepalive-min-time", Kind::Duration, "5s", "Shortest time a client must leave between two pings; 0 means five minutes.").acts(),
    Flag::new(Member, "grpc-keepalive-interval", Kind::Duration, "2h0m0s", "Time between two pings to an idle client, 0 for none.").acts(),
    Flag::new(Member, "grpc-keepalive-timeout", Kind::Duration, "20s", "Time after which a connection whose ping was not answered is closed, 0 for never.").acts(),
    Flag::new(Member, "socket-reuse-port", Kind::Bool, "false", "Allow other processes to listen on the same port (SO_REUSEPORT).").since("3.5").acts(),
    Flag::new(Member, "socket-reuse-address", Kind::Bool, "false", "Listen on addresses that still have connections in TIME_WAIT (SO_REUSEADDR).").since("3.5").acts(),
    Flag::new(Member, "enable-grpc-gateway", Kind::Bool, "true", "Offer the v3 API as JSON over HTTP.").acts(),
    Flag::new(Member, "enable-v2", Kind::Bool, "true", "Offer the v2 API.").acts(),
    Flag::new(Member, "raft-read-timeout", Kind::Duration, "5s", "Time without data after which reading from a peer fails; at least 5s.").since("3.5").acts(),
    Flag::new(Member, "raft-write-timeout", Kind::Duration, "5s", "Time after which writing to a peer fails; at least 5s.").since("3.5").acts(),
    Flag::new(Member, "feature-gates", Kind::Gates, "", "Switches of features that are not settled, as NAME=true|false separated by commas.").since("3.6").acts(),
    Flag::new(Member, "config-file", Kind::Text, "", "Read everything from this YAML or JSON file; other flags and environment variables are then ignored.").acts(),
];
