//! Which etcd this program behaves like, and which release of its own it is.

/// The release of etcd whose behaviour clients, peers and tools are told about.
pub const COMPATIBLE: &str = "3.7.1";

/// Major and minor of [`COMPATIBLE`], as the cluster version prints it.
pub const CLUSTER: &str = "3.7.0";

/// Major and minor alone.
pub const API: &str = "3.7";

/// The oldest cluster version a member of this release can talk to.
pub const MINIMUM_CLUSTER: &str = "3.0.0";

/// The product's own release.
pub const PRODUCT: &str = env!("CARGO_PKG_VERSION");
