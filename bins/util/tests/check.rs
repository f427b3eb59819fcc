//! `check v2store`, on files that are made here; where `REAL_ETCD_35` is set its tool is asked too.
#![allow(clippy::unwrap_used, reason = "a test tells what it cannot do by stopping")]

mod support;

use std::fs;
use std::path::Path;

use backend::{Backend, Batch, Bucket, Options};
use base::{ClusterId, Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use prost::Message as _;
use proto::{raftpb, v2pb};
use raft::{ConfState, Entry, EntryKind, HardState};
use retcd_conformance::real_etcd;
use state::snapshot_file::SnapshotFile;
use support::{Said, etcdutl, run};
use v2store::{Change, Store, Write};
use vfs::OsDir;
use wal::{Mark, Metadata, Wal};

const MEMBER: MemberId = MemberId(5);
const TERM: Term = Term(2);

/// What a client of the v2 generation makes.
fn make(store: &mut Store, path: &str, value: Option<&str>) {
    let value = value.unwrap_or_default().to_owned();
    let change = Change::Set { dir: value.is_empty(), value };
    let path = path.to_owned();
    store.write(Write { path, change, expires: None, refresh: false, at: None }).unwrap();
}

/// A path and what is there.
type Node<'t> = (&'t str, Option<&'t str>);

/// The tree of one who has these; those without a value are directories.
fn tree(nodes: &[Node<'_>]) -> Store {
    let mut store = Store::new();
    for (path, value) in nodes {
        make(&mut store, path, *value);
    }
    store
}

/// Writes `folder/data` with a snapshot at 4 that has the tree, and with more entries behind it.
fn member(folder: &Path, tree: &Store, after: &[Bytes]) {
    let snap = folder.join("data/member/snap");
    fs::create_dir_all(&snap).unwrap();
    let parent = OsDir::open(folder.join("data/member")).unwrap();
    let metadata = Metadata { member: MEMBER, cluster: ClusterId(7) };
    let mut log = Wal::create(&parent, "wal", &metadata).unwrap();
    let empty = vec![Bytes::new(); 4];
    let entries: Vec<_> = (1..)
        .zip(empty.iter().chain(after))
        .map(|(index, data)| Entry {
            kind: EntryKind::Normal,
            term: TERM,
            index: Index(index),
            data: data.clone(),
        })
        .collect();
    let commit = entries.last().unwrap().index;
    let state = HardState { term: TERM, vote: MEMBER, commit };
    log.append_and_sync(&entries[..4], Some(&HardState { commit: Index(4), ..state }), true)
        .unwrap();
    let position = LogPosition { index: Index(4), term: TERM };
    let conf_state = ConfState { voters: [MEMBER].into(), ..ConfState::default() };
    log.mark(&Mark { position, conf_state: Some(conf_state) }).unwrap();
    log.append_and_sync(&entries[4..], Some(&state), true).unwrap();
    let file = SnapshotFile {
        position,
        conf_state: raftpb::ConfState { voters: vec![MEMBER.0], ..raftpb::ConfState::default() },
        members: &[],
        removed: &[],
        cluster_version: Some("3.5.0"),
        v2: Some(tree),
    };
    fs::write(snap.join(file.name()), file.encode()).unwrap();
}

/// What our tool says, which is what etcd's says where it is there.
fn check(folder: &Path, data: &str) -> Said {
    let words = ["check", "v2store", "--data-dir", data];
    let said = etcdutl(folder, &words);
    if let Some(real) = real_etcd("3.5") {
        let theirs = run(&real.join("etcdutl"), folder, &words);
        assert_eq!((said.code, &said.stdout), (theirs.code, &theirs.stdout), "{theirs:?}");
        if theirs.code != 0 {
            assert_eq!(said.last_error(), theirs.last_error());
        }
    }
    said
}

const NOTHING: &str = "No custom content found in v2store.\n";
const FOUND: &str = "Error: detected custom content in v2store";

/// What counts is what users would lose; that nothing is left of it counts as nothing.
#[test]
fn keys_users_and_roles_are_content() {
    let empty_accounts = [("/2/users", None), ("/2/roles", None), ("/2/enabled", Some("false"))];
    let cases: [(&[Node<'_>], bool); 7] = [
        (&[], false),
        (&[("/1/key", Some("value"))], true),
        (&[("/1/folder", None)], true),
        (&[("/1/_hidden", Some("value"))], false),
        (&empty_accounts, false),
        (&[("/2/users", None), ("/2/users/root", Some("{}"))], true),
        (&[("/2/roles", None), ("/2/roles/guest", Some("{}"))], true),
    ];
    for (nodes, is_found) in cases {
        let folder = tempfile::tempdir().unwrap();
        member(folder.path(), &tree(nodes), &[]);
        let said = check(folder.path(), "data");
        let told = (said.code, said.stdout.as_str(), said.last_error());
        let expected = if is_found { (1, "", FOUND) } else { (0, NOTHING, "") };
        assert_eq!(told, expected, "{nodes:?}");
    }
}

/// Neither a folder nor a log nor a snapshot is asked for more than it has.
#[test]
fn directories_without_a_snapshot_have_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let said = check(folder.path(), "none");
    let text = "Error: open none/member/wal: no such file or directory";
    assert_eq!((said.code, said.last_error()), (1, text));
    member(folder.path(), &tree(&[("/1/key", Some("value"))]), &[]);
    let snap = folder.path().join("data/member/snap");
    for entry in fs::read_dir(&snap).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(check(folder.path(), "data").ok().stdout, NOTHING);
    for entry in fs::read_dir(folder.path().join("data/member/wal")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(check(folder.path(), "data").ok().stdout, NOTHING);
}

/// As etcd, the log is not replayed; other than etcd, it is said that something is there.
#[test]
fn requests_behind_the_snapshot_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let request = |path: &str| {
        let (method, path) =
            (Some("PUT".to_owned()), Some(Bytes::copy_from_slice(path.as_bytes())));
        let id = Some(1);
        Bytes::from(v2pb::Request { id, method, path, ..v2pb::Request::default() }.encode_to_vec())
    };
    let own = request("/0/members/5/attributes");
    member(folder.path(), &Store::new(), &[own, request("/1/key")]);
    let said = check(folder.path(), "data").ok();
    assert_eq!(said.stdout, NOTHING);
    assert!(said.stderr.contains("\"requests\": 1, \"snapshot-index\": 4"), "{said:?}");
}

/// Our members have the tree in the database, and newer.
#[test]
fn tree_of_our_database_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (applied, is_found) in [(3_u64, false), (9, true)] {
        if !path.join("data").exists() {
            member(path, &Store::new(), &[]);
        }
        let dir = OsDir::open(path.join("data/member/snap")).unwrap();
        let database = Backend::open(&dir, "db", &Options::default()).unwrap();
        let mut batch = Batch::upkeep();
        for row in tree(&[("/1/key", Some("value"))]).all_rows() {
            batch.put(Bucket::V2Store, &row.key, row.value.unwrap());
        }
        let position = Bytes::copy_from_slice(&applied.to_be_bytes());
        batch.put(Bucket::V2Store, b"applied", position);
        database.apply(batch);
        database.commit().unwrap();
        drop(database);
        // Of this database etcd's tool knows nothing.
        let said = etcdutl(path, &["check", "v2store", "--data-dir", "data"]);
        let told = (said.code, said.last_error());
        assert_eq!(told, if is_found { (1, FOUND) } else { (0, "") }, "{said:?}");
    }
}

/// Those who do not name it do not see it, as in 3.7.
#[test]
fn check_is_there_for_those_who_name_it() {
    let here = |words: &[&str]| etcdutl(Path::new("/"), words);
    assert!(!here(&["--help"]).ok().stdout.contains("v2store"));
    let said = here(&["check", "v2store"]);
    let last = "Error: required flag(s) \"data-dir\" not set";
    assert_eq!((said.code, said.last_error()), (1, last));
    assert!(here(&["bbolt", "check", "--help"]).ok().stdout.contains("<bbolt-file>"));
}
