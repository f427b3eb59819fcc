//! etcd's failpoints, with the interface of gofail: `GOFAIL_FAILPOINTS` sets them at the start,
//! `GOFAIL_HTTP` opens a server that sets them while the member runs. Only with the feature
//! `failpoints`.
//!
//! The places stand in the crates below, as `base::probe::failpoint("name")`, where etcd's own stand
//! in its code, as far as the same thing happens at one place here. Names without a place are known
//! and do nothing.
//!
//! A panic ends the process; it waits until the answer that caused it has left.
//! Source: gofail's documentation; spec/process-contract 6.

mod http;
mod terms;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use terms::{Effect, Terms, TermsError};

/// etcd 3.7's names, in order.
const NAMES: [&str; 48] = [
    "afterCommit",
    "afterIsMemberExist",
    "afterStartDBTxn",
    "afterWritebackBuf",
    "applyAfterOpenSnapshot",
    "applyBeforeOpenSnapshot",
    "beforeApplyOneConfChange",
    "beforeApplyOneEntryNormal",
    "beforeCheckpointInLeaseRenew",
    "beforeCommit",
    "beforeLookupWhenForwardLeaseTimeToLive",
    "beforeLookupWhenLeaseTimeToLive",
    "beforeMoveVictims",
    "beforeProgressIfSync",
    "beforePublishing",
    "beforeRangeStreamChunk",
    "beforeSendWatchResponse",
    "beforeServeHTTPLeaseRenew",
    "beforeStartDBTxn",
    "beforeSyncWatchers",
    "beforeWritebackBuf",
    "commitAfterPreCommitHook",
    "commitBeforePreCommitHook",
    "compactAfterAcquiredBatchTxLock",
    "compactAfterCommitBatch",
    "compactAfterCommitScheduledCompact",
    "compactAfterSetFinishedCompact",
    "compactBeforeCommitBatch",
    "compactBeforeCommitScheduledCompact",
    "compactBeforeSetFinishedCompact",
    "defragBeforeCopy",
    "defragBeforeRename",
    "defragOpenFileError",
    "defragdbFail",
    "raftAfterApplySnap",
    "raftAfterSave",
    "raftAfterSaveSnap",
    "raftAfterWALRelease",
    "raftBeforeAdvance",
    "raftBeforeApplySnap",
    "raftBeforeFollowerSend",
    "raftBeforeLeaderSend",
    "raftBeforeSave",
    "raftBeforeSaveSnap",
    "raftBeforeWALSaveSnaphot",
    "raftDropHeartbeat",
    "walAfterSync",
    "walBeforeSync",
];

static POINTS: Mutex<BTreeMap<&'static str, Terms>> = Mutex::new(BTreeMap::new());

/// How many are set: most of the time none, and passing a place must cost nothing then.
static SET: AtomicUsize = AtomicUsize::new(0);

/// Held while an answer is on its way; a panic waits for it.
static ANSWERING: Mutex<()> = Mutex::new(());

/// Why a failpoint is not set or shown.
#[derive(Debug, thiserror::Error)]
enum PointError {
    #[error("failpoint: {0} does not exist")]
    Unknown(String),
    #[error("failpoint: {0} is disabled")]
    Disabled(String),
    #[error("failpoint: setting {name}")]
    Terms {
        name: String,
        #[source]
        source: TermsError,
    },
}

/// Begins: reads the environment and opens the server, if one is asked for.
pub(crate) fn start() {
    base::probe::set_failpoints(pass);
    if let Ok(list) = std::env::var("GOFAIL_FAILPOINTS")
        && let Err(error) = set_all(&list)
    {
        panic!("GOFAIL_FAILPOINTS: {error}");
    }
    if let Ok(address) = std::env::var("GOFAIL_HTTP") {
        http::listen(&address);
    }
}

/// Passes a place.
fn pass(name: &'static str) -> Option<String> {
    if SET.load(Ordering::Acquire) == 0 {
        return None;
    }
    // Whoever sleeps does not keep others from passing, or from being told to stop.
    let effect = POINTS.lock().get_mut(name)?.pass();
    match effect {
        Effect::None => None,
        Effect::Return(value) => Some(value),
        Effect::Sleep(time) => {
            std::thread::sleep(time);
            None
        }
        Effect::Print => {
            tracing::warn!(name, "failpoint print");
            None
        }
        Effect::Panic => {
            let _answered = ANSWERING.lock();
            panic!("failpoint panic: {name}");
        }
    }
}

fn known(name: &str) -> Result<&'static str, PointError> {
    let at = NAMES.binary_search(&name);
    at.map(|at| NAMES[at]).map_err(|_| PointError::Unknown(name.to_owned()))
}

fn set(name: &str, text: &str) -> Result<(), PointError> {
    let known = known(name)?;
    let failed = |source| PointError::Terms { name: name.to_owned(), source };
    let terms = Terms::parse(text).map_err(failed)?;
    let mut points = POINTS.lock();
    points.insert(known, terms);
    SET.store(points.len(), Ordering::Release);
    Ok(())
}

/// `a=terms;b=terms`
fn set_all(list: &str) -> Result<(), PointError> {
    for one in list.split(';').map(str::trim).filter(|one| !one.is_empty()) {
        let (name, text) =
            one.split_once('=').ok_or_else(|| PointError::Unknown(one.to_owned()))?;
        set(name.trim(), text.trim())?;
    }
    Ok(())
}

fn clear(name: &str) -> Result<(), PointError> {
    let known = known(name)?;
    let mut points = POINTS.lock();
    let was_set = points.remove(known).is_some();
    SET.store(points.len(), Ordering::Release);
    if was_set { Ok(()) } else { Err(PointError::Disabled(name.to_owned())) }
}

/// The terms and how often they did something.
fn show(name: &str) -> Result<(String, u64), PointError> {
    let known = known(name)?;
    let points = POINTS.lock();
    let terms = points.get(known).ok_or_else(|| PointError::Disabled(name.to_owned()))?;
    Ok((terms.text().to_owned(), terms.passed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_so_that_they_are_found() {
        assert!(NAMES.is_sorted());
        assert!(matches!(set("nonsense", "panic"), Err(PointError::Unknown(_))));
        assert!(matches!(show("walAfterSync"), Err(PointError::Disabled(_))));
    }
}
