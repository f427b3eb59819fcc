//! The log of a member that starts for the first time.
//!
//! A founder's begins with one entry for each first member, the same on every one of them, so that
//! they agree without having spoken. A joining member's begins empty: whom it belongs to stands in
//! its metadata, and the leader sends everything else. Either way a crash leaves a whole beginning
//! or no log at all. Source: etcd-io/raft bootstrap.go; etcd server/etcdserver/bootstrap.go.

use base::{Index, MemberId, Term};
use raft::{Entry, EntryKind, HardState, Restored};
use state::members::{self, MemberObject};
use wal::{Metadata, Wal};

use super::{BootError, BootOptions, Booted, Opened, Origin};

/// A new member on files without a log.
///
/// # Errors
///
/// The log cannot be made.
pub(super) fn first(
    opened: Opened,
    origin: Origin,
    options: &BootOptions,
) -> Result<Booted, BootError> {
    let (metadata, entries, remotes) = match origin {
        Origin::Founder { own, members } => {
            let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
            let metadata = Metadata { member: own, cluster: members::cluster_id(&ids) };
            let entries = (1..).zip(&members).map(|(index, member)| add(index, member));
            (metadata, entries.collect(), Vec::new())
        }
        Origin::Joining { own, cluster, members } => {
            (Metadata { member: own, cluster }, Vec::new(), members)
        }
    };
    let (parent, name) = (&opened.wal_parent, &opened.wal_name);
    let mut hard_state = HardState::default();
    let wal = match entries.last() {
        None => Wal::create_with(parent, name, &metadata, options.wal),
        Some(Entry { index, .. }) => {
            hard_state = HardState { term: Term(1), vote: MemberId::NONE, commit: *index };
            Wal::create_begun(parent, name, &metadata, &entries, &hard_state, options.wal)
        }
    };
    let wal = wal.map_err(BootError::NewLog)?;
    let wal_dir = opened.open_wal_dir()?;
    let Opened { backend, state, snap_dir, .. } = opened;
    Ok(Booted {
        member: metadata.member,
        cluster: metadata.cluster,
        restored: Restored { hard_state, entries, ..Restored::default() },
        state,
        backend,
        wal,
        wal_dir,
        snap_dir,
        restarted: false,
        remotes,
    })
}

/// The entry that makes a first member known; every first member writes the same.
fn add(index: u64, member: &MemberObject) -> Entry {
    Entry {
        kind: EntryKind::ConfChange,
        term: Term(1),
        index: Index(index),
        data: members::founding_change(member),
    }
}
