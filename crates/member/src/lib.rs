//! One whole etcd member as a step function: consensus, apply, reads, leases.
//!
//! [`Member::step`] takes the time and one input and says what must be done: bytes to persist,
//! messages to send, answers to give. The server drives it with threads, files and sockets; the
//! simulator drives the same code with none of them. Nothing here reads a clock, a file's folder or
//! a random source; the backend below the state is reached through `vfs`.
//!
//! Invariants:
//! - an answer to a proposal is given only after its entry is durable here and applied;
//! - a read is answered only when everything committed before it began is applied here;
//! - leases end only while this member leads, by its own monotonic time.

mod ids;
mod leases;
mod member;
mod reads;

pub use ids::RequestIds;
pub use member::{Answer, Failure, Halt, Input, Member, Options, Outputs, Proposal, Ticket};
