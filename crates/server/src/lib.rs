//! Driver loops, services and start-up of the `etcd` program.

mod handle;

pub use handle::{Handle, ProposeError};
