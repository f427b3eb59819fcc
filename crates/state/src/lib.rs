//! The replicated state machine: what log entries do to keys, leases, members and alarms.
//!
//! Apply reads nothing but the entry and the state, so that every member comes to the same bytes.
//! It knows of consensus only an index and a term.
//!
//! Not here: who commits entries (`raft`), when leases end (the leader's lessor decides and
//! proposes the revoke), what a request looks like on the wire of a client (`server`).

mod apply;
mod reads;
mod refusal;
mod reply;

pub use apply::{
    Applied, Committed, Halt, MemberChange, OpenError, Options, Outcome, Payload, State,
};
pub use reads::{LeaseView, RangeReply, Reads};
pub use refusal::Refusal;
pub use reply::Reply;
