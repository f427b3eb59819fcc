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

mod compact;
mod hash;
mod index;
mod query;
mod read;
mod row;
mod store;
mod watch;
mod write;

pub use compact::{CompactStep, Removed};
pub use hash::Hash;
pub use query::{QueryError, RangeQuery, RangeResult, RevisionError, Row, Want};
pub use read::Reader;
pub use row::{parse_row_name, revision_name};
pub use store::{OpenError, Options, Store};
pub use watch::{
    Created, Filters, Wake, WatchHub, WatchId, WatchLag, WatchOutput, WatchRefused, WatchSpec,
    WatchStream,
};
pub use write::{Previous, Txn, Writer};
