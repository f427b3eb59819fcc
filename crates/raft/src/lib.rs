//! Consensus core, free of input and output.
//!
//! Time comes in as ticks, randomness as a seed, messages and completions as calls; what must be
//! done goes out as [`Ready`](crate) values. The types here are the core's own: `wire` maps them to
//! etcd's messages, and nothing else serializes them.

mod entry;

pub use entry::{ConfState, Entry, EntryKind, HardState};
