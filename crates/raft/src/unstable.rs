//! Which part of the log is durable, and which is on its way to the disk.
//!
//! Batches are handed out and become durable in the same order, and several may be on their way at
//! once. When entries are replaced, every batch under way forgets that it ever wrote them: what it
//! makes durable is then at most what stands before them. So a late completion never vouches for
//! entries that it did not write, whatever the term.
//!
//! Invariants: `stable <= handed <=` last entry; batches under way have rising tokens and end at or
//! before `handed`.
//! Source: etcd raft: log_unstable.go (which uses the term of the completion instead).

use std::collections::VecDeque;

use base::{Index, MemberId, Term};

use crate::{PersistToken, SnapshotMeta};

/// The durable end of the log and what is under way behind it.
#[derive(Clone, Debug)]
pub(crate) struct Unstable {
    stable: Index,
    handed: Index,
    /// A snapshot that replaced the log and is not durable yet.
    snapshot: Option<Incoming>,
    under_way: VecDeque<Batch>,
    /// The next batch's.
    token: PersistToken,
}

#[derive(Clone, Debug)]
struct Incoming {
    meta: SnapshotMeta,
    handed: bool,
}

/// One batch on its way to the disk.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    token: PersistToken,
    /// The log is durable up to here when this batch is.
    up_to: Index,
    /// The snapshot that it stores.
    snapshot: Option<Index>,
    must_sync: bool,
    /// Term and vote that are durable with it.
    pub(crate) ballot: (Term, MemberId),
}

impl Unstable {
    /// Everything up to `last` is durable.
    pub(crate) fn new(last: Index) -> Self {
        Self::doubted(last, last)
    }

    /// Everything up to `stable` is durable; what is between is written, and the first batch tells
    /// when it is durable, too.
    pub(crate) fn doubted(stable: Index, last: Index) -> Self {
        Self {
            stable,
            handed: last,
            snapshot: None,
            under_way: VecDeque::new(),
            token: PersistToken(1),
        }
    }

    pub(crate) fn stable(&self) -> Index {
        self.stable
    }

    pub(crate) fn handed(&self) -> Index {
        self.handed
    }

    pub(crate) fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Whether votes or acknowledgements given now still wait for the disk.
    pub(crate) fn is_sync_under_way(&self) -> bool {
        self.under_way.iter().any(|batch| batch.must_sync)
    }

    /// The entries from `from` on are gone.
    pub(crate) fn truncate(&mut self, from: Index) {
        let kept = from.previous();
        self.stable = self.stable.min(kept);
        self.handed = self.handed.min(kept);
        for batch in &mut self.under_way {
            batch.up_to = batch.up_to.min(kept);
        }
    }

    /// A snapshot takes the place of the whole log.
    pub(crate) fn restore(&mut self, meta: SnapshotMeta) {
        let index = meta.position.index;
        self.truncate(index.next());
        self.stable = index;
        self.handed = index;
        self.snapshot = Some(Incoming { meta, handed: false });
    }

    /// The snapshot to be stored, once.
    pub(crate) fn take_snapshot(&mut self) -> Option<SnapshotMeta> {
        let incoming = self.snapshot.as_mut().filter(|incoming| !incoming.handed)?;
        incoming.handed = true;
        Some(incoming.meta.clone())
    }

    /// A batch with everything up to `last` leaves for the disk.
    pub(crate) fn hand_out(
        &mut self,
        last: Index,
        snapshot: Option<Index>,
        must_sync: bool,
        ballot: (Term, MemberId),
    ) -> PersistToken {
        assert!(self.handed <= last, "handed out {} beyond the last {last}", self.handed);
        self.handed = last;
        let token = self.token;
        self.token = PersistToken(token.0 + 1);
        self.under_way.push_back(Batch { token, up_to: last, snapshot, must_sync, ballot });
        token
    }

    /// The batch of `token` is durable, and all before it; returns it, and the index of the
    /// snapshot that is durable now and still the log's beginning.
    pub(crate) fn persisted(&mut self, token: PersistToken) -> (Batch, Option<Index>) {
        let current = self.snapshot.as_ref().map(|incoming| incoming.meta.position.index);
        let mut stored = None;
        loop {
            let batch = self.under_way.pop_front().expect("only what is under way becomes durable");
            assert!(batch.token <= token, "{token:?} persisted, which is not under way");
            self.stable = self.stable.max(batch.up_to);
            assert!(self.stable <= self.handed, "stable {} beyond {}", self.stable, self.handed);
            if batch.snapshot.is_some() && batch.snapshot == current {
                stored = batch.snapshot;
                self.snapshot = None;
            }
            if batch.token == token {
                return (batch, stored);
            }
        }
    }
}
