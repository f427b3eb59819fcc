//! Starts and restarts, without a network.

use std::path::{Path, PathBuf};

use base::{Index, LogPosition, MemberId, Term};
use raft::{ConfState, Entry, EntryKind, HardState};
use vfs::OsDir;
use wal::Mark;

use super::*;

/// SEED4-03's members.
const URLS: [(&str, &str); 3] = [
    ("a", "http://10.255.1.211:2380"),
    ("b", "http://10.255.1.40:2380"),
    ("c", "http://10.255.1.181:2380"),
];

pub(super) fn options() -> BootOptions {
    BootOptions {
        wal: wal::Options::default(),
        backend: backend::Options::default(),
        state: state::Options {
            lease_ttl_seconds_min: 2,
            learners_max: 1,
            mvcc: mvcc::Options::default(),
        },
        force_new_cluster: false,
        shrink_bytes_min: None,
    }
}

/// One of the first members of a cluster of these.
fn founder(name: &str, urls: &[(&str, &str)]) -> Origin {
    let texts: Vec<String> = urls.iter().map(|(name, url)| format!("{name}={url}")).collect();
    let cluster = base::InitialCluster::parse(&texts.join(",")).unwrap();
    let members = state::members::founders(&cluster, "etcd-cluster-on-didicloud");
    let own = members.iter().find(|member| member.name == name).unwrap().id;
    Origin::Founder { own, members }
}

/// Starts `a`, one of three.
pub(super) fn boot_on(data_dir: &Arc<dyn Dir>) -> Result<Booted, BootError> {
    boot_as(data_dir, &options(), "a", &URLS)
}

fn boot_as(
    data_dir: &Arc<dyn Dir>,
    options: &BootOptions,
    name: &str,
    urls: &[(&str, &str)],
) -> Result<Booted, BootError> {
    let place = Place { data_dir: data_dir.clone(), wal: None };
    let opened = open(&place, options)?;
    let origin = (!opened.has_log()).then(|| founder(name, urls));
    opened.boot(options, origin)
}

/// The data directory of a member.
fn dir(folder: &Path, name: &str) -> Arc<dyn Dir> {
    std::fs::create_dir_all(folder.join(name)).unwrap();
    OsDir::open(folder.join(name)).unwrap()
}

/// CB-04, CB-10: SEED4-03's members agree on who they are and on how the log begins.
#[test]
fn the_first_members_write_the_same_log() {
    let folder = tempfile::tempdir().unwrap();
    let booted = ["a", "b", "c"]
        .map(|name| boot_as(&dir(folder.path(), name), &options(), name, &URLS).unwrap());
    let ids = booted.each_ref().map(|booted| booted.member.to_string());
    assert_eq!(ids, ["e95ffbf99d4aae9c", "dc6b4b48ae00bf8", "d6020117e8a2dc38"]);
    let first = &booted[0];
    for booted in &booted {
        assert_eq!(booted.cluster.to_string(), "ce964c3a01e63d53");
        assert_eq!(booted.restored.entries, first.restored.entries);
        assert_eq!(booted.restored.hard_state.commit, Index(3));
    }
}

/// CB-12: whatever the flags say by then.
#[test]
fn a_member_is_who_it_was_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let dir = dir(folder.path(), "a");
    let first = boot_on(&dir).unwrap();
    let (member, cluster, entries) = (first.member, first.cluster, first.restored.entries);
    drop((first.wal, first.backend, first.state));
    let again = boot_as(&dir, &options(), "b", &URLS[1..]).unwrap();
    assert_eq!((again.member, again.cluster), (member, cluster));
    assert_eq!(again.restored.entries, entries);
    assert_eq!(again.restored.hard_state.commit, Index(3));
    assert!(again.restarted);
}

/// G11: one of several never comes back from a snapshot; one that is alone has nothing else.
#[test]
fn the_remedy_for_a_damaged_database_depends_on_the_others() {
    for (urls, wanted, others) in [
        (&URLS[..], "the cluster has 3 voters: remove this member and add it again", true),
        (&URLS[..1], "this member is the only voter: restore it from a snapshot", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let dir = dir(folder.path(), "a");
        let boot = || boot_as(&dir, &options(), "a", urls);
        let mut booted = boot().unwrap();
        let commit = booted.restored.entries.last().unwrap().index;
        let hard_state = HardState { term: Term(1), vote: MemberId::NONE, commit };
        booted.wal.append_and_sync(&[], Some(&hard_state), true).unwrap();
        let member = booted.member;
        drop(booted);
        std::fs::write(snap(folder.path()).join("db"), [7; 8192]).unwrap();
        let error = boot().unwrap_err();
        assert!(matches!(error, BootError::DatabaseDamaged { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(wanted), "{text}");
        assert_eq!(text.contains(&format!("etcdctl member remove {member}")), others, "{text}");
        assert_eq!(text.contains("etcdutl snapshot restore"), !others, "{text}");
    }
}

/// G10: so does that for a damaged log. Learners have no data of their own to give.
#[test]
fn the_remedy_for_a_damaged_log_depends_on_the_others() {
    let member = |id: u64, is_learner| MemberObject {
        id: MemberId(id),
        is_learner,
        ..MemberObject::default()
    };
    let remedy = |members: &[MemberObject]| Remedy::of_members(members, MemberId::NONE).to_string();
    assert_eq!(Remedy::of_members(&[], MemberId::NONE), Remedy::Unknown);
    assert_eq!(
        Remedy::of_members(&[member(1, false), member(2, true)], MemberId::NONE),
        Remedy::Alone
    );
    let several = remedy(&[member(1, false), member(2, false)]);
    assert!(several.starts_with("the cluster has 2 voters: remove this member"), "{several}");
    assert!(several.contains("never restore"), "{several}");
    let unknown = remedy(&[]);
    assert!(unknown.contains("member remove ID") && unknown.contains("only if"), "{unknown}");
}

/// Makes the database of index 10, term 2, under a name.
fn make_database(snap: &Path, name: &str) {
    make_database_in(&OsDir::open(snap).unwrap(), name);
}

pub(super) fn make_database_in(snap: &Arc<dyn Dir>, name: &str) {
    let backend = Backend::open(snap, name, &backend::Options::default()).unwrap();
    backend.apply(backend::Batch::applied(AT));
    backend.commit().unwrap();
}

pub(super) const AT: LogPosition = LogPosition { index: Index(10), term: Term(2) };
pub(super) const RECEIVED: &str = "000000000000000a.snap.db";

/// A member that was sent a snapshot; `commit` is what its log says of it.
fn receiving(folder: &Path, commit: u64) -> Arc<dyn Dir> {
    let dir = dir(folder, "a");
    let mut booted = boot_on(&dir).unwrap();
    let voters = booted.restored.entries.iter().map(|entry| MemberId(entry.index.0)).collect();
    let conf_state = Some(ConfState { voters, ..ConfState::default() });
    booted.wal.mark(&Mark { position: AT, conf_state }).unwrap();
    let hard_state = HardState { term: Term(2), vote: MemberId::NONE, commit: Index(commit) };
    booted.wal.append_and_sync(&[], Some(&hard_state), true).unwrap();
    dir
}

fn snap(folder: &Path) -> PathBuf {
    folder.join("a/member/snap")
}

/// C8: the log counts on the snapshot, so it is installed, once.
#[test]
fn a_received_snapshot_becomes_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let dir = receiving(folder.path(), 10);
    let snap = snap(folder.path());
    make_database(&snap, RECEIVED);
    std::fs::write(snap.join("tmp123"), "half").unwrap();
    std::fs::write(snap.join("0000000000000007.snap.db"), "older").unwrap();
    let aux = folder.path().join("a/member/aux");
    for index in ["0000000000000007", "0000000000000005"] {
        std::fs::write(aux.join(format!("{index}.snap.db.sum")), "of what is gone").unwrap();
    }
    for _ in 0..2 {
        let booted = boot_on(&dir).unwrap();
        assert_eq!(booted.state.applied(), AT);
        assert_eq!(booted.restored.snapshot, AT);
        assert_eq!(booted.restored.hard_state.commit, Index(10));
        assert!(booted.restored.entries.is_empty());
        let mut names: Vec<String> = OsDir::open(&snap).unwrap().list().unwrap();
        names.retain(|name| name != "db");
        assert_eq!(names, [""; 0], "nothing else is left");
        let sums: Vec<String> = OsDir::open(&aux).unwrap().list().unwrap();
        assert!(sums.iter().all(|name| !name.contains(".snap.db")), "{sums:?}");
    }
}

/// C8: a snapshot whose mark or hard state was not written yet was not promised to anybody.
#[test]
fn a_snapshot_the_log_does_not_count_on_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = receiving(folder.path(), 3);
    make_database(&snap(folder.path()), RECEIVED);
    let booted = boot_on(&dir).unwrap();
    assert_eq!(booted.state.applied().index, Index(0));
    assert_eq!(booted.restored.entries.len(), 3);
    assert!(!snap(folder.path()).join(RECEIVED).exists());
}

/// C8: never an older state.
#[test]
fn a_received_snapshot_that_is_damaged_or_gone_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let dir = receiving(folder.path(), 10);
    let error = boot_on(&dir).unwrap_err();
    let expected = "failed to find database snapshot file (snap: snapshot file doesn't exist)";
    assert!(error.to_string().contains(expected), "{error}");
    let received = snap(folder.path()).join(RECEIVED);
    std::fs::write(&received, [7; 4096]).unwrap();
    let error = boot_on(&dir).unwrap_err();
    assert!(matches!(error, BootError::ReceivedDamaged { .. }), "{error:?}");
    assert!(received.exists());
}

/// D21, M1: who joins has a log without its own addition for a while, and may be killed then
/// (simulator, seed 4103); who founds has one with it from the beginning.
#[test]
fn a_member_that_joins_need_not_know_itself_yet() {
    let members = state::members::founders(
        &base::InitialCluster::parse("b=http://10.0.0.2:2380").unwrap(),
        "another",
    );
    for joins in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { data_dir: dir(folder.path(), "a"), wal: None };
        let opened = open(&place, &options()).unwrap();
        let own = MemberId(7);
        let origin = match joins {
            true => Origin::Joining { own, cluster: ClusterId(9), members: Vec::new() },
            false => founder("a", &URLS),
        };
        let mut booted = opened.boot(&options(), Some(origin)).unwrap();
        if joins {
            let data = state::members::founding_change(&members[0]);
            let term = Term(1);
            let entry = Entry { kind: EntryKind::ConfChange, term, index: Index(1), data };
            let hard_state = HardState { term, vote: MemberId::NONE, commit: Index(1) };
            booted.wal.append_and_sync(&[entry], Some(&hard_state), true).unwrap();
        }
        let last = Index(if joins { 1 } else { 3 });
        let mut batch = backend::Batch::applied(LogPosition { index: last, term: Term(1) });
        let key = members[0].id.to_string();
        batch.put(backend::Bucket::Members, key.as_bytes(), members[0].to_json());
        booted.backend.apply(batch);
        booted.backend.commit().unwrap();
        drop(booted);
        let again = open(&place, &options()).unwrap().boot(&options(), None);
        match again {
            Ok(booted) => assert!(joins && booted.member == own),
            Err(error) => assert!(!joins && matches!(error, BootError::OtherOwner { .. })),
        }
    }
}

/// M8: what is left of three members is one, and stays one without the flag.
#[test]
fn a_survivor_makes_a_cluster_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let dir = dir(folder.path(), "a");
    let mut first = boot_on(&dir).unwrap();
    let uncommitted =
        Entry { kind: EntryKind::Normal, term: Term(1), index: Index(4), data: "lost".into() };
    first.wal.append_and_sync(&[uncommitted], None, true).unwrap();
    let (member, cluster) = (first.member, first.cluster);
    drop(first);
    let options = BootOptions { force_new_cluster: true, ..options() };
    let forced = boot_as(&dir, &options, "a", &URLS).unwrap();
    assert_eq!((forced.member, forced.cluster), (member, cluster));
    let kinds: Vec<_> = forced.restored.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::ConfChange; 5], "three members, two of them removed");
    assert_eq!(forced.restored.hard_state.commit, Index(5));
    let entries = forced.restored.entries.clone();
    drop(forced);
    let again = boot_on(&dir).unwrap();
    assert_eq!(again.restored.entries, entries);
    assert_eq!(again.restored.hard_state.commit, Index(5));
}
