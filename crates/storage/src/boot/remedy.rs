//! What an operator does about files of a member that cannot be used.
//!
//! It depends on whether there are others. A member of several must never come back from a snapshot
//! or an older copy: it would have forgotten votes and entries that it acknowledged.

use std::collections::BTreeSet;
use std::fmt;

use base::MemberId;
use prost::Message as _;
use proto::raftpb::{self, ConfChangeType};
use raft::{Entry, EntryKind};
use state::members::MemberObject;
use vfs::Dir;

/// What to do, as the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nobody else has the data.
    Alone,
    /// Others have it.
    OneOf {
        /// How many vote, this member included or not.
        voters: u32,
        /// This member; [`MemberId::NONE`] if that is not known.
        member: MemberId,
    },
    /// Neither the log nor the database tells who votes.
    Unknown,
}

impl Remedy {
    /// For the members that the database knows.
    pub(super) fn of_members(members: &[MemberObject], member: MemberId) -> Self {
        Self::of(members.iter().filter(|member| !member.is_learner).count(), member)
    }

    /// For the members that the log knows, if it can be read.
    pub(super) fn of_log(parent: &dyn Dir, name: &str) -> Self {
        let Ok(replay) = wal::read(parent, name, |marks| marks.last().cloned()) else {
            return Self::Unknown;
        };
        let conf_state = replay.start.conf_state.unwrap_or_default();
        let mut voters: BTreeSet<u64> = conf_state.voters.iter().map(|id| id.0).collect();
        let commit = replay.hard_state.commit;
        for entry in replay.entries.iter().filter(|entry| entry.index <= commit) {
            follow(&mut voters, entry);
        }
        Self::of(voters.len(), replay.metadata.member)
    }

    fn of(voters: usize, member: MemberId) -> Self {
        match u32::try_from(voters).unwrap_or(u32::MAX) {
            0 => Self::Unknown,
            1 => Self::Alone,
            voters => Self::OneOf { voters, member },
        }
    }
}

/// What a change of the members, if the entry is one, does to those who vote.
fn follow(voters: &mut BTreeSet<u64>, entry: &Entry) {
    if entry.kind != EntryKind::ConfChange {
        return;
    }
    let Ok(change) = raftpb::ConfChange::decode(entry.data.clone()) else { return };
    match change.r#type() {
        ConfChangeType::ConfChangeAddNode => {
            voters.insert(change.node_id());
        }
        ConfChangeType::ConfChangeRemoveNode => {
            voters.remove(&change.node_id());
        }
        ConfChangeType::ConfChangeUpdateNode | ConfChangeType::ConfChangeAddLearnerNode => {}
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REPLACE: &str = "\"etcdctl member add NAME --peer-urls=URLS\", and start it with an \
                               empty data directory and --initial-cluster-state=existing";
        const RESTORE: &str = "\"etcdutl snapshot restore FILE\" into a new data directory";
        match self {
            Self::Alone => {
                write!(f, "this member is the only voter: restore it from a snapshot, {RESTORE}")
            }
            Self::OneOf { voters, member } => {
                let member = match *member {
                    MemberId::NONE => "ID".to_owned(),
                    id => id.to_string(),
                };
                write!(
                    f,
                    "the cluster has {voters} voters: remove this member and add it again, \
                     \"etcdctl member remove {member}\", {REPLACE}; never restore one of several \
                     from a snapshot or a copy"
                )
            }
            Self::Unknown => write!(
                f,
                "if the cluster has other voters, remove this member and add it again, \"etcdctl \
                 member remove ID\", {REPLACE}; only if it has none, restore it from a snapshot, \
                 {RESTORE}"
            ),
        }
    }
}
