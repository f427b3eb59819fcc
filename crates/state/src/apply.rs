//! One committed entry after the other, each with its effects and its answer.

use backend::Backend;
use base::{LogPosition, MemberId};
use bytes::Bytes;

use crate::{Reads, Refusal, Reply};

/// What all members must agree on beside the log.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shortest lease, in seconds: `ceil(1.5 * election timeout)` (L-02).
    pub lease_ttl_seconds_min: i64,
    /// How many learners a cluster may have.
    pub learners_max: usize,
    /// The store's.
    pub mvcc: mvcc::Options,
}

/// Why the state does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The keys.
    #[error("restoring the key space")]
    Keys(#[source] mvcc::OpenError),
    /// Another bucket.
    #[error("reading the backend")]
    Backend(#[source] backend::ReadError),
    /// A value that no etcd wrote.
    #[error("bucket {bucket} holds a value that does not decode at key {key}")]
    Damaged {
        /// The bucket.
        bucket: &'static str,
        /// The key, in hex.
        key: String,
    },
}

/// A committed entry.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Where it stands in the log.
    pub position: LogPosition,
    /// What it carries.
    pub payload: Payload,
}

/// What an entry carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A new leader's first entry.
    Nothing,
    /// `InternalRaftRequest`, or a bare v2 request of an old log.
    Request(Bytes),
    /// `raftpb.ConfChange`.
    MemberChange(Bytes),
}

/// What became of an entry.
#[derive(Debug)]
pub struct Outcome {
    /// Where the entry stands.
    pub position: LogPosition,
    /// The id its proposer gave it; 0 if none.
    pub request_id: u64,
    /// The answer.
    pub applied: Applied,
    /// For a membership entry: what consensus must do about it, in any case.
    pub change: Option<MemberChange>,
}

/// An answer that is the same on every member.
#[derive(Clone, Debug)]
pub enum Applied {
    /// It had its effect.
    Done(Reply),
    /// It had none.
    Refused(Refusal),
}

/// What a membership entry means to consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// This member votes from now on.
    AddVoter(MemberId),
    /// This member listens from now on.
    AddLearner(MemberId),
    /// This member is out.
    Remove(MemberId),
    /// Refused, or a change of addresses only.
    None,
}

/// This member alone failed and must stop before it diverges.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// The backend cannot give bytes that apply needs.
    #[error("applying entry {position}")]
    Backend {
        /// The entry.
        position: LogPosition,
        /// The cause.
        #[source]
        source: backend::ReadError,
    },
    /// An entry that this release does not know; a newer member wrote it.
    #[error("entry {position} is of a kind this release does not know; upgrade this member")]
    Unknown {
        /// The entry.
        position: LogPosition,
    },
}

/// The state machine; one owner.
#[derive(Debug)]
pub struct State;

impl State {
    /// Opens the state a backend holds; empty in a new one.
    ///
    /// # Errors
    ///
    /// The backend's, or bytes that are no state.
    pub fn open(_backend: &Backend, _options: &Options) -> Result<Self, OpenError> {
        todo!()
    }

    /// How far the log is applied.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        todo!()
    }

    /// Applies entries in order, as one batch of the backend: what each did is pushed to
    /// `outcomes`. Readers see the batch at its end, whole. Entries at or below [`State::applied`]
    /// are skipped.
    ///
    /// # Errors
    ///
    /// `Halt` means this member alone failed and must stop.
    pub fn apply(
        &mut self,
        _entries: &[Committed],
        _outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Halt> {
        todo!()
    }

    /// A handle for readers.
    #[must_use]
    pub fn reads(&self) -> Reads {
        todo!()
    }

    /// Removes rows of a scheduled compaction, as a bounded piece of work.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub fn compact_step(&mut self) -> Result<mvcc::CompactStep, backend::ReadError> {
        todo!()
    }
}
