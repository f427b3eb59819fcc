//! Files that are missing, old, damaged, in use or another member's: the server starts with all it
//! acknowledged, or refuses with cause and remedy within two seconds; it never serves a wrong value.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use retcd_conformance::{Ended, Keys, Server, ServerOptions};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

fn options(flags: &[&str]) -> ServerOptions {
    ServerOptions { flags: flags.iter().map(|flag| (*flag).to_owned()).collect() }
}

fn database(server: &Server) -> PathBuf {
    server.data_dir().join("member/snap/db")
}

/// The log's segments, oldest first.
fn segments(server: &Server) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(server.data_dir().join("member/wal"))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    paths.sort();
    Ok(paths)
}

/// A value that stands once in a file.
fn value(number: usize) -> Bytes {
    Bytes::from(format!("<value {number:04}>{}", "x".repeat(500)))
}

async fn put_all(server: &Server, count: usize) -> anyhow::Result<()> {
    let keys = Keys::of(&server.endpoint())?;
    for number in 0..count {
        keys.put(&format!("key {number:04}"), value(number)).await?;
    }
    Ok(())
}

async fn expect_all(server: &Server, count: usize) -> anyhow::Result<()> {
    let keys = Keys::of(&server.endpoint())?;
    for number in 0..count {
        let found = keys.get(&format!("key {number:04}")).await?;
        anyhow::ensure!(found == Some(value(number)), "key {number}: {found:?}");
    }
    Ok(())
}

/// Where `wanted` stands in a file, and the file.
fn find(path: &Path, wanted: &[u8]) -> anyhow::Result<(Vec<u8>, usize)> {
    let bytes = fs::read(path)?;
    let at = bytes.windows(wanted.len()).position(|window| window == wanted);
    let at = at.ok_or_else(|| anyhow::anyhow!("{} holds no such bytes", path.display()))?;
    Ok((bytes, at))
}

fn flip(path: &Path, wanted: &[u8]) -> anyhow::Result<()> {
    let (mut bytes, at) = find(path, wanted)?;
    bytes[at] ^= 0x10;
    fs::write(path, bytes)?;
    Ok(())
}

#[track_caller]
fn assert_names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// D17, G12.
#[tokio::test]
async fn a_database_without_its_log_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(Path::new(OURS), folder.path(), options(&[]))?;
    put_all(&server, 20).await?;
    server.stop()?;
    let (wal, away) = (server.data_dir().join("member/wal"), folder.path().join("away"));
    fs::rename(&wal, &away)?;
    let database = database(&server).display().to_string();
    // A second try finds the same: nothing was made up by the first.
    for _ in 0..2 {
        let refusal = Ended::refusal(&mut server.command())?;
        assert_names(&refusal, &["log missing", &database, "index 2", "restore", "only voter"]);
    }
    if wal.exists() {
        fs::remove_dir_all(&wal)?;
    }
    fs::rename(&away, &wal)?;
    server.restart(Path::new(OURS))?;
    expect_all(&server, 20).await
}

/// D18: with the log from its first entry on, the database can be made again.
#[tokio::test]
async fn a_missing_database_is_made_from_a_complete_log() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = options(&["--snapshot-count", "10"]);
    let mut server = Server::start(Path::new(OURS), folder.path(), flags)?;
    put_all(&server, 50).await?;
    server.stop()?;
    fs::remove_file(database(&server))?;
    server.restart(Path::new(OURS))?;
    expect_all(&server, 50).await?;
    let revision = Keys::of(&server.endpoint())?.put("one more", "").await?;
    assert_eq!(revision, 52);
    server.stop()?;
    fs::remove_dir_all(server.data_dir().join("member/snap"))?;
    fs::remove_dir_all(server.data_dir().join("member/aux"))?;
    server.restart(Path::new(OURS))?;
    expect_all(&server, 50).await
}

/// D18, D19, D20: of a log of two segments.
#[tokio::test]
async fn a_database_and_a_log_that_do_not_meet_are_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = options(&["--snapshot-count", "5"]);
    let mut server = Server::start(Path::new(OURS), folder.path(), flags)?;
    put_all(&server, 20).await?;
    server.stop()?;
    let (database, old, new) =
        (database(&server), folder.path().join("old"), folder.path().join("new"));
    fs::copy(&database, &old)?;
    server.restart(Path::new(OURS))?;
    let keys = Keys::of(&server.endpoint())?;
    for _ in 0..80 {
        keys.put("large", vec![7; 1 << 20]).await?;
        if segments(&server)?.len() > 1 {
            break;
        }
    }
    put_all(&server, 20).await?;
    server.stop()?;
    fs::rename(&database, &new)?;
    let segments = segments(&server)?;
    let [first, second] = &segments[..] else { anyhow::bail!("{segments:?}") };
    let away = folder.path().join("away");

    fs::rename(first, &away)?;
    // No database, half a log.
    let refusal = Ended::refusal(&mut server.command())?;
    assert_names(&refusal, &["db is missing", "index ", "restore"]);
    assert!(!database.exists(), "nothing is made by a refused start");
    // An old database, half a log.
    fs::copy(&old, &database)?;
    let refusal = Ended::refusal(&mut server.command())?;
    assert_names(&refusal, &["applied only up to index 2", "restore", "entry "]);
    fs::rename(&away, first)?;

    // The new database, without the newest segment.
    fs::copy(&new, &database)?;
    fs::rename(second, &away)?;
    let refusal = Ended::refusal(&mut server.command())?;
    assert_names(&refusal, &["ends at", "applied up to index", "restore"]);
    // A gap.
    let gap = first.with_file_name("0000000000000002-00000000000000ff.wal");
    fs::copy(&away, &gap)?;
    let refusal = Ended::refusal(&mut server.command())?;
    assert_names(&refusal, &["segment 0000000000000001", "is missing", "put it back"]);
    fs::remove_file(&gap)?;
    fs::rename(&away, second)?;

    // An old database and the whole log: what is missing is applied again.
    fs::copy(&old, &database)?;
    server.restart(Path::new(OURS))?;
    expect_all(&server, 20).await?;
    let large = Keys::of(&server.endpoint())?.get("large").await?;
    assert_eq!(large.map(|value| value.len()), Some(1 << 20));
    Ok(())
}

/// D21.
#[tokio::test]
async fn the_log_of_another_member_is_refused() -> anyhow::Result<()> {
    let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut servers = Vec::new();
    for (folder, count) in [(&one, 10), (&other, 30)] {
        let mut server = Server::start(Path::new(OURS), folder.path(), options(&[]))?;
        put_all(&server, count).await?;
        server.stop()?;
        servers.push(server);
    }
    let wal = |server: &Server| server.data_dir().join("member/wal");
    fs::remove_dir_all(wal(&servers[0]))?;
    fs::rename(wal(&servers[1]), wal(&servers[0]))?;
    let refusal = Ended::refusal(&mut servers[0].command())?;
    assert_names(&refusal, &["do not mix", "of member ", "of cluster ", "only the members "]);
    let id = |server: &Server| {
        let log = server.log();
        let id = log.split("\"local-member-id\":\"").nth(1).unwrap_or_default();
        id.split('"').next().unwrap_or_default().to_owned()
    };
    let (own, found) = (id(&servers[0]), id(&servers[1]));
    assert_ne!(own, found);
    assert_names(&refusal, &[&own, &found]);
    Ok(())
}

/// C12, SRV-155.
#[tokio::test]
async fn a_second_process_on_a_folder_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(Path::new(OURS), folder.path(), options(&[]))?;
    put_all(&server, 10).await?;
    let elsewhere = "http://127.0.0.1:0";
    let mut second = server.command();
    second.args(["--listen-client-urls", elsewhere, "--listen-peer-urls", elsewhere]);
    let refusal = Ended::refusal(&mut second)?;
    let database = database(&server).display().to_string();
    assert_names(&refusal, &["locked by another process", &database, "stop it"]);
    expect_all(&server, 10).await
}

/// D13, G10.
#[tokio::test]
async fn a_flipped_byte_of_the_log_is_found_and_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(Path::new(OURS), folder.path(), options(&[]))?;
    put_all(&server, 20).await?;
    server.stop()?;
    let segment = &segments(&server)?[0];
    let good = fs::read(segment)?;
    for wanted in [&b"<value 0009>"[..], b"<value 0000>"] {
        flip(segment, wanted)?;
        let refusal = Ended::refusal(&mut server.command())?;
        let name = segment.display().to_string();
        assert_names(&refusal, &[&name, "damaged at offset ", "behind entry ", "checksum"]);
        assert_names(&refusal, &["only voter: restore it from a snapshot"]);
        fs::write(segment, &good)?;
    }
    server.restart(Path::new(OURS))?;
    expect_all(&server, 20).await
}

/// D15, G11: the page is named, its value never served.
#[tokio::test]
async fn a_flipped_byte_of_the_database_is_never_served() -> anyhow::Result<()> {
    const COUNT: usize = 400;
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(Path::new(OURS), folder.path(), options(&[]))?;
    put_all(&server, COUNT).await?;
    server.stop()?;
    let database = database(&server);
    let good = fs::read(&database)?;
    let wanted = b"<value 0200>";
    let places: Vec<usize> = good
        .windows(wanted.len())
        .enumerate()
        .filter_map(|(at, window)| (window == wanted).then_some(at))
        .collect();
    anyhow::ensure!(!places.is_empty(), "the value is in the database");
    let mut bad = good;
    for at in places {
        bad[at + 1] ^= 1;
    }
    fs::write(&database, bad)?;
    // Which keys the page held cannot be known, so that not even their absence may be told.
    let refusal = Ended::refusal(&mut server.command())?;
    let name = database.display().to_string();
    assert_names(
        &refusal,
        &[&name, "behind revision ", "page ", "damaged", "checksum", "snapshot"],
    );
    // The remedy works.
    fs::rename(&database, folder.path().join("damaged"))?;
    server.restart(Path::new(OURS))?;
    expect_all(&server, COUNT).await
}

/// D15: without any meta page there is no database, and no new one is made in its place.
#[tokio::test]
async fn damaged_meta_pages_are_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(Path::new(OURS), folder.path(), options(&[]))?;
    put_all(&server, 10).await?;
    server.stop()?;
    let database = database(&server);
    let mut bytes = fs::read(&database)?;
    bytes[..8192].fill(0);
    fs::write(&database, bytes)?;
    let refusal = Ended::refusal(&mut server.command())?;
    assert_names(&refusal, &[&database.display().to_string(), "damaged at page 0", "meta"]);
    Ok(())
}

/// D4, D5: what a power cut leaves of a write that was not synced is cut off, with a line in the
/// log; everything before it is there.
#[tokio::test]
async fn a_torn_end_of_the_log_is_cut_off() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(Path::new(OURS), folder.path(), options(&[]))?;
    put_all(&server, 20).await?;
    server.kill()?;
    let segment = &segments(&server)?[0];
    for sectors in [0, 1, 3] {
        let mut bytes = fs::read(segment)?;
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default() + 1;
        let end = end.next_multiple_of(8);
        // The head of a record with an entry, of 4,000 bytes, of which some sectors never came.
        let mut torn = 4000_u64.to_le_bytes().to_vec();
        torn.extend([0x08, 2, 0x10, 0xD2, 0x85, 0xD8, 0xCC, 0x04, 0x1A, 0x95, 0x1F]);
        torn.resize(4008, 0xAA);
        torn.truncate(end.next_multiple_of(512) - end + sectors * 512);
        bytes[end..end + torn.len()].copy_from_slice(&torn);
        fs::write(segment, &bytes)?;
        server.restart(Path::new(OURS))?;
        expect_all(&server, 20).await?;
        server.kill()?;
    }
    assert_names(&server.log(), &["torn"]);
    Ok(())
}

/// D4: a last record of which the end is missing. If the database has applied it, the log is known
/// to be too short; else it counts as never acknowledged, and nothing before it is lost.
#[tokio::test]
async fn a_log_that_lost_its_end_never_loses_more() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // The database is made durable rarely, so that the log alone holds the end.
    let flags = options(&["--backend-batch-interval", "1h"]);
    let mut server = Server::start(Path::new(OURS), folder.path(), flags)?;
    put_all(&server, 20).await?;
    server.kill()?;
    let segment = &segments(&server)?[0];
    let (mut bytes, at) = find(segment, b"<value 0019>")?;
    // A crash loses whole sectors; where they begin depends on all that was logged before.
    bytes[(at + 1).next_multiple_of(512)..].fill(0);
    fs::write(segment, &bytes)?;
    server.restart(Path::new(OURS))?;
    expect_all(&server, 19).await?;
    let last = Keys::of(&server.endpoint())?.get("key 0019").await?;
    anyhow::ensure!(last.is_none_or(|found| found == value(19)), "half a value");
    Ok(())
}

/// B16, D27.
#[test]
fn a_data_folder_that_is_a_file_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "")?;
    for path in [file.clone(), file.join("data")] {
        let mut command = std::process::Command::new(OURS);
        let refusal = Ended::refusal(command.env_clear().arg("--data-dir").arg(&path))?;
        assert_names(&refusal, &["data directory", &path.display().to_string(), "--data-dir"]);
    }
    Ok(())
}

/// D11: a file that reaches the limit of its size is an error with a name, not a silent end.
#[tokio::test]
async fn a_limit_of_file_sizes_is_told() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(Path::new(OURS), folder.path(), options(&[]))?;
    server.stop()?;
    fs::remove_dir_all(server.data_dir())?;
    let command = server.command();
    // In blocks of a kibibyte or half of one: the database cannot be made.
    let mut limited = std::process::Command::new("sh");
    limited.env_clear().args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]);
    limited.arg(command.get_program()).args(command.get_args());
    let refusal = Ended::refusal(&mut limited)?;
    let data_dir = server.data_dir().display().to_string();
    assert_names(&refusal, &[&data_dir, "too large", "ulimit -f", "LimitFSIZE="]);
    Ok(())
}

/// D15: checksums that speak of another state than the database, as after a program that keeps none,
/// are made anew, and that is told, once.
#[tokio::test]
async fn checksums_of_another_state_are_told() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Server::start(Path::new(OURS), folder.path(), options(&[]))?;
    put_all(&server, 10).await?;
    server.stop()?;
    let sums = server.data_dir().join("member/aux/db.sum");
    let old = fs::read(&sums)?;
    server.restart(Path::new(OURS))?;
    put_all(&server, 20).await?;
    server.stop()?;
    fs::write(&sums, old)?;
    let told = |server: &Server| {
        server.log().matches("the page checksums in member/aux speak of another state").count()
    };
    assert_eq!(told(&server), 0);
    server.restart(Path::new(OURS))?;
    expect_all(&server, 20).await?;
    assert_eq!(told(&server), 1);
    server.stop()?;
    server.restart(Path::new(OURS))?;
    expect_all(&server, 20).await?;
    assert!(told(&server) <= 1);
    Ok(())
}
