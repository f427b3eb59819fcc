//! Driver loops, services and start-up of the `etcd` program.
//!
//! Nothing here decides about data: that is done by the crates below, which know neither network
//! nor clock.

mod afterwards;
mod answers;
mod auth;
mod authority;
mod boot;
mod coalesce;
mod committer;
mod compactor;
pub mod config;
mod connections;
mod doors;
#[cfg(feature = "failpoints")]
mod failpoints;
mod grpc;
mod guard;
mod handle;
mod http;
mod listen;
pub mod logging;
mod memory_lock;
mod metrics;
mod node;
mod node_queue;
mod open_files;
mod options;
mod peers;
mod port;
mod ports;
mod preparer;
mod proxy;
mod recipes;
mod reverse;
mod running;
mod security;
mod shards;
mod signals;
mod start;
pub mod tcp_gateway;
mod traces;
mod v2_expiry;
mod wakes;

pub use auth::TokenError;
pub use boot::SrvError;
pub use handle::ProposeError;
pub use http::profile;
pub use node::NodeError;
pub use security::SecurityError;
pub use signals::{
    Signal, notify_ready, show_threads_on_quit, survive_file_size_limit, wait as wait_for_signal,
};
pub use start::{StartError, run};
pub use storage::{BootError, SnapshotError};
