//! What comes in, entry by entry, and what goes out.

use base::{Index, LogPosition, MemberId};
use bytes::Bytes;
use prost::Message as _;
use proto::raftpb;

use crate::command::Request;
use crate::members::Change;
use crate::{Refusal, Reply};

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

impl Payload {
    /// The id that its proposer gave it, and is answered under; `None` if it has none, or this release
    /// cannot read it.
    #[must_use]
    pub fn request_id(&self) -> Option<u64> {
        let id = match self {
            Self::Nothing => None,
            Self::Request(bytes) => Request::decode(bytes).map(|request| request.id),
            Self::MemberChange(bytes) => {
                raftpb::ConfChange::decode(bytes.clone()).ok().map(|change| change.id())
            }
        };
        id.filter(|id| *id != 0)
    }

    /// Whether this release can apply it. What it cannot would stop every member like this one, and
    /// stay in the log: it must not get there.
    #[must_use]
    pub fn is_known(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Request(bytes) => bytes.is_empty() || Request::decode(bytes).is_some(),
            Self::MemberChange(bytes) => {
                let message = raftpb::ConfChange::decode(bytes.clone()).ok();
                message.and_then(|message| Change::decode(&message)).is_some()
            }
        }
    }
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
#[derive(Clone, Debug, PartialEq)]
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
    /// A received snapshot could not be installed. At the next start that is finished, or the
    /// member is as it was.
    #[error("installing the received snapshot at {position}")]
    Restore {
        /// Where it stands in the log.
        position: LogPosition,
        /// The cause.
        #[source]
        source: backend::ReplaceError,
    },
    /// The leader knows of entries that this member stored, and its log ends before them.
    #[error(
        "the log ends at entry {last}, but this member acknowledged entries up to {acknowledged} \
         to leader {leader}: its disk lost data or was put back to an older state; remove this \
         member with 'etcdctl member remove', add it again and start it with an empty data \
         directory"
    )]
    Forgotten {
        /// Who knows.
        leader: MemberId,
        /// The last entry that is known to have been stored here.
        acknowledged: Index,
        /// The end of the log.
        last: Index,
    },
    /// An entry that this release does not know; a newer member wrote it.
    #[error("entry {position} is of a kind this release does not know; upgrade this member")]
    Unknown {
        /// The entry.
        position: LogPosition,
    },
}
