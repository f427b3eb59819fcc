//! Revisions over the backend: every change of every key, by logical time, and watching them.
//!
//! One [`Store`] is the writer's half and has one owner; [`Reader`] and [`WatchHub`] are handles
//! that any thread may hold. A key's rows are canonical `mvccpb.KeyValue` bytes in the `key`
//! bucket, named by revision; the index in memory says which revisions a key has.
//!
//! Not here: what a request means (`state`), when entries are applied (`member`), threads, clocks.
//!
//! Invariants:
//! - a transaction that changes something takes exactly one main revision;
//! - readers see a revision once its rows are in the backend and never half of it;
//! - what is at or below the compact revision and not the newest there may vanish at any time.

mod query;
mod store;
mod watch;

pub use query::{RangeError, RangeQuery, RangeResult, Row, Want};
pub use store::{
    CompactError, CompactStep, Hash, HashError, OpenError, Options, Previous, Reader, Store, Txn,
    Writer,
};
pub use watch::{
    Created, Filters, Wake, WatchHub, WatchId, WatchOutput, WatchRefused, WatchSpec, WatchStream,
};
