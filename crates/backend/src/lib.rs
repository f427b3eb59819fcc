//! Ordered pages on disk, in bbolt's file format, live as `member/snap/db`.
//!
//! A [`Backend`] is ten buckets of sorted byte keys. Changes arrive as a [`Batch`], are visible to
//! readers at once and lie in memory until the next [`Backend::commit`], which makes all of them
//! durable together, or none. A batch carries the applied index, so that state and index cannot
//! come apart (reliability G4).
//!
//! Not here: what the bytes mean (`mvcc`, `state`), when to commit (`server`).

mod batch;
mod bucket;
mod db;

pub use batch::Batch;
pub use bucket::Bucket;
pub use db::{
    Backend, CheckError, Commit, CommitError, Copy, OpenError, Options, ReadError, Sizes, Visit,
};
