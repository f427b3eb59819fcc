//! The log: read from its newest snapshot on, and without the members.

use std::path::Path;
use std::thread;
use std::time::Duration;

use base::{LogPosition, MemberId};
use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::InternalRaftRequest;
use proto::v2pb;
use raft::{Entry, EntryKind, HardState};
use vfs::OsDir;
use wal::{Mark, Replay};

use crate::{BackupError, Snapshot, Told, file_name, parent_of};

/// How often the log of a running member is read anew when it looks torn.
const READS_MAX: usize = 5;

/// What a v2 request may do.
const METHODS: [&str; 5] = ["PUT", "POST", "DELETE", "QGET", "SYNC"];

/// What the new log holds.
#[derive(Debug)]
pub(crate) struct Copy {
    /// What the entries follow.
    pub(crate) start: LogPosition,
    pub(crate) entries: Vec<Entry>,
    pub(crate) hard_state: HardState,
}

impl Copy {
    /// The last entry that is committed.
    pub(crate) fn end(&self) -> LogPosition {
        let committed = self.entries.iter().rev().find(|it| it.index <= self.hard_state.commit);
        committed.map_or(self.start, |it| LogPosition { index: it.index, term: it.term })
    }
}

/// The log behind the newest of the snapshots that it knows, or from its beginning.
pub(crate) fn read(wal_dir: &Path, snapshots: &[Snapshot]) -> Result<Replay, BackupError> {
    // Opening a folder makes it.
    std::fs::metadata(wal_dir).map_err(BackupError::path("open", wal_dir))?;
    let parent = parent_of(wal_dir);
    let dir = OsDir::open(&parent).map_err(BackupError::path("open", &parent))?;
    let choose = |marks: &[Mark]| {
        let known = |mark: &&Mark| {
            let mut positions = snapshots.iter().map(|snapshot| snapshot.position);
            mark.position.index.0 == 0 || positions.any(|position| position == mark.position)
        };
        marks.iter().rev().find(known).cloned()
    };
    let mut tries = 1;
    loop {
        match wal::read(&*dir, &file_name(wal_dir), choose) {
            Ok(replay) => return Ok(replay),
            // A member may be writing just now.
            Err(_) if tries < READS_MAX => {
                tries += 1;
                thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Empties what tells of the members and of the cluster's version, and what is the v3 generation's
/// unless it is wanted. The version is that of the old cluster's members: an older release, on which
/// the copy may be started, would take it for a downgrade.
pub(crate) fn translate(replay: Replay, with_v3: bool, tell: &mut dyn FnMut(&Told)) -> Copy {
    let Replay { start, mut entries, hard_state, .. } = replay;
    for entry in &mut entries {
        let told = left_out(entry, with_v3);
        if told.is_none() && !is_version(entry) {
            continue;
        }
        told.iter().for_each(&mut *tell);
        entry.kind = EntryKind::Normal;
        entry.data = Bytes::new();
    }
    let last = entries.last().map_or(start.position.index, |entry| entry.index);
    // The vote was for somebody who is not in the new cluster.
    let hard_state =
        HardState { vote: MemberId::NONE, commit: hard_state.commit.min(last), ..hard_state };
    Copy { start: start.position, entries, hard_state }
}

fn left_out(entry: &Entry, with_v3: bool) -> Option<Told> {
    match entry.kind {
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => return Some(Told::MemberChange),
        EntryKind::Normal if entry.data.is_empty() => return None,
        EntryKind::Normal => {}
    }
    let v2 = v2pb::Request::decode(entry.data.clone());
    // Requests of the v3 generation have no method.
    if let Some(request) = v2.ok().filter(|request| METHODS.contains(&request.method())) {
        return attributes(&request);
    }
    // What nobody understands is left to whoever applies it.
    let request = InternalRaftRequest::decode(entry.data.clone()).ok()?;
    if let Some(set) = &request.cluster_member_attr_set {
        let path = format!("/0/members/{}/attributes", MemberId(set.member_id));
        return Some(Told::MemberAttributes { path });
    }
    (!with_v3 && request.header.is_some()).then_some(Told::V3Request)
}

/// Whether an entry says only which version the cluster has, or is to have.
fn is_version(entry: &Entry) -> bool {
    if entry.kind != EntryKind::Normal || entry.data.is_empty() {
        return false;
    }
    let v2 = v2pb::Request::decode(entry.data.clone());
    if let Some(request) = v2.ok().filter(|request| METHODS.contains(&request.method())) {
        return request.method() == "PUT" && request.path() == b"/0/version";
    }
    InternalRaftRequest::decode(entry.data.clone()).is_ok_and(|request| {
        request.cluster_version_set.is_some() || request.downgrade_info_set.is_some()
    })
}

/// Whether a v2 request is one in which a member tells of itself.
fn attributes(request: &v2pb::Request) -> Option<Told> {
    let path = String::from_utf8_lossy(request.path()).into_owned();
    let id = path.strip_prefix("/0/members/")?.strip_suffix("/attributes")?;
    let is_id = (1..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && request.method() == "PUT").then_some(Told::MemberAttributes { path })
}
