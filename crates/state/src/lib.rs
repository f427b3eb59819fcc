//! The replicated state machine: what log entries do to keys, leases, members and alarms.
//!
//! Apply reads nothing but the entry and the state, so that every member comes to the same bytes.
//! It knows of consensus only an index and a term.
//!
//! Not here: who commits entries (`raft`), when leases end (the leader's [`Lessor`] decides and its
//! driver proposes the revoke), what a request looks like on the wire of a client (`server`).

mod alarm;
mod apply;
pub mod auth;
pub mod check;
mod command;
mod compare;
mod entry;
mod json;
mod kv;
mod lease;
mod lessor;
pub mod members;
pub mod quota;
mod range;
mod reads;
mod refusal;
mod reply;
mod schema;
mod snapshot;
pub mod snapshot_file;
mod state;
mod tally;
mod txn;
mod v2;
mod version;
mod view;

pub use auth::{Auth, Identity};
pub use check::{check_delete, check_put, check_range, check_txn};
pub use entry::{Applied, Committed, Halt, MemberChange, Outcome, Payload};
pub use lease::LeaseTerm;
pub use lessor::{CheckpointNumber, Lessor, RenewError, Renewal};
pub use quota::Quota;
pub use reads::{LeaseView, RangeReply, Reads};
pub use refusal::Refusal;
pub use reply::{AuthReply, Reply};
pub use snapshot::{ReceiveError, Received, SnapshotFacts};
pub use state::{OpenError, Options, State};
pub use tally::{Operation, Steps, Tally};
pub use v2::change_of as v2_change_of;
pub use version::{ClusterVersion, Downgrade};
