//! The database and the log: commits, compaction, shrinking, waiting for the disk.

use std::path::Path;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use retcd_conformance::{Keys, Server};

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

/// SRV-126: a start shrinks the database only if that frees enough.
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
    Ok(())
}
