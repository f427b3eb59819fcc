//! The commands on databases that no server wrote.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use base::{ClusterId, Index, LogPosition, MemberId, Term};
use prost::Message as _;
use proto::{raftpb, snappb};
use support::{Said, database, etcdutl, log, rows, set_meta, snapshot};
use vfs::{Lock, Open, OsDir};

fn restore(folder: &Path, more: &[&str]) -> Said {
    etcdutl(folder, &[&["snapshot", "restore", "snapshot", "--data-dir", "data"], more].concat())
}

/// UTL-02, UTL-04: three live keys, although there are seven rows.
#[test]
fn status_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    snapshot(folder.path(), "snapshot");
    let said =
        |format: &str| etcdutl(folder.path(), &["snapshot", "status", "snapshot", "-w", format]);
    let simple = said("simple").ok().stdout;
    let (hash, rest) = simple.split_once(", ").unwrap();
    let size = support::read_only(&folder.path().join("source")).sizes().unwrap().total;
    let size_text = cli::size::bytes(size);
    assert_eq!(rest, format!("7, 3, {size_text}, 3.7.0\n"));
    let hash = u32::from_str_radix(hash, 16).unwrap();
    let json = format!(
        "{{\"hash\":{hash},\"revision\":7,\"totalKey\":3,\"totalSize\":{size},\"version\":\"3.7.0\"}}\n"
    );
    assert_eq!(said("json").ok().stdout, json);
    let fields = format!(
        "\"Hash\" : {hash}\n\"Revision\" : 7\n\"Keys\" : 3\n\"Size\" : {size}\n\"Version\" : 3.7.0\n"
    );
    assert_eq!(said("fields").ok().stdout, fields);
    let table = said("table").ok().stdout;
    assert!(table.contains("│ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │\n"), "{table}");
    let refused = said("protobuf");
    let text = "Error: protobuf not supported as output format";
    assert_eq!((refused.code, refused.last_error()), (4, text));
}

/// UTL-05, UTL-08, interop 3.5.
#[test]
fn restored_directory_is_the_first_state_of_a_new_cluster() {
    let folder = tempfile::tempdir().unwrap();
    snapshot(folder.path(), "snapshot");
    let said = restore(folder.path(), &[]).ok();
    assert_eq!(said.stdout, "");
    let messages: Vec<_> =
        said.stderr.lines().map(|line| line.split('\t').nth(3).unwrap()).collect();
    let trimming = "Trimming membership information from the backend...";
    assert_eq!(messages, ["restoring snapshot", trimming, "added member", "restored snapshot"]);
    let added = "{\"cluster-id\": \"cdf818194e3a8c32\", \"local-member-id\": \"0\", \
                 \"added-peer-id\": \"8e9e05c52164694d\", \"added-peer-peer-urls\": \
                 [\"http://localhost:2380\"], \"added-peer-is-learner\": false}";
    assert!(said.stderr.contains(added), "{}", said.stderr);

    let member = folder.path().join("data/member");
    let names = |path: &Path| {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&folder.path().join("data")), ["member"]);
    assert_eq!(names(&member), ["snap", "wal"]);
    assert_eq!(names(&member.join("snap")), ["0000000000000001-0000000000000001.snap", "db"]);
    assert_eq!(names(&member.join("wal")), ["0000000000000000-0000000000000000.wal"]);

    let id = 0x8e9e_05c5_2164_694d_u64;
    let mut expected = rows(&folder.path().join("source"));
    expected.retain(|(bucket, ..)| !bucket.starts_with("members"));
    for (bucket, key, value) in &mut expected {
        match (bucket.as_str(), &key[..]) {
            ("meta", b"consistent_index" | b"term") => *value = 1_u64.to_be_bytes().to_vec(),
            ("meta", b"confState") => {
                *value = format!("{{\"voters\":[{id}],\"auto_leave\":false}}").into_bytes();
            }
            _ => {}
        }
    }
    let json =
        format!("{{\"id\":{id},\"peerURLs\":[\"http://localhost:2380\"],\"name\":\"default\"}}");
    let row = ("members".to_owned(), format!("{id:x}").into_bytes(), json.into_bytes());
    expected.insert(expected.partition_point(|other| *other < row), row);
    assert_eq!(rows(&member.join("snap/db")), expected);

    let replay = log(&member.join("wal"), true);
    let ids = (MemberId(id), ClusterId(0xcdf8_1819_4e3a_8c32));
    assert_eq!((replay.metadata.member, replay.metadata.cluster), ids);
    let state = replay.hard_state;
    assert_eq!((state.term, state.vote, state.commit), (Term(1), ids.0, Index(1)));
    assert_eq!(replay.start.position, LogPosition { index: Index(1), term: Term(1) });
    assert!(replay.start.conf_state.unwrap().voters.contains(&ids.0));
    let from_start = log(&member.join("wal"), false);
    let change = raftpb::ConfChange::decode(from_start.entries[0].data.clone()).unwrap();
    assert_eq!(
        (change.r#type(), change.node_id()),
        (raftpb::ConfChangeType::ConfChangeAddNode, id)
    );
    assert!(change.context.unwrap().ends_with(b"\"name\":\"default\"}"));

    let file = fs::read(member.join("snap/0000000000000001-0000000000000001.snap")).unwrap();
    let outer = snappb::Snapshot::decode(&file[..]).unwrap();
    let inner = raftpb::Snapshot::decode(outer.data.unwrap()).unwrap();
    assert_eq!(inner.metadata.unwrap().conf_state.unwrap().voters, [id]);
}

/// UTL-05: every member of a cluster is restored from the same file.
#[test]
fn members_of_a_cluster_differ_in_their_log_only() {
    let folder = tempfile::tempdir().unwrap();
    snapshot(folder.path(), "snapshot");
    let cluster = "a=http://h:1,b=http://h:2,c=http://h:3";
    for (name, url) in [("a", "http://h:1"), ("b", "http://h:2"), ("c", "http://h:3")] {
        let arguments =
            ["--name", name, "--initial-cluster", cluster, "--initial-advertise-peer-urls", url];
        etcdutl(folder.path(), &[&["snapshot", "restore", "snapshot"], &arguments[..]].concat())
            .ok();
    }
    let member = |name: &str| folder.path().join(format!("{name}.etcd/member"));
    let bytes = |name: &str| fs::read(member(name).join("snap/db")).unwrap();
    assert!(bytes("a") == bytes("b") && bytes("b") == bytes("c"));
    let (a, b) = (log(&member("a").join("wal"), false), log(&member("b").join("wal"), false));
    assert_eq!((a.entries.len(), &a.entries), (3, &b.entries));
    assert_eq!((a.hard_state, a.metadata.cluster), (b.hard_state, b.metadata.cluster));
    assert_ne!(a.metadata.member, b.metadata.member);
}

/// UTL-07.
#[test]
fn bump_adds_an_empty_row_and_marks_it_compacted() {
    let folder = tempfile::tempdir().unwrap();
    snapshot(folder.path(), "snapshot");
    let refused = restore(folder.path(), &["--bump-revision", "3"]);
    let text = "Error: --mark-compacted required if --revision-bump > 0";
    assert_eq!((refused.code, refused.last_error()), (128, text));
    assert_eq!(restore(folder.path(), &["--mark-compacted"]).code, 128);
    let said = restore(folder.path(), &["--bump-revision", "3", "--mark-compacted"]).ok();
    let bumped = "bumping latest revision\t{\"latest-revision\": 7, \"bump-amount\": 3, \
                  \"new-latest-revision\": 10}";
    assert!(said.stderr.contains(bumped), "{}", said.stderr);
    assert!(said.stderr.contains("marking revision compacted\t{\"revision\": 10}"));
    let rows = rows(&folder.path().join("data/member/snap/db"));
    let mut name = 10_u64.to_be_bytes().to_vec();
    name.push(b'_');
    name.extend([0; 8]);
    let last = rows.iter().rfind(|(bucket, ..)| bucket == "key").unwrap();
    assert_eq!((&last.1, last.2.is_empty()), (&name, true));
    let mark = rows.iter().find(|(_, key, _)| key == b"scheduledCompactRev").unwrap();
    assert_eq!(mark.2, name);
}

/// UTL-06, UTL-09, CB-68, B23: the texts are etcd's, and what is refused leaves nothing behind.
#[test]
fn refused_restore_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = snapshot(folder.path(), "snapshot");
    let whole = fs::read(&path).unwrap();
    let refused = |more: &[&str], text: &str| {
        let said = restore(folder.path(), more);
        assert_eq!(said.code, 1, "{said:?}");
        let found = said.stderr.lines().any(|line| line.starts_with(text));
        assert!(found, "{text} in {}", said.stderr);
        assert!(!folder.path().join("data").exists());
    };
    let local = "Error: couldn't find local name \"m1\" in the initial cluster configuration";
    refused(&["--name", "m1"], local);

    let mut changed = whole.clone();
    changed[5000] ^= 1;
    fs::write(&path, &changed).unwrap();
    refused(&[], "Error: expected sha256 [");

    // Two pages and a bit.
    fs::write(&path, &whole[..8224]).unwrap();
    refused(&[], "Error: expected sha256 [");
    refused(&["--skip-hash-check"], "Error: database snapshot is damaged at page");

    fs::write(&path, &whole[..whole.len() - 32]).unwrap();
    refused(&[], "Error: snapshot missing hash but --skip-hash-check=false");

    fs::write(&path, b"").unwrap();
    refused(&[], "Error: snapshot missing hash but --skip-hash-check=false");
    refused(&["--skip-hash-check"], "Error: database snapshot is damaged at page 0");

    fs::remove_file(&path).unwrap();
    refused(&[], "Error: open snapshot: no such file or directory");
}

/// UTL-06.
#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    snapshot(folder.path(), "snapshot");
    fs::create_dir_all(folder.path().join("data/old")).unwrap();
    let said = restore(folder.path(), &[]);
    let text = "Error: data-dir \"data\" not empty or could not be read";
    assert_eq!((said.code, said.stderr.as_str()), (1, format!("{text}\n").as_str()));
    fs::remove_dir(folder.path().join("data/old")).unwrap();
    let said = restore(folder.path(), &["--wal-dir", "."]);
    assert_eq!(said.last_error(), "Error: wal-dir \".\" exists");
    restore(folder.path(), &[]).ok();
}

/// UTL-05.
#[test]
fn log_may_lie_elsewhere() {
    for place in ["log", "deep/er/log", "data/log", "data/member/other"] {
        let folder = tempfile::tempdir().unwrap();
        snapshot(folder.path(), "snapshot");
        restore(folder.path(), &["--wal-dir", place]).ok();
        assert_eq!(log(&folder.path().join(place), true).start.position.index, Index(1), "{place}");
        assert!(!folder.path().join("data/member/wal").exists());
        assert!(!folder.path().join("data/member.tmp").exists());
    }
}

/// UTL-09, CB-68: a copied database has no digest.
#[test]
fn copied_database_is_restored_when_told_so() {
    let folder = tempfile::tempdir().unwrap();
    database(folder.path(), "snapshot");
    restore(folder.path(), &["--skip-hash-check"]).ok();
}

/// UTL-10.
#[test]
fn hash_of_the_history_does_not_depend_on_the_file() {
    let folder = tempfile::tempdir().unwrap();
    snapshot(folder.path(), "snapshot");
    restore(folder.path(), &[]).ok();
    let hash =
        |file: &str, more: &[&str]| etcdutl(folder.path(), &[&["hashkv", file], more].concat());
    let simple = hash("snapshot", &[]).ok().stdout;
    assert!(simple.ends_with(", 7, 4\n"), "{simple}");
    assert_eq!(hash("data/member/snap/db", &[]).ok().stdout, simple);
    let number = simple.split(',').next().unwrap();
    let json = format!("{{\"hash\":{number},\"hashRevision\":7,\"compactRevision\":4}}\n");
    assert_eq!(hash("snapshot", &["-w", "json"]).ok().stdout, json);
    assert!(hash("snapshot", &["--rev", "5"]).ok().stdout.ends_with(", 5, 4\n"));
    let text = "Error: mvcc: required revision has been compacted";
    assert_eq!(hash("snapshot", &["--rev", "2"]).last_error(), text);
    let text = "Error: mvcc: required revision is a future revision";
    assert_eq!(hash("snapshot", &["--rev", "8"]).last_error(), text);
}

/// UTL-11.
#[test]
fn defragmented_database_has_the_same_rows_and_no_free_page() {
    let folder = tempfile::tempdir().unwrap();
    let snap = folder.path().join("data/member/snap");
    fs::create_dir_all(&snap).unwrap();
    let path = database(&snap, "db");
    let before = rows(&path);
    let said = etcdutl(folder.path(), &["defrag", "--data-dir", "data"]).ok();
    assert!(
        said.stderr
            .contains("\tfinished defragmenting directory\t{\"path\": \"data/member/snap/db\"")
    );
    assert_eq!(rows(&path), before);
    let database = support::read_only(&path);
    let sizes = database.sizes().unwrap();
    assert_eq!(sizes.total, sizes.in_use);
    assert_eq!(fs::metadata(&path).unwrap().len(), sizes.total);
    assert_eq!(fs::read_dir(&snap).unwrap().count(), 1);
}

/// UTL-03.
#[test]
fn running_member_keeps_its_database() {
    let folder = tempfile::tempdir().unwrap();
    let snap = folder.path().join("data/member/snap");
    fs::create_dir_all(&snap).unwrap();
    let path = database(&snap, "db");
    let before = fs::read(&path).unwrap();
    let held = OsDir::open(&snap).unwrap().open("db", Open::Write).unwrap();
    // A process that another test is starting may hold what it inherited, until it is started.
    while !held.try_lock(Lock::WholeFile).unwrap() {
        std::thread::yield_now();
    }
    let commands: [&[&str]; 4] = [
        &["defrag", "--data-dir", "data"],
        &["migrate", "--data-dir", "data", "--target-version", "3.6"],
        &["hashkv", "data/member/snap/db"],
        &["snapshot", "restore", "data/member/snap/db", "--skip-hash-check"],
    ];
    for command in commands {
        let said = etcdutl(folder.path(), &[command, &["--timeout", "50ms"]].concat());
        assert_eq!(said.code, 1, "{command:?}");
        assert!(said.last_error().contains("is locked by another process"), "{said:?}");
    }
    assert!(fs::read(&path).unwrap() == before);
}

/// UTL-12.
#[test]
fn storage_version_goes_up_and_down() {
    let folder = tempfile::tempdir().unwrap();
    snapshot(folder.path(), "snapshot");
    restore(folder.path(), &[]).ok();
    let migrate = |target: &str, more: &[&str]| {
        let command = ["migrate", "--data-dir", "data", "--target-version", target];
        etcdutl(folder.path(), &[&command, more].concat())
    };
    let version = || {
        let rows = rows(&folder.path().join("data/member/snap/db"));
        let row = rows.into_iter().find(|(_, key, _)| key == b"storageVersion");
        row.map(|(.., value)| String::from_utf8(value).unwrap())
    };
    let said = migrate("3.7", &[]).ok();
    let text = "storage version up-to-date\t{\"storage-version\": \"3.7\"}";
    assert!(said.stderr.contains(text), "{said:?}");
    let said = migrate("3.5", &[]).ok();
    let updated = |version: &str| {
        format!("\tupdated storage version\t{{\"new-storage-version\": \"{version}\"}}\n")
    };
    assert!(said.stderr.contains(&updated("3.6.0")) && said.stderr.contains(&updated("3.5.0")));
    assert_eq!(version(), None);
    migrate("3.6", &[]).ok();
    assert_eq!(version().as_deref(), Some("3.6.0"));
    let said = migrate("3.8", &[]);
    let text = "Error: cannot create migration plan: version \"3.8.0\" is not supported";
    assert_eq!((said.code, said.last_error()), (1, text));
    let said = migrate("3.8", &["--force"]).ok();
    let text = "forcefully set storage version\t{\"storage-version\": \"3.8\"}";
    assert!(said.stderr.contains(text), "{said:?}");
    assert_eq!(version().as_deref(), Some("3.8.0"));
}

/// UTL-12: 3.4 wrote no term.
#[test]
fn directory_of_an_unknown_version_is_not_migrated() {
    let folder = tempfile::tempdir().unwrap();
    snapshot(folder.path(), "snapshot");
    restore(folder.path(), &[]).ok();
    let snap = folder.path().join("data/member/snap");
    set_meta(&snap, "db", "storageVersion", None);
    set_meta(&snap, "db", "term", None);
    let command = ["migrate", "--data-dir", "data", "--target-version", "3.6"];
    let said = etcdutl(folder.path(), &command);
    assert_eq!((said.code, said.last_error()), (1, "Error: missing term information"));
}

/// UTL-15.
#[test]
fn bbolt_check_says_ok_or_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path(), "db");
    let check = || etcdutl(folder.path(), &["bbolt", "check", "db"]);
    assert_eq!(check().ok().stdout, "OK\n");
    let mut bytes = fs::read(&path).unwrap();
    let root = support::read_only(&path).page_bytes() * 2;
    // The number that every page carries of itself.
    for page in bytes[root..].chunks_mut(root / 2) {
        page[0] ^= 0x40;
    }
    fs::write(&path, bytes).unwrap();
    assert_eq!(check().code, 1);
    for (command, instead) in [("compact", "`etcdutl defrag`"), ("keys", "bbolt's own tool")] {
        let said = etcdutl(folder.path(), &["bbolt", command, "db"]);
        assert_eq!(said.last_error(), format!("hint: {instead} does that"));
    }
}

/// UTL-16: in its shell, which calls it with the command, the word to complete and the one before.
#[test]
fn bash_completes_commands_flags_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = etcdutl(folder.path(), &["completion", "bash"]).ok().stdout;
    fs::write(folder.path().join("script"), script).unwrap();
    for (line, expected) in [
        ("etcdutl snap", "snapshot"),
        ("etcdutl snapshot re", "restore"),
        ("etcdutl snapshot restore --data", "--data-dir"),
        ("etcdutl -w js", "json"),
        // The shell's own splitting.
        ("etcdutl hashkv --write-out = js", "json"),
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let at = words.len() - 1;
        let (word, before) = (words[at], words[at - 1]);
        let complete = format!(
            "source ./script; COMP_WORDS=({line}); COMP_CWORD={at}; _etcdutl etcdutl '{word}' \
             '{before}'; printf %s \"${{COMPREPLY[*]}}\""
        );
        let bash = Command::new("bash").args(["-c", &complete]).current_dir(folder.path()).output();
        // There may be no such shell.
        let Ok(output) = bash else { return };
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{line}");
    }
}

/// UTL-14.
#[test]
fn backup_is_there_for_those_who_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let said = etcdutl(folder.path(), &["backup", "--data-dir", "none", "--backup-dir", "copy"]);
    assert_eq!(said.code, 1);
    assert!(said.last_error().contains("none/member/wal"), "{said:?}");
    assert!(!etcdutl(folder.path(), &["--help"]).ok().stdout.contains("backup"));
}
