//! The checksums that a member keeps of its database, as the tools see them: what has changed on the
//! device is refused by every tool, and stays noticed after those that write.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use std::fs;
use std::path::PathBuf;

use backend::{Backend, Batch, Bucket, Checksums, Options};
use bytes::Bytes;
use support::{Said, database, etcdutl, rows};
use tempfile::TempDir;
use vfs::OsDir;

/// What is damaged.
const VALUE: &str = "<value>";

/// A stopped member.
struct Member {
    folder: TempDir,
}

impl Member {
    /// One with a log, whose database has checksums.
    fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        support::snapshot(this.folder.path(), "snapshot");
        let restore = ["snapshot", "restore", "snapshot", "--data-dir", "data"];
        etcdutl(this.folder.path(), &restore).ok();
        let backend = this.open();
        let mut batch = Batch::upkeep();
        // In a leaf of its own: nothing reads it at opening.
        batch.put(Bucket::Auth, b"row", Bytes::from(VALUE.repeat(300)));
        backend.apply(batch);
        backend.commit().unwrap();
        this
    }

    fn run(&self, arguments: &[&str]) -> Said {
        etcdutl(self.folder.path(), arguments)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("data/member").join(name)
    }

    /// The database as the member itself opens it.
    fn open(&self) -> Backend {
        let snap = OsDir::open(self.path("snap")).unwrap();
        let aux = OsDir::open(self.path("aux")).unwrap();
        let options = Options { aux: Some(aux), ..Options::default() };
        Backend::open(&snap, "db", &options).unwrap()
    }

    /// Changes one bit of every copy of a value, which no structure shows.
    fn damage(&self) {
        let path = self.path("snap/db");
        let mut bytes = fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(VALUE.as_bytes())).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at] ^= 1);
        fs::write(&path, bytes).unwrap();
    }

    fn files(&self) -> [Vec<u8>; 2] {
        ["snap/db", "aux/db.sum"].map(|name| fs::read(self.path(name)).unwrap())
    }
}

/// A tool says where the damage is and what to do, and changes nothing.
#[track_caller]
fn is_refused(arguments: &[&str]) {
    let member = Member::new();
    member.damage();
    let before = member.files();
    let said = member.run(arguments);
    assert_eq!(said.code, 1, "{said:?}");
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(text.contains("page ") && text.contains("bytes at offset "), "{text}");
    assert!(said.last_error().starts_with("hint: ") || text.contains("\nhint: "), "{text}");
    assert!(text.contains("member remove"), "{text}");
    assert!(member.files() == before, "{arguments:?} changed something");
    assert!(member.open().check().is_err(), "the member does not notice it any more");
}

const DB: &str = "data/member/snap/db";

/// D15, UTL-15.
#[test]
fn bbolt_check_refuses_a_changed_value() {
    is_refused(&["bbolt", "check", DB]);
}

/// D15, UTL-02.
#[test]
fn status_refuses_a_changed_value() {
    is_refused(&["snapshot", "status", DB]);
}

/// D15, UTL-10.
#[test]
fn hash_of_the_history_refuses_a_changed_value() {
    is_refused(&["hashkv", DB]);
}

/// D15, UTL-11.
#[test]
fn defragmentation_refuses_a_changed_value() {
    is_refused(&["defrag", "--data-dir", "data"]);
}

/// D15, UTL-12.
#[test]
fn migration_refuses_a_changed_value() {
    is_refused(&["migrate", "--data-dir", "data", "--target-version", "3.6"]);
}

/// D15, UTL-05.
#[test]
fn restore_refuses_a_changed_value() {
    is_refused(&["snapshot", "restore", DB, "--skip-hash-check", "--data-dir", "new"]);
}

/// D15, UTL-14.
#[test]
fn backup_refuses_a_changed_value() {
    is_refused(&["backup", "--data-dir", "data", "--backup-dir", "new"]);
}

/// The file may be named from anywhere.
#[test]
fn checksums_are_found_whatever_the_path() {
    let member = Member::new();
    member.damage();
    std::os::unix::fs::symlink(member.path("snap/db"), member.folder.path().join("link")).unwrap();
    assert_eq!(member.run(&["bbolt", "check", "link"]).code, 1);
    assert_eq!(etcdutl(&member.path("snap"), &["bbolt", "check", "db"]).code, 1);
    // Without them it is a database like any other.
    fs::copy(member.path("snap/db"), member.folder.path().join("copy")).unwrap();
    member.run(&["bbolt", "check", "copy"]).ok();
}

/// What is whole is written with checksums that speak of it.
#[test]
fn checksums_follow_what_is_written() {
    let written: [&[&str]; 2] = [
        &["defrag", "--data-dir", "data"],
        &["migrate", "--data-dir", "data", "--target-version", "3.6"],
    ];
    for command in written {
        let member = Member::new();
        let before = member.files();
        member.run(command).ok();
        assert!(member.files() != before);
        assert_eq!(fs::read_dir(member.path("aux")).unwrap().count(), 1);
        let opened = member.open();
        assert_eq!(opened.checksums(), Checksums::Matching, "{command:?}");
        opened.check().unwrap();
        drop(opened);
        member.damage();
        assert_eq!(member.run(&["bbolt", "check", DB]).code, 1, "{command:?}");
    }
}

/// D15, UTL-11: wherever a defragmentation is cut, the tools and the member take what is there with its
/// checksums and without a word, and nothing stays of the cut at the next run.
#[test]
fn defragmentation_that_is_cut_leaves_a_whole_database() {
    let names = ["snap/db", "snap/db.tmp.defrag", "aux/db.sum", "aux/db.sum.next"];
    let staged_sums = "aux/db.tmp.defrag.sum";
    // Of each name whether it has the old one or the new one.
    let cuts: [[&str; 5]; 4] = [
        ["old", "new", "old", "", ""],
        ["old", "new", "old", "", "new"],
        ["old", "new", "old", "new", ""],
        ["new", "", "old", "new", ""],
    ];
    for cut in cuts {
        let member = Member::new();
        let old = member.files();
        member.run(&["defrag", "--data-dir", "data"]).ok();
        let new = member.files();
        assert!(old != new);
        for (name, which) in names.into_iter().chain([staged_sums]).zip(cut) {
            let [database, sums] = if which == "old" { &old } else { &new };
            let bytes = if name.starts_with("snap") { database } else { sums };
            drop(fs::remove_file(member.path(name)));
            if !which.is_empty() {
                fs::write(member.path(name), bytes).unwrap();
            }
        }
        let said = member.run(&["bbolt", "check", DB]).ok();
        assert!(!said.stderr.contains("warn"), "{cut:?}: {said:?}");
        let said = member.run(&["defrag", "--data-dir", "data"]).ok();
        assert!(!said.stderr.contains("warn"), "{cut:?}: {said:?}");
        assert_eq!(member.open().checksums(), Checksums::Matching, "{cut:?}");
        member.open().check().unwrap();
        let count = |folder| fs::read_dir(member.path(folder)).unwrap().count();
        assert_eq!(count("aux"), 1, "{cut:?}");
        assert!(!member.path("snap/db.tmp.defrag").exists(), "{cut:?}");
    }
}

/// D11: a file that reaches the limit of its size is an error with a name and a remedy, not a silent
/// end, and nothing is changed.
#[test]
fn a_limit_of_file_sizes_is_told() {
    let written: [(&[&str], &str); 3] = [
        (&["defrag", "--data-dir", "data"], "data/member/snap/db.tmp.defrag"),
        (&["migrate", "--data-dir", "data", "--target-version", "3.6"], DB),
        (&["snapshot", "restore", "snapshot", "--data-dir", "new"], "new/member.tmp/snap/db"),
    ];
    for (command, name) in written {
        let member = Member::new();
        let before = member.files();
        // In blocks of a kibibyte or half of one: no database can be made.
        let limited = ["-c", "ulimit -f 8; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_etcdutl")];
        let arguments = [&limited[..], command].concat();
        let said = support::run(std::path::Path::new("sh"), member.folder.path(), &arguments);
        assert_eq!(said.code, 1, "{said:?}");
        for expected in [name, "ile too large", "hint: ", "ulimit -f"] {
            assert!(said.stderr.contains(expected), "{expected}: {said:?}");
        }
        let is_whole = member.files() == before || command[0] == "migrate";
        assert!(is_whole, "{command:?} changed something");
        assert_eq!(member.open().checksums(), Checksums::Matching, "{command:?}");
        member.open().check().unwrap();
    }
}

/// Tools that only read change nothing.
#[test]
fn reading_changes_nothing() {
    let member = Member::new();
    let before = member.files();
    let reading: [&[&str]; 3] =
        [&["bbolt", "check", DB], &["snapshot", "status", DB], &["hashkv", DB]];
    for command in reading {
        member.run(command).ok();
        assert!(member.files() == before, "{command:?}");
    }
}

/// A program that keeps no checksums has written the file: it is told.
#[test]
fn checksums_of_another_state_are_told() {
    let member = Member::new();
    let snap = member.path("snap");
    support::set_meta(&snap, "db", "storageVersion", Some("3.7.0"));
    let sums = fs::read(member.path("aux/db.sum")).unwrap();
    let tell = |arguments: &[&str]| {
        let said = member.run(arguments).ok();
        let text = "\twarn\t";
        assert!(said.stderr.contains(text) && said.stderr.contains("member/aux"), "{said:?}");
    };
    tell(&["bbolt", "check", DB]);
    tell(&["hashkv", DB]);
    tell(&["defrag", "--data-dir", "data"]);
    tell(&["migrate", "--data-dir", "data", "--target-version", "3.6"]);
    // The member is to know too.
    assert!(fs::read(member.path("aux/db.sum")).unwrap() == sums);
    assert_eq!(member.open().checksums(), Checksums::Foreign);
}

/// A directory of a program that keeps none stays one.
#[test]
fn nothing_is_kept_where_nothing_was() {
    let folder = tempfile::tempdir().unwrap();
    let snap = folder.path().join("data/member/snap");
    fs::create_dir_all(&snap).unwrap();
    let path = database(&snap, "db");
    let before = rows(&path);
    let said = etcdutl(folder.path(), &["defrag", "--data-dir", "data"]).ok();
    assert!(!said.stderr.contains("\twarn\t"), "{said:?}");
    assert_eq!(rows(&path), before);
    assert!(!folder.path().join("data/member/aux").exists());
}
