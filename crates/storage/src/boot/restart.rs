//! A member that has a log: the log and the database are held against each other.
//!
//! Not here: opening the database, and a snapshot that was received and not yet installed.
//! Source: etcd server/etcdserver/bootstrap.go; interop 2.5 (what is applied again).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use base::{Index, MemberId};
use prost::Message as _;
use proto::raftpb;
use raft::{ConfState, Entry, EntryKind, Restored};
use state::members::MemberObject;
use vfs::Dir;
use wal::{Mark, Metadata, Replay, Wal};

use super::remedy::Remedy;
use super::{BootError, BootOptions, Booted, Opened, force};

/// Whether a log holds everything from the first entry on, before a database is made from it.
pub(super) fn check_complete(
    wal_parent: &Arc<dyn Dir>,
    wal_name: &str,
    snap_dir: &Arc<dyn Dir>,
) -> Result<(), BootError> {
    let needed = Cell::new(Index(0));
    let begin = |marks: &[Mark]| {
        needed.set(marks.first().map_or(Index(0), |mark| mark.position.index));
        marks.iter().find(|mark| mark.position.index == Index(0)).cloned()
    };
    match wal::read(wal_parent.as_ref(), wal_name, begin) {
        Ok(_) => Ok(()),
        Err(wal::OpenError::NoMark { .. } | wal::OpenError::MarkMissing { .. }) => {
            Err(BootError::DatabaseMissing {
                remedy: Remedy::of_log(&**wal_parent, wal_name),
                db: snap_dir.path().join("db").display().to_string(),
                wal: wal_parent.path().join(wal_name).display().to_string(),
                needed: needed.get(),
            })
        }
        Err(source) => Err(unusable(wal_parent, wal_name, Remedy::Unknown, source)),
    }
}

/// Why a log does not open. What the operating system refused is no damage.
pub(super) fn unusable(
    wal_parent: &Arc<dyn Dir>,
    wal_name: &str,
    remedy: Remedy,
    source: wal::OpenError,
) -> BootError {
    match source {
        wal::OpenError::Folder { .. }
        | wal::OpenError::File { .. }
        | wal::OpenError::InUse { .. }
        | wal::OpenError::OtherOwner { .. }
        | wal::OpenError::Repair { .. } => BootError::Log(source),
        wal::OpenError::Missing { .. }
        | wal::OpenError::Read { .. }
        | wal::OpenError::SegmentGap { .. }
        | wal::OpenError::Damaged { .. }
        | wal::OpenError::EntryGap { .. }
        | wal::OpenError::GoesBack { .. }
        | wal::OpenError::NoMark { .. }
        | wal::OpenError::MarkMissing { .. }
        | wal::OpenError::MarkTerm { .. }
        | wal::OpenError::CommittedLost { .. } => {
            let wal = wal_parent.path().join(wal_name).display().to_string();
            BootError::LogDamaged { wal, remedy, source: Box::new(source) }
        }
    }
}

/// D21: whether the log's owner is one of the members that the database knows, if by the log it is
/// one by then. Who joins applies everything from the first entry on, and is none for long.
fn check_owner(parts: &Opened, replay: &Replay) -> Result<(), BootError> {
    let Metadata { member, cluster } = replay.metadata;
    let members = parts.state.members();
    if members.is_empty()
        || members.iter().any(|known| known.id == member)
        || parts.state.removed_members().contains(&member)
    {
        return Ok(());
    }
    let applied = parts.state.applied().index;
    let (before, behind): (Vec<&Entry>, Vec<&Entry>) = replay
        .entries
        .iter()
        .filter(|entry| concerns(entry, member))
        .partition(|entry| entry.index <= applied);
    let is_marked =
        replay.start.conf_state.as_ref().is_some_and(|state| {
            state.voters.contains(&member) || state.learners.contains(&member)
        });
    if !behind.is_empty() || (before.is_empty() && !is_marked) {
        return Ok(());
    }
    let names: Vec<String> = members.iter().map(|known| known.id.to_string()).collect();
    Err(BootError::OtherOwner {
        wal: parts.wal_path(),
        log_member: member,
        cluster,
        db: parts.snap_dir.path().join("db").display().to_string(),
        members: names.join(", "),
    })
}

/// Whether a membership entry may concern a member.
fn concerns(entry: &Entry, member: MemberId) -> bool {
    match entry.kind {
        EntryKind::Normal => false,
        // What cannot be read is found out when it is applied.
        EntryKind::ConfChange => raftpb::ConfChange::decode(entry.data.clone())
            .is_ok_and(|change| change.node_id() == member.0),
        // Nobody writes these yet, so nothing is known about them.
        EntryKind::ConfChangeV2 => true,
    }
}

/// Opens the log at the newest mark whose state the database has.
fn open_log(opened: &Opened, options: wal::Options) -> Result<(Wal, Replay), BootError> {
    let applied = opened.state.applied();
    // Who the member is, the log alone says.
    let remedy = || Remedy::of_members(&opened.state.members(), MemberId::NONE);
    let newest = Cell::new(Index(0));
    let newest_below = |marks: &[Mark]| {
        newest.set(marks.last().map_or(Index(0), |mark| mark.position.index));
        marks.iter().rev().find(|mark| mark.position.index <= applied.index).cloned()
    };
    let (parent, name) = (&opened.wal_parent, &opened.wal_name);
    let (wal, replay) = match Wal::open_with(parent, name, newest_below, options) {
        Ok(log) => log,
        Err(source @ wal::OpenError::NoMark { .. }) => {
            return Err(BootError::DatabaseBehind {
                remedy: remedy(),
                applied: applied.index,
                source,
            });
        }
        // A snapshot that was received leaves a gap behind what this database has applied.
        Err(source @ (wal::OpenError::EntryGap { .. } | wal::OpenError::CommittedLost { .. }))
            if applied.index < newest.get() =>
        {
            return Err(BootError::DatabaseBehind {
                remedy: remedy(),
                applied: applied.index,
                source,
            });
        }
        Err(source) => {
            return Err(unusable(parent, name, remedy(), source));
        }
    };
    if let Some(repaired) = &replay.repaired {
        tracing::warn!(
            segment = repaired.segment,
            offset = repaired.offset,
            bytes = repaired.bytes,
            backup = repaired.backup.as_deref().unwrap_or("none"),
            "cut off the torn end of the log: a write that was never acknowledged"
        );
    }
    Ok((wal, replay))
}

/// The member of the log; `force_new_cluster` makes it the only one of its cluster first.
pub(super) fn restart(mut opened: Opened, options: &BootOptions) -> Result<Booted, BootError> {
    let force_new_cluster = options.force_new_cluster;
    let applied = opened.state.applied();
    let (mut wal, replay) = open_log(&opened, options.wal)?;
    check_owner(&opened, &replay)?;
    let Metadata { member, cluster } = replay.metadata;
    if opened.state.removed_members().contains(&member) {
        return Err(BootError::Removed { member, cluster });
    }
    let start = replay.start.position;
    let last = replay.entries.last().map_or(start.index, |entry| entry.index);
    if last < applied.index {
        let remedy = Remedy::of_members(&opened.state.members(), member);
        return Err(BootError::LogBehind { remedy, last, applied: applied.index });
    }
    super::v2::take_over(&mut opened, start, &replay.entries);
    let written = replay.hard_state;
    let mut hard_state = written;
    // The commit index is written lazily; what is applied was committed.
    hard_state.commit = hard_state.commit.max(applied.index).max(start.index);
    let members = opened.state.members();
    let conf_state = if members.is_empty() {
        replay.start.conf_state.unwrap_or_default()
    } else {
        conf_state_of(&members)
    };
    let mut entries = replay.entries;
    if force_new_cluster {
        let before = force::Before { own: member, conf_state: &conf_state, applied: applied.index };
        force::only_member(&before, &mut wal, &mut entries, &mut hard_state)
            .map_err(BootError::Force)?;
    }
    tracing::info!(
        "cluster-id" = %cluster,
        "local-member-id" = %member,
        "commit-index" = hard_state.commit.0,
        "{}",
        if force_new_cluster { "forcing restart member" } else { "restarting local member" }
    );
    let wal_dir = opened.open_wal_dir()?;
    let Opened { backend, state, snap_dir, .. } = opened;
    Ok(Booted {
        member,
        cluster,
        restored: Restored {
            // Consensus raises it too, and then writes it: a mark beyond the commit index in the
            // log would be none at the next start.
            hard_state: if force_new_cluster { hard_state } else { written },
            conf_state,
            snapshot: start,
            entries,
            applied: applied.index,
            unsure: wal.is_unsure(),
        },
        state,
        backend,
        wal,
        wal_dir,
        snap_dir,
        restarted: true,
        remotes: Vec::new(),
    })
}

/// Who votes, by the members the state holds.
#[must_use]
pub fn conf_state_of(members: &[MemberObject]) -> ConfState {
    let ids = |learner: bool| -> BTreeSet<MemberId> {
        let of_kind = members.iter().filter(|member| member.is_learner == learner);
        of_kind.map(|member| member.id).collect()
    };
    ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
}
