//! How often each operation worked and how often not, since this process began (V2-133).
//!
//! Source: etcd v3.4.23 etcdserver/api/v2store/stats.go. Where etcd counts a refusal as a success
//! this does not (V2-134).

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Get,
    GetRecursive,
    Set,
    Delete,
    Update,
    Create,
    CompareAndSwap,
    CompareAndDelete,
}

/// Names in the order of etcd's struct, each with the kind and whether it is of successes.
const FIELDS: [(&str, Counted, bool); 14] = [
    ("getsSuccess", Counted::Get, true),
    ("getsFail", Counted::Get, false),
    ("setsSuccess", Counted::Set, true),
    ("setsFail", Counted::Set, false),
    ("deleteSuccess", Counted::Delete, true),
    ("deleteFail", Counted::Delete, false),
    ("updateSuccess", Counted::Update, true),
    ("updateFail", Counted::Update, false),
    ("createSuccess", Counted::Create, true),
    ("createFail", Counted::Create, false),
    ("compareAndSwapSuccess", Counted::CompareAndSwap, true),
    ("compareAndSwapFail", Counted::CompareAndSwap, false),
    ("compareAndDeleteSuccess", Counted::CompareAndDelete, true),
    ("compareAndDeleteFail", Counted::CompareAndDelete, false),
];

/// Names of the metrics' label.
const ACTIONS: [(&str, Counted); 8] = [
    ("get", Counted::Get),
    ("getRecursive", Counted::GetRecursive),
    ("set", Counted::Set),
    ("delete", Counted::Delete),
    ("update", Counted::Update),
    ("create", Counted::Create),
    ("compareAndSwap", Counted::CompareAndSwap),
    ("compareAndDelete", Counted::CompareAndDelete),
];

/// What was counted since this process began.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// By name: how often it worked, and how often not.
    pub actions: [(&'static str, u64, u64); 8],
    /// Nodes that ended.
    pub expired: u64,
    /// Watches that were asked for.
    pub watches: u64,
    /// How many wait.
    pub watchers: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Stats {
    counts: [[AtomicU64; 2]; 8],
    expired: AtomicU64,
    watches: AtomicU64,
}

impl Stats {
    pub(crate) fn count(&self, counted: Counted, success: bool) {
        self.counts[counted as usize][usize::from(success)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_watch(&self) {
        self.watches.fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, counted: Counted, success: bool) -> u64 {
        self.counts[counted as usize][usize::from(success)].load(Ordering::Relaxed)
    }

    pub(crate) fn totals(&self, watchers: usize) -> Totals {
        let total = |(name, counted)| (name, self.of(counted, true), self.of(counted, false));
        Totals {
            actions: ACTIONS.map(total),
            expired: self.expired.load(Ordering::Relaxed),
            watches: self.watches.load(Ordering::Relaxed),
            watchers,
        }
    }

    pub(crate) fn to_json(&self, watchers: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(400);
        for (at, (name, counted, success)) in FIELDS.into_iter().enumerate() {
            let mut count = self.of(counted, success);
            if counted == Counted::Get {
                count += self.of(Counted::GetRecursive, success);
            }
            let comma = if at == 0 { "{" } else { "," };
            text.extend_from_slice(format!("{comma}\"{name}\":{count}").as_bytes());
        }
        let expired = self.expired.load(Ordering::Relaxed);
        let end = format!(",\"expireCount\":{expired},\"watchers\":{watchers}}}");
        text.extend_from_slice(end.as_bytes());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-133.
    #[test]
    fn names_and_order_are_etcds() {
        let stats = Stats::default();
        stats.count(Counted::Set, true);
        stats.count(Counted::CompareAndDelete, false);
        let text = String::from_utf8(stats.to_json(7)).unwrap();
        assert_eq!(
            text,
            "{\"getsSuccess\":0,\"getsFail\":0,\"setsSuccess\":1,\"setsFail\":0,\
             \"deleteSuccess\":0,\"deleteFail\":0,\"updateSuccess\":0,\"updateFail\":0,\
             \"createSuccess\":0,\"createFail\":0,\"compareAndSwapSuccess\":0,\
             \"compareAndSwapFail\":0,\"compareAndDeleteSuccess\":0,\"compareAndDeleteFail\":1,\
             \"expireCount\":0,\"watchers\":7}"
        );
    }
}
