//! Flags about TLS, origins and passwords. SRV-090 to SRV-109.

use super::Group::{Auth, Security};
use super::{Flag, Kind};

pub(super) const FLAGS: &[Flag] = &[
    Flag::new(Security, "cert-file", Kind::Text, "", "Certificate of the client listener.").acts(),
    Flag::new(Security, "key-file", Kind::Text, "", "Key of the client listener.").acts(),
    Flag::new(Security, "client-cert-auth", Kind::Bool, "false", "Demand and verify certificates of clients.").acts(),
    Flag::new(Security, "client-cert-file", Kind::Text, "", "Certificate this member shows when it is a client of its own listener; --cert-file when empty.").since("3.5").acts(),
    Flag::new(Security, "client-key-file", Kind::Text, "", "Key of --client-cert-file.").since("3.5").acts(),
    Flag::new(Security, "client-crl-file", Kind::Text, "", "Revocation list for certificates of clients.").acts(),
    Flag::new(Security, "client-cert-allowed-hostname", Kind::Words, "", "Host names of which a client's certificate must carry one.").acts(),
    Flag::new(Security, "trusted-ca-file", Kind::Text, "", "Authorities that sign certificates of clients.").acts(),
    Flag::new(Security, "auto-tls", Kind::Bool, "false", "Make a certificate for the client listener.").acts(),
    Flag::new(Security, "peer-cert-file", Kind::Text, "", "Certificate of the peer listener.").acts(),
    Flag::new(Security, "peer-key-file", Kind::Text, "", "Key of the peer listener.").acts(),
    Flag::new(Security, "peer-client-cert-auth", Kind::Bool, "false", "Demand and verify certificates of peers.").acts(),
    Flag::new(Security, "peer-client-cert-file", Kind::Text, "", "Certificate shown to peers; --peer-cert-file when empty.").since("3.5").acts(),
    Flag::new(Security, "peer-client-key-file", Kind::Text, "", "Key of --peer-client-cert-file.").since("3.5").acts(),
    Flag::new(Security, "peer-trusted-ca-file", Kind::Text, "", "Authorities that sign certificates of peers.").acts(),
    Flag::new(Security, "peer-cert-allowed-cn", Kind::Words, "", "Common names of which a peer's certificate must carry one.").acts(),
    Flag::new(Security, "peer-cert-allowed-hostname", Kind::Words, "", "Host names of which a peer's certificate must carry one.").acts(),
    Flag::new(Security, "peer-auto-tls", Kind::Bool, "false", "Make a certificate for the peer listener.").acts(),
    Flag::new(Security, "peer-skip-client-san-verification", Kind::Bool, "false", "Do not compare the names in a peer's certificate with its address.").since("3.7").acts(),
    Flag::new(Security, "self-signed-cert-validity", Kind::Unsigned, "1", "Years for which certificates made by --auto-tls and --peer-auto-tls are valid.").since("3.5").acts(),
    Flag::new(Security, "peer-crl-file", Kind::Text, "", "Revocation list for certificates of peers.").acts(),
    Flag::new(Security, "cipher-suites", Kind::Words, "", "TLS 1.2 cipher suites to offer, best first; a good choice when empty.").acts(),
    Flag::new(Security, "cors", Kind::Origins, "*", "Origins that browsers may send requests from; * for all.").acts(),
    Flag::new(Security, "host-whitelist", Kind::WordSet, "*", "Host names that requests on listeners without TLS may carry; * for all.").acts(),
    Flag::new(Security, "tls-min-version", Kind::Text, "TLS1.2", "Oldest TLS version to speak: TLS1.2 or TLS1.3.").since("3.4.25").acts(),
    Flag::new(Security, "tls-max-version", Kind::Text, "", "Newest TLS version to speak: TLS1.2 or TLS1.3; the newest known when empty.").since("3.4.25").acts(),
    Flag::new(Auth, "auth-token", Kind::Text, "simple", "Kind of tokens: 'simple', or 'jwt' with its options.").acts(),
    Flag::new(Auth, "bcrypt-cost", Kind::Unsigned, "10", "Cost of hashing a password, from 4 to 31.").acts(),
    Flag::new(Auth, "auth-token-ttl", Kind::Unsigned, "300", "Seconds after which an unused simple token expires.").acts(),
];
