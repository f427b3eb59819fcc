//! Recorded client histories and their judges.
//!
//! A [`History`] is what clients of one cluster saw: requests with the times of their begin and
//! end, answers, watches with everything they delivered, and the members' hashes at the end.
//! [`judge`] says whether a strictly serializable store with etcd's semantics could have produced
//! it; each [`Violation`] names the few operations that contradict each other.
//!
//! Values in, values out: no clock, no thread, no chance. Whoever runs clients (a test of
//! processes, the simulator) records; nothing here talks to a server. The reference model is a
//! second implementation of the key space on purpose and shares no code with `mvcc`.
//!
//! What no client sees whole, users and roles, the tree of the v2 generation and the members, has
//! models of its own ([`AuthJudge`], [`V2Store`], [`V2Wait`], [`Membership`]): whoever knows the
//! order of the log asks them.
//!
//! How it is done cheaply: every change has a revision of its own, so the order is known and one
//! replay decides ([`judge`], linear in the history's length). Only revisions that nobody was
//! answered for are searched: some unanswered request or an expired lease must explain each.
//! [`search`] trusts no revision and guards the fast judge on small histories.

mod auth;
mod chain;
mod finals;
mod json;
mod judge;
mod lease;
mod members;
mod model;
mod reads;
mod record;
pub mod search;
mod show;
mod time;
mod v2;
mod violation;
mod watch;

pub use auth::{Attached, Auth, AuthJudge, AuthSaid, Denied, Who, is_denial};
pub use chain::is_of_kind;
pub use json::{ReadError, read, write};
pub use judge::{Report, judge};
pub use members::Membership;
pub use model::{Executed, Refusal, Store, agrees};
pub use record::{Answer, Call, Final, History, Observation, Operation, Outcome, WatchRecord};
pub use v2::{EVENTS_REMEMBERED, V2Event, V2Node, V2Refusal, V2Said, V2Store, V2Wait};
pub use violation::{Rule, Violation};
