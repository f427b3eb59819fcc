//! Power that goes where the code has a failpoint (with the feature `probes`; nothing without it).
//!
//! The members of a life live in one thread, so the hook has to know whose code it is in.

#[cfg(feature = "probes")]
mod armed {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use base::probe::reached;
    use vfs::fault::FaultPlan;

    thread_local! {
        static AT: Cell<usize> = const { Cell::new(0) };
        static ARMED: RefCell<BTreeMap<usize, (&'static str, Arc<FaultPlan>)>> =
            const { RefCell::new(BTreeMap::new()) };
    }

    /// From now on the code of this machine runs.
    pub(crate) fn enter(at: usize) {
        AT.set(at);
    }

    /// Stops the machine as soon as it comes by the failpoint.
    pub(crate) fn arm(at: usize, name: &'static str, plan: &Arc<FaultPlan>) {
        base::probe::set_failpoints(pass);
        ARMED.with_borrow_mut(|armed| armed.insert(at, (name, Arc::clone(plan))));
    }

    /// Nothing happens at failpoints any more.
    pub(crate) fn disarm() {
        ARMED.with_borrow_mut(BTreeMap::clear);
    }

    fn pass(name: &'static str) -> Option<String> {
        ARMED.with_borrow_mut(|armed| {
            let at = AT.get();
            if armed.get(&at).is_some_and(|(wanted, _)| *wanted == name)
                && let Some((_, plan)) = armed.remove(&at)
            {
                reached("sim: the power goes at a failpoint");
                plan.stop();
            }
        });
        None
    }
}

#[cfg(not(feature = "probes"))]
mod armed {
    use std::sync::Arc;

    use vfs::fault::FaultPlan;

    pub(crate) const fn enter(_at: usize) {}

    pub(crate) const fn arm(_at: usize, _name: &'static str, _plan: &Arc<FaultPlan>) {}

    pub(crate) const fn disarm() {}
}

pub(crate) use armed::{arm, disarm, enter};

/// Those that the code of a simulated member comes by.
pub(crate) const NAMES: [&str; 25] = [
    "raftBeforeFollowerSend",
    "raftBeforeLeaderSend",
    "raftBeforeAdvance",
    "raftBeforeSave",
    "raftAfterSave",
    "raftBeforeSaveSnap",
    "raftBeforeWALSaveSnaphot",
    "raftAfterSaveSnap",
    "raftAfterWALRelease",
    "raftBeforeApplySnap",
    "raftAfterApplySnap",
    "walBeforeSync",
    "walAfterSync",
    "applyBeforeOpenSnapshot",
    "applyAfterOpenSnapshot",
    "beforeApplyOneConfChange",
    "beforeApplyOneEntryNormal",
    "compactBeforeCommitScheduledCompact",
    "compactAfterCommitScheduledCompact",
    "commitBeforePreCommitHook",
    "commitAfterPreCommitHook",
    "beforeCommit",
    "afterCommit",
    "defragBeforeCopy",
    "defragBeforeRename",
];
