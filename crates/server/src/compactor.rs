//! Forgetting history by itself (SRV-194 to SRV-196).
//!
//! Time comes from the timer, revisions are looked at; what is decided becomes an ordinary
//! compaction request, which the log carries to every member.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

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
/// period compacts to the one remembered `retention` ago. What fails is tried again at the next look.
async fn periodic(retention: Duration, handle: &Handle) {
    let period = retention.min(PERIOD_MAX);
    let pause = period / LOOKS_PER_PERIOD;
    let looks = Looks::new(retention, pause);
    let mut seen: VecDeque<i64> = VecDeque::new();
    let mut until_next = looks.retention;
    loop {
        seen.push_back(handle.reads().keys().revision());
        // One more than make the retention, as etcd: rather more is kept than less.
        if looks.retention + 1 < seen.len() {
            seen.pop_front();
        }
        tokio::time::sleep(pause).await;
        until_next = until_next.saturating_sub(1);
        let oldest = seen.front().copied().expect("one was just added");
        if 0 < until_next || !is_worth_it(oldest, handle) {
            continue;
        }
        let (revision, began) = (oldest, Instant::now());
        tracing::info!(
            revision,
            "compact-period" = ?retention,
            "starting auto periodic compaction"
        );
        match compact(revision, handle).await {
            Ok(()) => {
                until_next = looks.period;
                tracing::info!(
                    revision,
                    "compact-period" = ?retention,
                    took = ?began.elapsed(),
                    "completed auto periodic compaction"
                );
            }
            Err(error) => tracing::warn!(
                revision,
                "compact-period" = ?retention,
                "retry-interval" = ?pause,
                error = %error,
                "failed auto periodic compaction"
            ),
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
        let revision = oldest_kept(handle.reads().keys().revision(), retention);
        if !is_worth_it(revision, handle) {
            continue;
        }
        let began = Instant::now();
        tracing::info!(
            revision,
            "revision-compaction-retention" = retention,
            "starting auto revision compaction"
        );
        match compact(revision, handle).await {
            Ok(()) => tracing::info!(
                revision,
                "revision-compaction-retention" = retention,
                took = ?began.elapsed(),
                "completed auto revision compaction"
            ),
            Err(error) => tracing::warn!(
                revision,
                "revision-compaction-retention" = retention,
                "retry-interval" = ?REVISION_INTERVAL,
                error = %error,
                "failed auto revision compaction"
            ),
        }
    }
}

/// The revision to compact to, so that this many newer ones stay; none if it is not positive.
fn oldest_kept(newest: i64, retention: u64) -> i64 {
    newest.saturating_sub(i64::try_from(retention).unwrap_or(i64::MAX))
}

/// Whether this member is the one to compact to a revision (SRV-196), and anything would be
/// forgotten: an entry in the log of an idle cluster would be for nothing.
fn is_worth_it(revision: i64, handle: &Handle) -> bool {
    handle.reads().keys().compact_revision().max(0) < revision && handle.leads()
}

async fn compact(revision: i64, handle: &Handle) -> Result<(), ProposeError> {
    let request = pb::CompactionRequest { revision, physical: false };
    match handle.propose(RequestKind::Compaction, &request).await {
        // Another member was faster.
        Ok(_) | Err(ProposeError::Refused(Refusal::Compacted)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-195.
    #[test]
    fn so_many_revisions_are_kept() {
        assert_eq!(REVISION_INTERVAL.as_secs(), 300);
        assert_eq!(oldest_kept(1000, 100), 900);
        assert!(oldest_kept(100, 100) <= 0 && oldest_kept(1, u64::MAX) < 0);
    }

    /// SRV-194: of a day it is remembered what was at every sixth minute, of a minute at every sixth
    /// second.
    #[test]
    fn looks_are_a_tenth_of_a_period() {
        let looks = |retention: Duration| {
            let looks = Looks::new(retention, retention.min(PERIOD_MAX) / LOOKS_PER_PERIOD);
            (looks.retention, looks.period)
        };
        assert_eq!(looks(Duration::from_secs(60)), (10, 10));
        assert_eq!(looks(Duration::from_secs(24 * 60 * 60)), (240, 10));
    }
}
