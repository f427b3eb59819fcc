//! `etcd grpc-proxy`: the client API once more, for many clients, before the members of a cluster.
//!
//! It holds no data of its own: what it answers came from a member. What it saves them is work:
//! watches of one range become one watch, renewals of one lease one renewal, and reads that may be
//! old are answered from memory. It can also give its clients a part of the keys as if that were
//! all ([`Settings::namespace`]).
//!
//! Invariants:
//! - A call carries its caller's token and nothing else that says who asks: neither the proxy's
//!   certificate nor what another caller was answered ever speaks for somebody.
//! - A write that may have left is never sent again.
//! - A watcher sees each event once and in order, whatever is joined with it; one that does not
//!   read costs a bounded queue and is served again from the members' history.
//!
//! Source: etcd server/etcdmain/grpc_proxy.go, server/proxy/grpcproxy, client/v3/{namespace,
//! ordering,leasing}.

mod caller;
mod cluster;
mod dispatch;
mod error;
mod forward;
mod http;
mod kv;
mod lease;
mod metrics;
mod port;
mod serve;
mod settings;
mod upstream;
mod watch;

pub use error::ProxyError;
pub use serve::serve;
pub use settings::{Listen, Profiles, Registration, Settings, Upstream};
