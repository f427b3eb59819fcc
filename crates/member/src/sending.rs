//! Snapshots on their way to other members: what the log must not forget meanwhile.
//!
//! A member that has got a snapshot needs what follows it. While one is under way, and for a while
//! after, nothing behind its position is forgotten, or the next one would be wanted at once.
//! Source: etcd: server/etcdserver/server.go (what a snapshot in flight holds back).

use std::collections::BTreeMap;

use base::{Index, MemberId};

/// How long what follows a snapshot is kept once it has arrived.
const KEPT_MILLIS: u64 = 30_000;

/// Snapshots by their receiver; one for each.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    under_way: BTreeMap<MemberId, Sent>,
}

#[derive(Debug)]
struct Sent {
    index: Index,
    /// Set once it has arrived.
    until_millis: Option<u64>,
}

impl Sending {
    pub(crate) fn begin(&mut self, to: MemberId, index: Index) {
        self.under_way.insert(to, Sent { index, until_millis: None });
    }

    pub(crate) fn end(&mut self, to: MemberId, ok: bool, now_millis: u64) {
        if !ok {
            self.under_way.remove(&to);
        } else if let Some(sent) = self.under_way.get_mut(&to) {
            sent.until_millis = Some(now_millis + KEPT_MILLIS);
        }
    }

    /// How far the log may be forgotten of what is asked.
    pub(crate) fn limit(&mut self, index: Index, now_millis: u64) -> Index {
        self.under_way.retain(|_, sent| sent.until_millis.is_none_or(|until| now_millis < until));
        self.under_way.values().map(|sent| sent.index).fold(index, Index::min)
    }

    /// Nobody sends any more: another member leads.
    pub(crate) fn clear(&mut self) {
        self.under_way.clear();
    }
}
