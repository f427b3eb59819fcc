//! Forgetting history by itself (SRV-194 to SRV-196).
//!
//! Time comes from the timer, revisions are looked at; what is decided becomes an ordinary
//! compaction request, which the log carries to every member.

use std::collections::VecDeque;
use std::time::Duration;

use proto::etcdserverpb as pb;
use state::Refusal;
use tokio::sync::watch;

use crate::config::AutoCompaction;
use crate::handle::{Handle, ProposeError, RequestKind};

/// How often `revision` mode looks.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// `periodic` mode compacts at the latest this often.
const PERIOD_MAX: Duration = Duration::from_secs(60 * 60);

/// `periodic` mode looks at the revision so many times in a period.
const LOOKS_PER_PERIOD: u32 = 10;

/// Compacts by `mode` until `stop` turns true.
pub(crate) async fn run(mode: AutoCompaction, handle: Handle, mut stop: watch::Receiver<bool>) {
    let compacting = async {
        match mode {
            AutoCompaction::Off => std::future::pending().await,
            AutoCompaction::Periodic(retention) => periodic(retention, &handle).await,
            AutoCompaction::Revision(retention) => by_revision(retention, &handle).await,
        }
    };
    tokio::select! {
        () = compacting => {}
        // A sender that is gone means stop, too.
        _stopped = stop.wait_for(|stop| *stop) => {}
    }
}

/// Keeps what is younger than `retention`: remembers the revision ten times a period, and once a
/// period compacts to the one remembered `retention` ago.
async fn periodic(retention: Duration, handle: &Handle) {
    let period = retention.min(PERIOD_MAX);
    let pause = period / LOOKS_PER_PERIOD;
    let looks = Looks::new(retention, pause);
    let mut seen: VecDeque<i64> = VecDeque::new();
    let mut until_next = looks.retention;
    loop {
        seen.push_back(handle.reads().keys().revision());
        if looks.retention < seen.len() {
            seen.pop_front();
        }
        tokio::time::sleep(pause).await;
        until_next = until_next.saturating_sub(1);
        if until_next == 0 && handle.leads() {
            if let Some(revision) = seen.front().copied() {
                compact(revision, handle).await;
            }
            until_next = looks.period;
        }
    }
}

/// How many looks make the retention and the period.
#[derive(Debug)]
struct Looks {
    retention: usize,
    period: usize,
}

impl Looks {
    fn new(retention: Duration, pause: Duration) -> Self {
        let looks = retention.as_nanos() / pause.as_nanos().max(1);
        Self {
            retention: usize::try_from(looks).unwrap_or(usize::MAX).max(1),
            period: LOOKS_PER_PERIOD as usize,
        }
    }
}

/// Keeps the last `retention` revisions.
async fn by_revision(retention: u64, handle: &Handle) {
    loop {
        tokio::time::sleep(REVISION_INTERVAL).await;
        let current = handle.reads().keys().revision();
        let target = current.saturating_sub(i64::try_from(retention).unwrap_or(i64::MAX));
        if target > handle.reads().keys().compact_revision().max(0) && handle.leads() {
            compact(target, handle).await;
        }
    }
}

async fn compact(revision: i64, handle: &Handle) {
    let request = pb::CompactionRequest { revision, physical: false };
    match handle.propose(RequestKind::Compaction, &request).await {
        Ok(_) => tracing::info!(revision, "completed auto compaction"),
        // Nothing was written since, or another member was faster.
        Err(ProposeError::Refused(Refusal::Compacted)) => {}
        Err(error) => tracing::warn!(revision, error = %error, "failed auto compaction"),
    }
}
