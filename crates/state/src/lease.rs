//! The replicated part of leases: which exist, how long they were granted for, which keys hang on
//! them. No clock: when a lease ends is the leader's [`crate::Lessor`]'s business.
//!
//! The table exists twice, once for apply and once for readers, so that readers see the effects of
//! a batch at its end and whole, and apply takes no lock per entry. Attached keys are shared bytes.
//! Source: etcd server/lease/lessor.go.

use std::collections::{BTreeMap, BTreeSet};

use base::LeaseId;
use bytes::Bytes;
use parking_lot::RwLock;
use proto::leasepb;

use crate::Refusal;
use crate::auth::gate::Attached;

/// The longest lease, in seconds (L-03).
pub(crate) const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// How long a lease has, in the form the leader's clock starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerm {
    /// The lease.
    pub id: LeaseId,
    /// Seconds it was granted for; what a renewal gives.
    pub granted_ttl_seconds: i64,
    /// Seconds it has left as of its last checkpoint; the granted ones if there is none.
    pub remaining_ttl_seconds: i64,
}

/// One lease.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lease {
    pub(crate) granted_ttl_seconds: i64,
    /// 0 is "no checkpoint".
    pub(crate) checkpoint_seconds: i64,
    pub(crate) keys: BTreeSet<Bytes>,
}

impl Lease {
    pub(crate) fn remaining_ttl_seconds(&self) -> i64 {
        if self.checkpoint_seconds > 0 { self.checkpoint_seconds } else { self.granted_ttl_seconds }
    }
}

/// Leases by id, as readers see them.
pub(crate) type LeaseTable = BTreeMap<LeaseId, Lease>;

/// Apply's own table, and what the readers' one does not have yet.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    table: LeaseTable,
    holders: BTreeMap<Bytes, LeaseId>,
    unpublished: Vec<Effect>,
}

#[derive(Debug)]
enum Effect {
    Grant {
        id: LeaseId,
        ttl_seconds: i64,
    },
    Revoke {
        id: LeaseId,
    },
    Checkpoint {
        id: LeaseId,
        remaining_seconds: i64,
    },
    /// From and to may be no lease.
    Move {
        key: Bytes,
        from: LeaseId,
        to: LeaseId,
    },
}

impl Effect {
    fn perform(&self, table: &mut LeaseTable) {
        match self {
            Self::Grant { id, ttl_seconds } => {
                let lease = Lease { granted_ttl_seconds: *ttl_seconds, ..Lease::default() };
                table.insert(*id, lease);
            }
            Self::Revoke { id } => {
                table.remove(id);
            }
            Self::Checkpoint { id, remaining_seconds } => {
                if let Some(lease) = table.get_mut(id) {
                    lease.checkpoint_seconds = *remaining_seconds;
                }
            }
            Self::Move { key, from, to } => {
                if let Some(lease) = table.get_mut(from) {
                    lease.keys.remove(key);
                }
                if let Some(lease) = table.get_mut(to) {
                    lease.keys.insert(key.clone());
                }
            }
        }
    }
}

impl Leases {
    /// Takes up stored leases; keys are attached afterwards, by [`Leases::attach`].
    pub(crate) fn restore(stored: Vec<leasepb::Lease>, ttl_seconds_min: i64) -> Self {
        let mut leases = Self::default();
        for lease in stored {
            let id = LeaseId(lease.id);
            let ttl_seconds = lease.ttl.max(ttl_seconds_min);
            leases.record(Effect::Grant { id, ttl_seconds });
            leases.record(Effect::Checkpoint { id, remaining_seconds: lease.remaining_ttl });
        }
        leases
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.table.contains_key(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn terms(&self) -> Vec<LeaseTerm> {
        let term = |(id, lease): (&LeaseId, &Lease)| LeaseTerm {
            id: *id,
            granted_ttl_seconds: lease.granted_ttl_seconds,
            remaining_ttl_seconds: lease.remaining_ttl_seconds(),
        };
        self.table.iter().map(term).collect()
    }

    /// The row of a lease for its bucket.
    pub(crate) fn stored(&self, id: LeaseId) -> Option<leasepb::Lease> {
        self.table.get(&id).map(|lease| leasepb::Lease {
            id: id.0,
            ttl: lease.granted_ttl_seconds,
            remaining_ttl: lease.checkpoint_seconds,
        })
    }

    /// Makes a lease; returns the seconds it got.
    pub(crate) fn grant(
        &mut self,
        id: LeaseId,
        ttl_seconds: i64,
        ttl_seconds_min: i64,
    ) -> Result<i64, Refusal> {
        if id.is_none() {
            return Err(Refusal::LeaseNotFound);
        }
        if TTL_SECONDS_MAX < ttl_seconds {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.contains(id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl_seconds = ttl_seconds.max(ttl_seconds_min);
        self.record(Effect::Grant { id, ttl_seconds });
        Ok(ttl_seconds)
    }

    /// The keys of a lease in byte order, which is the order every member deletes them in.
    pub(crate) fn keys(&self, id: LeaseId) -> Result<Vec<Bytes>, Refusal> {
        let lease = self.table.get(&id).ok_or(Refusal::LeaseNotFound)?;
        Ok(lease.keys.iter().cloned().collect())
    }

    /// Ends a lease whose keys are deleted.
    pub(crate) fn remove(&mut self, id: LeaseId) {
        if let Some(lease) = self.table.get(&id) {
            for key in &lease.keys {
                self.holders.remove(key);
            }
        }
        self.record(Effect::Revoke { id });
    }

    /// Notes how long a lease has left; `false` if there is no such lease.
    pub(crate) fn checkpoint(&mut self, id: LeaseId, remaining_seconds: i64) -> bool {
        let known = self.contains(id);
        if known {
            self.record(Effect::Checkpoint { id, remaining_seconds });
        }
        known
    }

    /// Hangs a key on a lease, or on none, and takes it off the one it hung on. A lease that does
    /// not exist holds nothing: a row may name one that another tool dropped.
    pub(crate) fn attach(&mut self, key: &Bytes, to: LeaseId) {
        let to = if self.contains(to) { to } else { LeaseId::NONE };
        let from = self.holders.get(key).copied().unwrap_or_default();
        if from == to {
            return;
        }
        // Copied, because the key is kept for long and is a part of its whole request, or of all
        // that came over the network with it.
        let key = Bytes::copy_from_slice(key);
        if to.is_none() {
            self.holders.remove(&key);
        } else {
            self.holders.insert(key.clone(), to);
        }
        self.record(Effect::Move { key, from, to });
    }

    /// Shows readers what happened since the last time.
    pub(crate) fn publish(&mut self, readers: &RwLock<LeaseTable>) {
        if self.unpublished.is_empty() {
            return;
        }
        let mut table = readers.write();
        for effect in self.unpublished.drain(..) {
            effect.perform(&mut table);
        }
    }

    /// Shows readers this table in the place of whatever they saw.
    pub(crate) fn publish_whole(&mut self, readers: &RwLock<LeaseTable>) {
        self.unpublished.clear();
        *readers.write() = self.table.clone();
    }

    fn record(&mut self, effect: Effect) {
        effect.perform(&mut self.table);
        self.unpublished.push(effect);
    }
}

impl Attached for LeaseTable {
    fn keys_of(&self, id: LeaseId) -> Option<&BTreeSet<Bytes>> {
        self.get(&id).map(|lease| &lease.keys)
    }

    fn all_keys(&self) -> impl Iterator<Item = &Bytes> {
        self.values().flat_map(|lease| &lease.keys)
    }
}

impl Attached for Leases {
    fn keys_of(&self, id: LeaseId) -> Option<&BTreeSet<Bytes>> {
        self.table.keys_of(id)
    }

    fn all_keys(&self) -> impl Iterator<Item = &Bytes> {
        self.table.all_keys()
    }
}
