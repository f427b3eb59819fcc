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
//!
//! A driver's turn, here with everything in one place:
//!
//! ```
//! # use retcd_raft as raft;
//! # use base::MemberId;
//! use raft::{ConfState, Config, Raft, Restored};
//!
//! let id = MemberId(1);
//! let conf_state = ConfState { voters: [id].into(), ..ConfState::default() };
//! let restored = Restored { conf_state, ..Restored::default() };
//! let mut raft = Raft::new(Config::new(id, 42), restored);
//! raft.campaign();
//! let mut disk = Vec::new();
//! let mut state = Vec::new();
//! for turn in 0.. {
//!     if turn == 3 {
//!         raft.propose(vec!["hello".into()])?;
//!     }
//!     let Some(ready) = raft.ready() else { break };
//!     assert!(ready.at_once.is_empty(), "nobody to send to");
//!     if let Some(persist) = ready.persist {
//!         // A real driver gives it to its log writer and does not wait here.
//!         let persisted = persist.persist(|entries, _hard_state, _snapshot| {
//!             disk.extend_from_slice(entries);
//!             Ok::<(), std::io::Error>(())
//!         })?;
//!         assert!(persisted.messages.is_empty(), "nobody to send to");
//!         raft.persisted(persisted.token);
//!     }
//!     for entry in ready.committed {
//!         raft.applied(entry.index);
//!         state.push(entry);
//!     }
//! }
//! assert_eq!(disk, state);
//! assert_eq!(&state[1].data[..], b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
mod status;
mod trace;
mod transfer;
mod unstable;

pub use config::Config;
pub use entry::{ConfState, Entry, EntryKind, HardState};
pub use membership::{ChangeRefusal, MembershipChange};
pub use message::{Append, AppendReply, Body, Message, SnapshotMeta, VoteRequest};
pub use raft::{ProposeError, Raft, Restored};
pub use ready::{
    Persist, PersistToken, Persisted, ReadReady, Ready, RoleKind, SoftState, Unpersisted,
};
pub use status::{Forgotten, PeerState, PeerStatus, Status};
pub use trace::{CampaignRefusal, DropReason, Event};
