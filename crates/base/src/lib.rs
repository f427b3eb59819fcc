//! Identifiers, positions, ranges and units that every other crate speaks.
//!
//! Values only: nothing here does anything. Numbers of different kinds are different types, so that
//! a term cannot be passed where an index is meant.

mod id;
mod key_range;
mod position;
mod revision;
pub mod version;

pub use id::{ClusterId, LeaseId, MemberId};
pub use key_range::KeyRange;
pub use position::{Index, LogPosition, Term};
pub use revision::Revision;
