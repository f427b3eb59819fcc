//! What goes into a member and what comes out.

use base::{Index, LeaseId, LogPosition, MemberId};
use bytes::Bytes;
use raft::{ConfState, Message, Persist, PersistToken};
use state::{Applied, Received};

/// Names a caller that waits for an answer; a proposal's is its request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One request for the log.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Who waits; the request id.
    pub ticket: Ticket,
    /// Encoded `InternalRaftRequest`, whose header carries the same id; for a change of the members
    /// encoded `raftpb.ConfChange`, whose id it is.
    pub request: Bytes,
}

/// What happens to a member.
#[derive(Debug)]
pub enum Input {
    /// One unit of logical time went by.
    Tick,
    /// Requests, in the order in which they are to be appended. Without a leader they wait for one.
    Propose(Vec<Proposal>),
    /// A change of the members. Here it waits while another one is not applied; the leader of
    /// another member may drop it then, and no answer comes.
    ProposeChange(Proposal),
    /// Another member shall lead.
    TransferLeader(Ticket, MemberId),
    /// Callers that want to read everything acknowledged so far.
    Read(Vec<Ticket>),
    /// These callers wait no more: what is kept for them is dropped. A proposal that left already
    /// may still be applied.
    Forget(Vec<Ticket>),
    /// Messages of other members.
    Receive(Vec<Message>),
    /// Everything that came in one turn: what it causes goes out together.
    Turn(Turn),
    /// Messages to this member were probably lost.
    Unreachable(MemberId),
    /// A copy of the database is ready for a member that was in [`Outputs::snapshot_wanted`]. Its
    /// message comes in [`Outputs::snapshots`] of the same step; if none comes, the member needs
    /// it no more.
    SendSnapshot {
        /// For whom.
        to: MemberId,
        /// Up to where the copy is applied.
        position: LogPosition,
        /// Who votes there.
        conf_state: ConfState,
    },
    /// How sending a snapshot ended; `false` also if no copy could be made.
    SnapshotSent(MemberId, bool),
    /// A batch without a snapshot is durable.
    Persisted(PersistToken),
    /// A batch with a snapshot is durable; this is that snapshot.
    Restore(PersistToken, Box<Received>),
    /// A client keeps a lease alive.
    RenewLease(Ticket, LeaseId),
    /// A client asks how long a lease lives.
    LeaseRemaining(Ticket, LeaseId),
    /// A client asks for all leases, soonest end first.
    LeasesByExpiry(Ticket),
    /// The database could not be made durable for want of room.
    DiskFull,
    /// The database was made durable.
    Durable,
    /// The log may be forgotten up to here; the state is durable beyond.
    Compact(Index),
}

/// What a driver that takes everything at hand as one has found: as [`Input::Receive`],
/// [`Input::Propose`] and [`Input::Read`] one after the other, but with one batch for the disk and
/// one message to each member where one will do.
#[derive(Debug, Default)]
pub struct Turn {
    /// Messages of other members.
    pub messages: Vec<Message>,
    /// Requests.
    pub proposals: Vec<Proposal>,
    /// Reads.
    pub reads: Vec<Ticket>,
}

impl Turn {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.proposals.is_empty() && self.reads.is_empty()
    }
}

/// What must be done, in any order unless said otherwise.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "news that have nothing to do with each other")]
pub struct Outputs {
    /// Messages that may leave at once; none that a snapshot goes with.
    pub send: Vec<Message>,
    /// Messages that each take a copy of the database with them.
    pub snapshots: Vec<Message>,
    /// Batches to make durable, in order; each releases its own messages.
    pub persist: Vec<Persist>,
    /// Answers to callers.
    pub answers: Vec<(Ticket, Answer)>,
    /// Members that need a snapshot: each is answered with [`Input::SendSnapshot`], or with
    /// [`Input::SnapshotSent`] and `false`, and not named again before.
    pub snapshot_wanted: Vec<MemberId>,
    /// Whether a compaction was begun, so that [`crate::Member::compact_step`] has work.
    pub compaction_begun: bool,
    /// Whether the members, their addresses or the cluster version may have changed.
    pub members_changed: bool,
    /// Whether another member leads, or none, or this one.
    pub leader_changed: bool,
    /// Set if a snapshot took the place of the state: everything may be different.
    pub restored: Option<LogPosition>,
    /// Whether this member was removed from the cluster. It is to stop soon; until then it helps
    /// the others to learn of it.
    pub removed: bool,
}

/// What a caller is told.
#[derive(Debug)]
pub enum Answer {
    /// The entry was applied.
    Applied(Applied),
    /// What is applied here includes everything acknowledged before the question.
    Read,
    /// Seconds a lease lives on; `None` for an unknown or ended one.
    Lease(Option<i64>),
    /// Leases, soonest end first.
    Leases(Vec<LeaseId>),
    /// The wanted member leads.
    Transferred,
    /// It was not proposed, or nobody will confirm it.
    Failed(Failure),
}

/// Why consensus gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No leader is known, and too much waits for one already; nothing was proposed.
    NoLeader,
    /// Too much is under way; nothing was proposed.
    Overloaded,
    /// The leader changed: a read may be asked again.
    LeaderChanged,
    /// Only the leader can do this, and another member leads, or none.
    NotLeader,
    /// The member that shall lead is no voter.
    BadTransferee,
    /// The member that shall lead did not take over within an election timeout.
    TransferAborted,
}
