//! Identifiers, positions, ranges, addresses and units that every other crate speaks.
//!
//! Values only: nothing here does anything. Numbers of different kinds are different types, so that
//! a term cannot be passed where an index is meant.

mod id;
pub mod initial_cluster;
mod key_range;
pub mod member_url;
mod position;
pub mod probe;
pub mod quote;
mod revision;
pub mod version;

pub use id::{ClusterId, LeaseId, MemberId};
pub use initial_cluster::{ClusterError, InitialCluster};
pub use key_range::KeyRange;
pub use member_url::MemberUrl;
pub use position::{Index, LogPosition, Term};
pub use revision::Revision;
