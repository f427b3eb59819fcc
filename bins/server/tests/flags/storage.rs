//! The database and the log: commits, compaction, shrinking, waiting for the disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use retcd_conformance::{Keys, Server, ServerOptions, real_etcd};

use super::{OURS, metric, start, until};

async fn put_all(server: &Server, count: usize) -> anyhow::Result<()> {
    let keys = Keys::of(&server.endpoint())?;
    for number in 0..count {
        keys.put("again", number.to_string()).await?;
    }
    Ok(())
}

/// SRV-053, SRV-054: the database is committed after so many changes, however long the interval.
#[tokio::test]
async fn the_database_is_committed_after_so_many_changes() -> anyhow::Result<()> {
    let commits = "etcd_disk_backend_commit_duration_seconds_count";
    let (server, _folder) = start(&["--backend-batch-interval=1h", "--backend-batch-limit=10"])?;
    let before = metric(&server, commits)?;
    put_all(&server, 100).await?;
    until("commits", || Ok(metric(&server, commits)? >= before + 5.0))?;
    let (server, _folder) =
        start(&["--backend-batch-interval=1h", "--backend-batch-limit=1000000"])?;
    let before = metric(&server, commits)?;
    put_all(&server, 100).await?;
    assert!(metric(&server, commits)? < before + 5.0);
    Ok(())
}

/// SRV-124: a compaction takes so many revisions at once, and a pause in between.
#[tokio::test]
async fn a_compaction_goes_in_steps() -> anyhow::Result<()> {
    let (server, _folder) =
        start(&["--experimental-compaction-batch-limit=10", "--compaction-sleep-interval=20ms"])?;
    put_all(&server, 100).await?;
    let mut kv = KvClient::connect(server.endpoint()).await?;
    kv.compact(pb::CompactionRequest { revision: 100, physical: true }).await?;
    let name = "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds";
    // Nine pauses at least.
    until("the compaction's time", || Ok(metric(&server, &format!("{name}_count"))? > 0.0))?;
    assert!(metric(&server, &format!("{name}_sum"))? >= 160.0);
    Ok(())
}

/// SRV-084, SRV-085, SRV-194: history older than the retention is forgotten.
#[tokio::test]
async fn history_is_forgotten_by_itself() -> anyhow::Result<()> {
    let (server, _folder) =
        start(&["--auto-compaction-mode=periodic", "--auto-compaction-retention=1s"])?;
    put_all(&server, 20).await?;
    let compacted = "etcd_debugging_mvcc_compact_revision";
    until("a compaction", || Ok(metric(&server, compacted)? > 1.0))?;
    Ok(())
}

/// SRV-126, CB-67: a start shrinks the database only if that frees enough, and then it does.
#[tokio::test]
async fn a_start_shrinks_only_what_is_worth_it() -> anyhow::Result<()> {
    let (mut server, _folder) =
        start(&["--experimental-bootstrap-defrag-threshold-megabytes=1000"])?;
    put_all(&server, 5).await?;
    // There was nothing to shrink at the first start.
    assert!(!server.log().contains("defragmentation"));
    server.stop()?;
    server.restart(Path::new(OURS))?;
    let log = server.log();
    let line = log.lines().find(|line| line.contains("\"msg\":\"Skipping defragmentation\""));
    assert!(
        line.is_some_and(|line| {
            line.contains("\"bootstrap-defrag-threshold-bytes\":1048576000")
        })
    );
    let keys = Keys::of(&server.endpoint())?;
    for number in 0..100 {
        keys.put(&format!("key {number}"), vec![7; 50_000]).await?;
    }
    for number in 0..100 {
        keys.delete(&format!("key {number}")).await?;
    }
    keys.compact(206).await?;
    server.stop()?;
    let len = |server: &Server| fs::metadata(server.data_dir().join("member/snap/db"));
    let before = len(&server)?.len();
    server.add_flags(&["--experimental-bootstrap-defrag-threshold-megabytes=1"]);
    server.restart(Path::new(OURS))?;
    assert!(server.log().contains("\"msg\":\"finished defragmentation\""), "{}", server.log());
    assert!(len(&server)?.len() < before);
    assert!(Keys::of(&server.endpoint())?.get("again").await?.is_some());
    Ok(())
}

/// Names and modes of what lies in a data folder, in order.
fn files(folder: &Path, within: &str) -> anyhow::Result<Vec<(String, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(within))? {
        let entry = entry?;
        let name = format!("{within}/{}", entry.file_name().display());
        found.push((name.clone(), entry.metadata()?.permissions().mode() & 0o777));
        if entry.file_type()?.is_dir() {
            found.extend(files(folder, &name)?);
        }
    }
    found.sort();
    Ok(found)
}

/// CB-60, CB-62, SRV-043, SRV-050: what a data folder holds is named as etcd names it and nobody
/// else's to read; of snapshot files the newest stay. Segments are the log's own tests.
#[tokio::test]
async fn a_data_folder_is_laid_out_as_etcds() -> anyhow::Result<()> {
    let mut programs = vec![PathBuf::from(OURS)];
    programs.extend(real_etcd("3.5").map(|folder| folder.join("etcd")));
    for program in programs {
        let folder = tempfile::tempdir()?;
        let flags = ["--snapshot-count=10", "--max-snapshots=3"].map(str::to_owned).to_vec();
        let mut server = Server::start(&program, folder.path(), ServerOptions { flags })?;
        put_all(&server, 100).await?;
        // Of each the index that its name ends with, behind the term.
        let snapshots = || -> anyhow::Result<Vec<u64>> {
            let mut indexes = Vec::new();
            for entry in fs::read_dir(server.data_dir().join("member/snap"))? {
                let name = entry?.file_name().into_string().unwrap_or_default();
                if let Some((term, index)) =
                    name.strip_suffix(".snap").and_then(|name| name.split_once('-'))
                {
                    anyhow::ensure!(term.len() == 16 && index.len() == 16, "{name}");
                    indexes.push(u64::from_str_radix(index, 16)?);
                }
            }
            Ok(indexes)
        };
        // etcd looks for old ones every thirty seconds.
        until("no more than the newest three snapshots are left", || {
            let left = snapshots()?;
            Ok(left.len() <= 3 && left.iter().any(|index| *index > 60))
        })?;
        server.stop()?;
        let found = files(server.data_dir(), "member")?;
        for name in ["member/snap", "member/wal"] {
            assert!(found.contains(&(name.to_owned(), 0o700)), "{found:?}");
        }
        let segment = "member/wal/0000000000000000-0000000000000000.wal".to_owned();
        for name in [segment.clone(), "member/snap/db".to_owned()] {
            assert!(found.contains(&(name, 0o600)), "{found:?}");
        }
        assert_eq!(fs::metadata(server.data_dir().join(segment))?.len(), 64_000_000);
        let own = fs::metadata(server.data_dir())?.permissions().mode();
        assert_eq!(own & 0o777, 0o700);
        if program == Path::new(OURS) {
            let open: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
            assert!(open.is_empty(), "{open:?}");
        }
    }
    Ok(())
}
