//! Starts and restarts on real folders, without a network.

use std::path::Path;

use super::*;
use crate::config::{ClusterState, InitialCluster};
use crate::peers::ask::Asker;
use crate::peers::dial::PeerDial;
use base::{Index, LogPosition, MemberId, Term};
use raft::{ConfState, Entry, EntryKind, HardState};
use std::time::Duration;
use wal::Mark;

const CLUSTER: &str =
    "a=http://10.255.1.211:2380,b=http://10.255.1.40:2380,c=http://10.255.1.181:2380";

fn options(folder: &Path, name: &str) -> BootOptions {
    std::fs::create_dir_all(folder.join(name)).unwrap();
    options_in(folder, name)
}

pub(super) fn options_in(folder: &Path, name: &str) -> BootOptions {
    BootOptions {
        data_dir: folder.join(name),
        wal_dir: None,
        name: name.to_owned(),
        origin: OriginOptions {
            name: name.to_owned(),
            state: ClusterState::New,
            cluster: InitialCluster::parse(CLUSTER).unwrap(),
            token: "etcd-cluster-on-didicloud".to_owned(),
            discovery: None,
            learners_max: 1,
            request_timeout: Duration::from_secs(7),
        },
        force_new_cluster: false,
        backend: backend::Options::default(),
        state: state::Options {
            lease_ttl_seconds_min: 2,
            learners_max: 1,
            mvcc: mvcc::Options::default(),
        },
        shrink_bytes_min: None,
    }
}

fn boot(options: &BootOptions) -> Result<Booted, BootError> {
    boot_opened(open(options)?, options)
}

/// Nobody is asked: the others' addresses lead nowhere at once.
pub(super) fn boot_opened(opened: Opened, options: &BootOptions) -> Result<Booted, BootError> {
    let mut origin = None;
    if !opened.has_log() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asker = Asker::new(Arc::new(PeerDial::new(Duration::from_millis(1), None)));
        origin = Some(runtime.block_on(origin::find(&options.origin, &asker))?);
    }
    opened.boot(options, origin)
}

/// CB-04, CB-10: SEED4-03's members agree on who they are and on how the log begins.
#[test]
fn the_first_members_write_the_same_log() {
    let folder = tempfile::tempdir().unwrap();
    let booted = ["a", "b", "c"].map(|name| boot(&options(folder.path(), name)).unwrap());
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
    let mut options = options(folder.path(), "a");
    let first = boot(&options).unwrap();
    let (member, cluster, entries) = (first.member, first.cluster, first.restored.entries);
    drop((first.wal, first.backend, first.state));
    options.origin.cluster = InitialCluster::default();
    options.origin.token = "another".to_owned();
    options.origin.state = ClusterState::Existing;
    let again = boot(&options).unwrap();
    assert_eq!((again.member, again.cluster), (member, cluster));
    assert_eq!(again.restored.entries, entries);
    assert_eq!(again.restored.hard_state.commit, Index(3));
    assert!(again.restarted);
}

/// G11: one of several never comes back from a snapshot; one that is alone has nothing else.
#[test]
fn the_remedy_for_a_damaged_database_depends_on_the_others() {
    let alone = CLUSTER.split(',').next().unwrap();
    for (cluster, wanted, others) in [
        (CLUSTER, "the cluster has 3 voters: remove this member and add it again", true),
        (alone, "this member is the only voter: restore it from a snapshot", false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(folder.path(), "a");
        options.origin.cluster = InitialCluster::parse(cluster).unwrap();
        let mut booted = boot(&options).unwrap();
        let commit = booted.restored.entries.last().unwrap().index;
        let hard_state = HardState { term: Term(1), vote: MemberId::NONE, commit };
        booted.wal.append_and_sync(&[], Some(&hard_state), true).unwrap();
        let member = booted.member;
        drop(booted);
        std::fs::write(snap(folder.path()).join("db"), [7; 8192]).unwrap();
        let error = boot(&options).unwrap_err();
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
fn receiving(folder: &Path, commit: u64) -> BootOptions {
    let options = options(folder, "a");
    let mut booted = boot(&options).unwrap();
    let voters = booted.restored.entries.iter().map(|entry| MemberId(entry.index.0)).collect();
    let conf_state = Some(ConfState { voters, ..ConfState::default() });
    booted.wal.mark(&Mark { position: AT, conf_state }).unwrap();
    let hard_state = HardState { term: Term(2), vote: MemberId::NONE, commit: Index(commit) };
    booted.wal.append_and_sync(&[], Some(&hard_state), true).unwrap();
    options
}

fn snap(folder: &Path) -> PathBuf {
    folder.join("a/member/snap")
}

/// C8: the log counts on the snapshot, so it is installed, once.
#[test]
fn a_received_snapshot_becomes_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let options = receiving(folder.path(), 10);
    let snap = snap(folder.path());
    make_database(&snap, RECEIVED);
    std::fs::write(snap.join("tmp123"), "half").unwrap();
    std::fs::write(snap.join("0000000000000007.snap.db"), "older").unwrap();
    let aux = folder.path().join("a/member/aux");
    for index in ["0000000000000007", "0000000000000005"] {
        std::fs::write(aux.join(format!("{index}.snap.db.sum")), "of what is gone").unwrap();
    }
    for _ in 0..2 {
        let booted = boot(&options).unwrap();
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
    let options = receiving(folder.path(), 3);
    make_database(&snap(folder.path()), RECEIVED);
    let booted = boot(&options).unwrap();
    assert_eq!(booted.state.applied().index, Index(0));
    assert_eq!(booted.restored.entries.len(), 3);
    assert!(!snap(folder.path()).join(RECEIVED).exists());
}

/// C8: never an older state.
#[test]
fn a_received_snapshot_that_is_damaged_or_gone_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let options = receiving(folder.path(), 10);
    let error = boot(&options).unwrap_err();
    let expected = "failed to find database snapshot file (snap: snapshot file doesn't exist)";
    assert!(error.to_string().contains(expected), "{error}");
    let received = snap(folder.path()).join(RECEIVED);
    std::fs::write(&received, [7; 4096]).unwrap();
    let error = boot(&options).unwrap_err();
    assert!(matches!(error, BootError::ReceivedDamaged { .. }), "{error:?}");
    assert!(received.exists());
}

/// M8: what is left of three members is one, and stays one without the flag.
#[test]
fn a_survivor_makes_a_cluster_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path(), "a");
    let mut first = boot(&options).unwrap();
    let uncommitted =
        Entry { kind: EntryKind::Normal, term: Term(1), index: Index(4), data: "lost".into() };
    first.wal.append_and_sync(&[uncommitted], None, true).unwrap();
    let (member, cluster) = (first.member, first.cluster);
    drop(first);
    options.force_new_cluster = true;
    let forced = boot(&options).unwrap();
    assert_eq!((forced.member, forced.cluster), (member, cluster));
    let kinds: Vec<_> = forced.restored.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::ConfChange; 5], "three members, two of them removed");
    assert_eq!(forced.restored.hard_state.commit, Index(5));
    let entries = forced.restored.entries.clone();
    drop(forced);
    options.force_new_cluster = false;
    let again = boot(&options).unwrap();
    assert_eq!(again.restored.entries, entries);
    assert_eq!(again.restored.hard_state.commit, Index(5));
}

/// D19, CB-13: a member with an empty directory cannot be one that the cluster knows.
#[test]
fn identity_comes_from_the_cluster_that_answers() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asker = Asker::new(Arc::new(PeerDial::new(Duration::from_secs(30), None)));
    runtime.block_on(async {
        let peer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", peer.local_addr().unwrap());
        let cluster = InitialCluster::parse(&format!("a={url},b=http://10.0.0.1:1")).unwrap();
        let ids: Vec<MemberId> = [&url[..], "http://10.0.0.1:1"]
            .map(|url| state::members::member_id(&[url.to_owned()], "t", None))
            .into();
        let ours = state::members::cluster_id(&ids);
        let options = OriginOptions {
            name: "b".to_owned(),
            state: ClusterState::New,
            cluster,
            token: "t".to_owned(),
            discovery: None,
            learners_max: 1,
            request_timeout: Duration::from_secs(30),
        };
        for (cluster, clients, expected) in [
            (ours.to_string(), r#"["http://c:1"]"#, "has already been bootstrapped"),
            ("1f".to_owned(), "[]", "cluster ID mismatch: "),
            (ours.to_string(), "[]", ""),
        ] {
            let body = format!(
                r#"[{{"id":{},"peerURLs":["http://10.0.0.1:1"],"clientURLs":{clients}}}]"#,
                ids[1].0
            );
            let answer = format!(
                "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: {cluster}\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let serve = async {
                let (mut socket, _) = peer.accept().await.unwrap();
                let mut request = [0; 1024];
                let _read = socket.read(&mut request).await.unwrap();
                socket.write_all(answer.as_bytes()).await.unwrap();
            };
            let (found, ()) = tokio::join!(origin::find(&options, &asker), serve);
            match found {
                Ok(Origin::Founder { own, members }) => {
                    assert_eq!((own, members.len(), expected), (ids[1], 2, ""));
                }
                Ok(joining) => panic!("{joining:?}"),
                Err(error) => assert!(error.to_string().contains(expected), "{error}"),
            }
        }
    });
}
