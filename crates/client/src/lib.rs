//! Client of a cluster: what `etcdctl`, the proxy and the tests speak to a member with.
//!
//! One [`Client`] holds one lazily opened connection per endpoint and sends each call to the one
//! that answered last. It is not a cache and not a balancer.
//!
//! Invariants:
//! - A write is sent a second time only if the first attempt never reached a connection, so that
//!   it cannot be applied twice; [`Error::applied`] says what is known about a failed one.
//! - A watch never skips or repeats a revision: it resumes behind the last event it delivered.
//!
//! etcd: `client/v3`.

mod auth;
mod call;
mod client;
mod cluster;
mod connection;
mod endpoint;
mod error;
mod kv;
mod lease;
mod maintenance;
mod options;
mod peer_url;
mod preface;
mod raw;
pub mod srv;
mod watch;

pub use client::Client;
pub use endpoint::{Endpoint, EndpointError, Security};
pub use error::{Applied, Error, code_name};
pub use kv::prefix_end;
pub use lease::KeepAlive;
pub use maintenance::SnapshotStream;
pub use options::{Credentials, Options, TlsOptions};
pub use peer_url::PeerUrlError;
pub use raw::{Connection, as_told_by_go, was_never_sent};
pub use watch::{WatchOptions, Watcher};
