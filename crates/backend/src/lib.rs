//! Ordered pages on disk, in bbolt's file format, live as `member/snap/db`.
//!
//! A [`Backend`] is ten buckets of sorted byte keys. Changes arrive as a [`Batch`], are visible to
//! readers at once and lie in memory until the next [`Backend::commit`], which makes all of them
//! durable together, or none. A batch carries the applied index, so that state and index cannot
//! come apart (reliability G4).
//!
//! Not here: what the bytes mean (`mvcc`, `state`), when to commit (`server`).
//!
//! Formats: docs/formats/backend.md.

mod batch;
mod bucket;
pub mod bulk;
mod cache;
mod copy;
mod db;
mod delta;
mod edit;
mod error;
mod free;
mod meta;
mod num;
mod open;
mod output;
mod pack;
mod page;
mod pages;
mod read_only;
mod replace;
mod rows;
mod shrink;
mod sums;
mod tree;
mod walk;
mod writer;

pub use batch::Batch;
pub use bucket::Bucket;
pub use copy::{Copy, Visit, VisitRow};
pub use db::{Backend, Commit, Options, Sizes, Took};
pub use error::{CheckError, CommitError, OpenError, ReadError};
pub use read_only::ReadOnly;
pub use replace::{Incoming, ReplaceError, remove_orphaned_sums};
pub use sums::{Checksums, rename_with_sums, sums_beside};
