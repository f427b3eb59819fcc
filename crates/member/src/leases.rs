//! Driving leases: the leader's clock decides when one ends, an entry ends it.

use base::LeaseId;
use proto::etcdserverpb as pb;
use state::{Applied, Lessor, Reply, State};

/// The lessor with its pace (L-10 to L-12).
#[derive(Debug)]
pub(crate) struct Leases {
    lessor: Lessor,
    leading: bool,
    next_sweep_millis: u64,
}

/// How often ended leases are looked for (etcd: server/lease/lessor.go).
const SWEEP_MILLIS: u64 = 500;

/// Revokes proposed in one sweep: 1,000 a second.
const REVOKES_PER_SWEEP_MAX: usize = 500;

/// How often the remaining time of long leases is written down, so that it survives a new leader
/// or a restart.
const CHECKPOINT_MILLIS: u64 = 300_000;

/// Checkpoints in one entry.
const CHECKPOINTS_PER_ENTRY_MAX: usize = 1000;

impl Leases {
    pub(crate) fn new() -> Self {
        Self { lessor: Lessor::default(), leading: false, next_sweep_millis: 0 }
    }

    /// This member leads now: every lease lives on for what it had left, at least.
    pub(crate) fn promote(&mut self, now_millis: u64, state: &State) {
        self.leading = true;
        self.next_sweep_millis = now_millis + SWEEP_MILLIS;
        self.lessor.promote(now_millis, state.leases_for_promotion());
    }

    /// This member leads no more: its clock decides nothing.
    pub(crate) fn demote(&mut self) {
        self.leading = false;
        self.lessor.demote();
    }

    /// Takes note of what an applied entry did to leases.
    pub(crate) fn on_applied(&mut self, now_millis: u64, applied: &Applied, revoked: Option<LeaseId>) {
        if !self.leading {
            return;
        }
        if let Applied::Done(Reply::LeaseGrant(granted)) = applied {
            self.lessor.grant(LeaseId(granted.id), granted.ttl, now_millis);
        }
        if let Some(id) = revoked {
            self.lessor.forget(id);
        }
    }

    /// Seconds a renewed lease lives on; `None` for an unknown or ended one, or if another member
    /// leads.
    pub(crate) fn renew(&mut self, id: LeaseId, now_millis: u64) -> Option<i64> {
        if self.leading { self.lessor.renew(id, now_millis) } else { None }
    }

    /// Seconds a lease lives on.
    pub(crate) fn remaining(&self, id: LeaseId, now_millis: u64) -> Option<i64> {
        if self.leading { self.lessor.remaining(id, now_millis) } else { None }
    }

    /// Leases, soonest end first.
    pub(crate) fn by_expiry(&self) -> Vec<LeaseId> {
        self.lessor.by_expiry()
    }

    /// What must be proposed now.
    pub(crate) fn due(&mut self, now_millis: u64) -> Due {
        if !self.leading || now_millis < self.next_sweep_millis {
            return Due::default();
        }
        self.next_sweep_millis = now_millis + SWEEP_MILLIS;
        let checkpoints = self.lessor.checkpoints_due(now_millis, CHECKPOINT_MILLIS);
        Due {
            revoke: self.lessor.expired(now_millis, REVOKES_PER_SWEEP_MAX),
            checkpoint: checkpoints
                .chunks(CHECKPOINTS_PER_ENTRY_MAX)
                .map(|part| pb::LeaseCheckpointRequest {
                    checkpoints: part
                        .iter()
                        .map(|(id, remaining)| pb::LeaseCheckpoint {
                            id: id.0,
                            remaining_ttl: *remaining,
                        })
                        .collect(),
                })
                .collect(),
        }
    }
}

/// Entries the leader's lease clock asks for.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) revoke: Vec<LeaseId>,
    pub(crate) checkpoint: Vec<pb::LeaseCheckpointRequest>,
}
