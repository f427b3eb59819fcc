//! Consensus core, free of input and output.
//!
//! Time comes in as ticks, randomness as a seed, messages and completions as calls; what must be
//! done goes out as [`Ready`] values. The types here are the core's own: the transport maps
//! messages to etcd's, the log writer entries, and nothing here serializes them.
//!
//! It behaves as etcd's members do, so that both can share a cluster, and is stricter in a few
//! places, none of which another member can tell:
//! - a candidate asks for votes only once its own term and vote are durable;
//! - a lone voter answers reads only once it has committed in its term;
//! - messages that no correct member sends are dropped, where etcd's core panics;
//! - all reads of one turn share one round of heartbeats.

mod candidate;
mod config;
mod election;
mod entry;
mod follower;
mod leader;
mod log;
mod membership;
mod message;
mod progress;
mod quorum;
mod raft;
mod random;
mod read_index;
mod ready;
mod replication;
mod role;
mod snapshot;
mod trace;
mod transfer;
mod unstable;

pub use config::Config;
pub use entry::{ConfState, Entry, EntryKind, HardState};
pub use membership::{ChangeRefusal, MembershipChange};
pub use message::{Append, AppendReply, Body, Message, SnapshotMeta, VoteRequest};
pub use raft::{PeerState, PeerStatus, ProposeError, Raft, Restored, Status};
pub use ready::{Persist, PersistToken, Persisted, ReadReady, Ready, RoleKind, SoftState};
pub use trace::{CampaignRefusal, DropReason, Event};
