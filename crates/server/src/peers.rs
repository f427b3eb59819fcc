//! What this member has to do with the other members, besides Raft's messages.

pub(crate) mod ask;
#[allow(dead_code, reason = "joining, which comes next, is the first to dial")]
pub(crate) mod dial;
