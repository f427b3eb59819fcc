//! What the driver must do, as values.
//!
//! The driver takes one [`Ready`] after another without waiting for the disk: it sends what goes at
//! once, gives [`Persist`] to whoever writes the log, in order, and hands [`Ready::committed`] to
//! the state machine. "Persist, then send" is not left to care: votes and acknowledgements come out
//! of [`Persist::persist`] and nowhere else.
//! Source: etcd raft: rawnode.go (asynchronous storage writes).

use base::{Index, MemberId};

use crate::{Entry, HardState, Message, SnapshotMeta};

/// One turn's work. The parts may be done at the same time.
#[derive(Debug)]
pub struct Ready {
    /// Messages that need not wait for the disk.
    pub at_once: Vec<Message>,
    /// What must be made durable, in the order of the turns.
    pub persist: Option<Persist>,
    /// Entries to apply, in order: committed and durable here. [`crate::Raft::applied`] reports.
    pub committed: Vec<Entry>,
    /// Reads that may be answered once their index is applied.
    pub reads: Vec<ReadReady>,
    /// The leader or the own role, if one of them changed.
    pub soft: Option<SoftState>,
    /// Members that need the state instead of entries: each is answered with
    /// [`crate::Raft::send_snapshot`], or with [`crate::Raft::snapshot_sent`] and `false`.
    pub snapshot_wanted: Vec<MemberId>,
}

/// A linearizable read that is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// What was given to [`crate::Raft::read`].
    pub context: u64,
    /// The index that must be applied before the answer.
    pub index: Index,
}

/// What is lost on a restart without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftState {
    /// Who leads, as far as known.
    pub leader: Option<MemberId>,
    /// This member's part.
    pub role: RoleKind,
}

/// The part a member plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Names one batch for the disk; they become durable in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistToken(pub(crate) u64);

/// A batch for the disk and the messages that vouch for it.
#[derive(Debug)]
#[must_use = "members wait for the messages in it"]
pub struct Persist {
    /// Entries to append; the first one may replace entries written before, from its index on.
    /// They stand behind `snapshot`, if there is one.
    pub entries: Vec<Entry>,
    /// Term, vote and commit index, if one of them changed.
    pub hard_state: Option<HardState>,
    /// A snapshot from the leader that takes the place of the whole log and of the state. It is to
    /// be written before the rest, and restored before anything further is applied.
    pub snapshot: Option<SnapshotMeta>,
    /// Whether it must be durable before it counts as done, and with it whatever was written before.
    /// If not (only the commit index moved), written is enough.
    pub must_sync: bool,
    /// To be given to [`crate::Raft::persisted`].
    pub token: PersistToken,
    pub(crate) held: Vec<Message>,
}

/// What follows from a durable batch.
#[derive(Debug)]
#[must_use = "members wait for the messages, and the core for the token"]
pub struct Persisted {
    /// To be given to [`crate::Raft::persisted`].
    pub token: PersistToken,
    /// Votes and acknowledgements, to be sent now.
    pub messages: Vec<Message>,
}

/// A batch that is not durable, and why.
#[derive(Debug)]
pub struct Unpersisted<E> {
    /// The batch, to be tried again before those behind it.
    pub persist: Persist,
    /// What failed.
    pub error: E,
}

impl Persist {
    /// Whether nothing but the commit index moved and nobody waits for it: it may be written along
    /// with the next batch, or lost.
    #[must_use]
    pub fn is_hint(&self) -> bool {
        !self.must_sync
            && self.entries.is_empty()
            && self.snapshot.is_none()
            && self.held.is_empty()
    }

    /// Takes the next batch in, so that both become durable as one; its token then stands for both.
    ///
    /// # Errors
    ///
    /// The next batch, if the two cannot be one: a snapshot stands by itself, and entries are only
    /// joined with those that follow them.
    ///
    /// # Panics
    ///
    /// If the other batch is an earlier one.
    pub fn absorb(&mut self, next: Self) -> Result<(), Box<Self>> {
        let last = self.entries.last().map(|entry| entry.index);
        let first = next.entries.first().map(|entry| entry.index);
        let follows = last.zip(first).is_none_or(|(last, first)| first == last.next());
        if self.snapshot.is_some() || next.snapshot.is_some() || !follows {
            return Err(Box::new(next));
        }
        let Self { entries, hard_state, snapshot: _, must_sync, token, held } = next;
        assert!(self.token < token, "{token:?} taken in behind {:?}", self.token);
        self.entries.extend(entries);
        self.hard_state = hard_state.or(self.hard_state);
        self.must_sync |= must_sync;
        self.token = token;
        self.held.extend(held);
        Ok(())
    }

    /// Runs `write` on the batch and releases the held messages only once it returned `Ok`.
    ///
    /// `write` must leave the batch durable if [`Persist::must_sync`].
    ///
    /// # Errors
    ///
    /// Those of `write`; the messages are lost then, and so must this member be.
    pub fn persist<E>(
        self,
        write: impl FnOnce(&[Entry], Option<&HardState>, Option<&SnapshotMeta>) -> Result<(), E>,
    ) -> Result<Persisted, E> {
        write(&self.entries, self.hard_state.as_ref(), self.snapshot.as_ref())?;
        Ok(Persisted { token: self.token, messages: self.held })
    }

    /// As [`Persist::persist`] for a `write` that may be tried again, as on a disk that is full:
    /// the batch comes back with the error, messages and all.
    ///
    /// # Errors
    ///
    /// Those of `write`.
    pub fn try_persist<E>(
        self,
        write: impl FnOnce(&Self) -> Result<(), E>,
    ) -> Result<Persisted, Box<Unpersisted<E>>> {
        match write(&self) {
            Ok(()) => Ok(Persisted { token: self.token, messages: self.held }),
            Err(error) => Err(Box::new(Unpersisted { persist: self, error })),
        }
    }
}
