//! What this member has to do with the other members, besides Raft's messages.

pub(crate) mod ask;
pub(crate) mod dial;
