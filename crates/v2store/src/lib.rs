//! The key tree of etcd's second generation: keys and directories with a time to live, one index
//! that every change raises by one, the last thousand events, and watchers.
//!
//! Values in, values out: no clock, no thread, no file. Whoever applies the log owns the [`Store`]
//! and says what time it is; a [`Reader`] answers from any thread. What must be kept is handed over
//! as rows ([`Store::take_rows`]), and the whole tree can be written as and read from the JSON that
//! etcd 3.4 keeps in its snapshot files.
//!
//! Not here: HTTP, consensus, users and roles, and the cluster's own part of the tree (`/0`): members
//! and version are facts of `state`. Here a change of them only raises the index
//! ([`Store::advance`]), and their nodes are added when the tree is saved.
//!
//! Invariants:
//! - every change raises the index by one and leaves one event, so that the history is a run of
//!   indexes that ends at the newest;
//! - a node's parents exist and are directories;
//! - what an operation does and answers depends on nothing but the store and the operation, so that
//!   all members come to the same rows;
//! - a watcher that is not read costs at most [`WATCHER_EVENTS_MAX`] references to events.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2store, etcdserver/api/v2error.

mod error;
mod event;
mod history;
mod hub;
mod json;
mod load;
mod path;
mod reader;
mod rows;
mod save;
mod stats;
mod store;
pub mod text;
mod tree;
mod when;

pub use error::{Code, Error};
pub use event::{Action, Event, NodeView};
pub use hub::{WATCHER_EVENTS_MAX, Watch, Watcher};
pub use load::LoadError;
pub use reader::Reader;
pub use rows::{DamagedRow, Row};
pub use save::ClusterNode;
pub use stats::Totals;
pub use store::{Change, Expected, Store, Write};
pub use when::Nanos;

/// Where the keys of users are.
pub const KEYS: &str = "/1";

/// Where the cluster speaks of itself.
pub const CLUSTER: &str = "/0";
