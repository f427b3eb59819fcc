//! Copies of folders made by hand.

use std::path::Path;

use base::{Index, Term};
use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader};
use proto::v2pb;
use raft::{Entry, EntryKind, HardState};

use super::*;

fn v2(path: &str) -> Bytes {
    let request = v2pb::Request {
        id: Some(7),
        method: Some("PUT".into()),
        path: Some(path.to_owned().into()),
        val: Some("x".into()),
        ..v2pb::Request::default()
    };
    request.encode_to_vec().into()
}

fn v3() -> Bytes {
    let header = RequestHeader { id: 8, ..RequestHeader::default() };
    let put = PutRequest { key: "k".into(), ..PutRequest::default() };
    let request =
        InternalRaftRequest { header: Some(header), put: Some(put), ..Default::default() };
    request.encode_to_vec().into()
}

/// A member's folder whose log has six entries, of which five are committed.
fn member(folder: &Path) {
    let dir = OsDir::open(folder.join("member")).unwrap();
    let metadata = Metadata { member: MemberId(1), cluster: ClusterId(2) };
    let mut wal = Wal::create(&dir, "wal", &metadata).unwrap();
    let data = [
        (EntryKind::ConfChange, Bytes::from_static(b"x")),
        (EntryKind::Normal, v2("/0/members/8e9e05c52164694d/attributes")),
        (EntryKind::Normal, v2("/1/message")),
        (EntryKind::Normal, v3()),
        (EntryKind::Normal, v2("/0/version")),
        (EntryKind::Normal, v2("/1/uncommitted")),
    ];
    let entries: Vec<Entry> = (1..)
        .zip(data)
        .map(|(index, (kind, data))| Entry { kind, term: Term(1), index: Index(index), data })
        .collect();
    let hard_state = HardState { term: Term(1), vote: MemberId(1), commit: Index(5) };
    wal.append_and_sync(&entries, Some(&hard_state), true).unwrap();
}

fn backup(folder: &Path) -> Backup {
    Backup {
        data_dir: folder.join("data"),
        wal_dir: None,
        backup_dir: folder.join("backup"),
        backup_wal_dir: None,
        with_v3: false,
    }
}

/// LEG-01.
#[test]
fn members_version_and_v3_requests_are_left_out_and_indexes_stay() {
    let folder = tempfile::tempdir().unwrap();
    let backup = backup(folder.path());
    member(&backup.data_dir);
    let mut told = Vec::new();
    backup.run(&mut |what| told.push(what.to_string())).unwrap();
    assert_eq!(
        told,
        [
            "ignoring EntryConfChange raft entry",
            "ignoring member attribute update on /0/members/8e9e05c52164694d/attributes",
            "ignoring v3 raft entry",
        ]
    );
    let dir = OsDir::open(backup.backup_dir.join("member")).unwrap();
    let replay = wal::read(&*dir, "wal", |marks| marks.last().cloned()).unwrap();
    assert_ne!(replay.metadata.member, MemberId(1));
    assert_ne!(replay.metadata.cluster, ClusterId(2));
    assert_eq!(replay.hard_state.commit, Index(5));
    let kept: Vec<bool> = replay.entries.iter().map(|entry| !entry.data.is_empty()).collect();
    assert_eq!(kept, [false, false, true, false, false, true]);
    let snap = OsDir::open(backup.backup_dir.join("member/snap")).unwrap();
    let backend = backend::Backend::open(&snap, "db", &backend::Options::default()).unwrap();
    assert_eq!(backend.applied().index, Index(5));
}

/// LEG-02.
#[test]
fn target_that_is_not_empty_is_told_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let backup = backup(folder.path());
    member(&backup.data_dir);
    let snap = backup.backup_dir.join("member/snap");
    fs::create_dir_all(&snap).unwrap();
    fs::write(snap.join("db"), "x").unwrap();
    let error = backup.run(&mut |_| {}).unwrap_err().to_string();
    let snap_shown = snap.display();
    assert_eq!(
        error,
        format!(
            "failed creating backup snapshot dir {snap_shown}: expected \"{snap_shown}\" to be \
             empty, got [\"db\"]"
        )
    );
    assert_eq!(fs::read(snap.join("db")).unwrap(), b"x");
    assert!(!backup.backup_dir.join("member/wal").exists());
}

/// LEG-01.
#[test]
fn folder_without_a_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = backup(folder.path()).run(&mut |_| {}).unwrap_err();
    assert!(matches!(error, BackupError::Path { .. }), "{error}");
    assert!(!folder.path().join("data").exists());
}
