//! One whole etcd member as a step function: consensus, apply, reads, leases.
//!
//! [`Member::step`] takes the time and one input and says what must be done: bytes to persist,
//! messages to send, answers to give. The server drives it with threads, files and sockets; the
//! simulator drives the same code with none of them. Nothing here reads a clock, a file's folder or
//! a random source; the backend below the state is reached through `vfs`.
//!
//! A driver's turn: step, then for each of [`Outputs::persist`], in order, write it, send the
//! messages it releases, and step [`Input::Persisted`] (with a snapshot: [`Input::Restore`]); send
//! [`Outputs::send`]; give [`Outputs::answers`]. Writing may take as long as it likes meanwhile.
//!
//! Snapshots go past the member: it says who wants one ([`Outputs::snapshot_wanted`]) and where the
//! one stands that is sent or received; the bytes are files of the driver's.
//!
//! Invariants:
//! - an answer to a proposal is given only after its entry is durable here and applied;
//! - a read is answered only when everything committed before it began is applied here;
//! - leases end only while this member leads, by its own monotonic time, and by an entry of its own
//!   term, which another leader's log has no place for;
//! - a renewal is answered only if the next leader is certain to give the lease as long;
//! - what waits is bounded: proposals, reads, renewals.

mod alarms;
mod ids;
mod input;
mod leases;
mod member;
mod reads;
mod renewals;
mod sending;
mod undelivered;
mod waiting;

pub use ids::RequestIds;
pub use input::{Answer, Failure, Input, Outputs, Proposal, Ticket, Turn};
pub use leases::LeaseOptions;
pub use member::{Member, Options, payload};
pub use state::Halt;
pub use undelivered::Undelivered;
