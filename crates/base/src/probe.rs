//! Seams for tests that are nothing in what users run.
//!
//! [`reached`] counts situations by name, so that the simulator can tell which ones it never met
//! (reach markers, reliability G37). [`mutant`] says whether a classic bug is to be made here, so
//! that a test can be tested (reliability 9.5). Both are of one thread: a simulated life is one
//! thread, and several lives are lived side by side. [`failpoint`] names a place for whoever was
//! set to look after such places: the server's failpoints, under etcd's names, or the simulator.
//!
//! Without the features `reach`, `mutants` and `failpoints` they are empty and leave no code behind.

#[cfg(not(feature = "reach"))]
mod reach {
    /// Notes that a situation was met.
    #[inline(always)]
    pub const fn reached(_name: &'static str) {}
}

#[cfg(feature = "reach")]
mod reach {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        static REACHED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Notes that a situation was met.
    pub fn reached(name: &'static str) {
        REACHED.with_borrow_mut(|counts| *counts.entry(name).or_insert(0) += 1);
    }

    /// How often each situation was met by this thread since this was last asked.
    #[must_use]
    pub fn take_reached() -> BTreeMap<&'static str, u64> {
        REACHED.take()
    }
}

#[cfg(not(feature = "mutants"))]
mod mutants {
    /// Whether the bug of this name is to be made.
    #[inline(always)]
    #[must_use]
    pub const fn mutant(_name: &'static str) -> bool {
        false
    }
}

#[cfg(feature = "mutants")]
mod mutants {
    use std::cell::Cell;

    thread_local! {
        static MUTANT: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Whether the bug of this name is to be made.
    #[must_use]
    pub fn mutant(name: &'static str) -> bool {
        MUTANT.get() == Some(name)
    }

    /// Makes the bug of this name in this thread from now on; with `None` none.
    pub fn set_mutant(name: Option<&'static str>) {
        MUTANT.set(name);
    }
}

#[cfg(not(feature = "failpoints"))]
mod failpoints {
    /// Passes a place where something may be made to go wrong; what to return there, if so.
    #[inline(always)]
    pub const fn failpoint(_name: &'static str) -> Option<String> {
        None
    }
}

#[cfg(feature = "failpoints")]
mod failpoints {
    use std::sync::OnceLock;

    /// What happens at a failpoint.
    pub type Hook = fn(&'static str) -> Option<String>;

    static HOOK: OnceLock<Hook> = OnceLock::new();

    /// Passes a place where something may be made to go wrong; what to return there, if so.
    pub fn failpoint(name: &'static str) -> Option<String> {
        HOOK.get().and_then(|hook| hook(name))
    }

    /// Decides what happens at failpoints from now on; the first one who asks does.
    pub fn set_failpoints(hook: Hook) {
        HOOK.get_or_init(|| hook);
    }
}

pub use failpoints::*;
pub use mutants::*;
pub use reach::*;
