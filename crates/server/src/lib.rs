//! Driver loops, services and start-up of the `etcd` program.

mod boot;
mod committer;
mod grpc;
mod handle;
mod http;
mod node;
mod port;
mod signals;
mod snapshot_file;
mod snapshots;
mod start;

pub use boot::{BootError, BootOptions};
pub use handle::{Handle, Limits, NodeStatus, ProposeError, RequestKind};
pub use node::NodeError;
pub use snapshots::SnapshotError;
pub use start::{Options, StartError, run};
