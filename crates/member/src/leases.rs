//! Driving leases: the leader's clock decides when one ends, an entry ends it.

use std::collections::{BTreeSet, VecDeque};

use base::LeaseId;
use proto::etcdserverpb as pb;
use state::{Applied, CheckpointNumber, Lessor, RenewError, Reply, State};

use crate::Ticket;

/// The lessor with its pace (L-10 to L-12), and renewals that wait.
///
/// A renewal promises time that the next leader must know of. It gives every lease its whole time
/// and an election timeout on top, counted from its own election; so a renewal is good if it is
/// made within an election timeout of a moment after which a quorum still followed this member.
/// Where no such moment is known, the member asks, and the renewal waits for the answer: a leader
/// that was paused or cut off promises nothing (G6).
#[derive(Debug)]
pub(crate) struct Leases {
    lessor: Lessor,
    options: LeaseOptions,
    election_millis: u64,
    next_sweep_millis: u64,
    /// A quorum followed this member after this moment of its leadership.
    followed_millis: Option<u64>,
    waiting: VecDeque<(Ticket, LeaseId)>,
}

/// How leases are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Whether the rest of long leases is written down now and then (L-12).
    pub checkpoints: bool,
    /// Whether a renewal of a known lease is made before everything is applied that was committed
    /// when it was asked for (L-07).
    pub renews_at_once: bool,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self { checkpoints: true, renews_at_once: true }
    }
}

/// Renewals that may wait for a quorum.
const WAITING_MAX: usize = 65_536;

/// How often ended leases are looked for (etcd: server/lease/lessor.go).
const SWEEP_MILLIS: u64 = 500;

/// Revokes proposed in one sweep: 1,000 a second.
const REVOKES_PER_SWEEP_MAX: usize = 500;

/// How often the remaining time of long leases is written down, so that it survives a new leader
/// or a restart.
const CHECKPOINT_MILLIS: u64 = 300_000;

/// Checkpoints proposed in one sweep.
const CHECKPOINTS_PER_SWEEP_MAX: usize = 10_000;

/// Checkpoints in one entry.
const CHECKPOINTS_PER_ENTRY_MAX: usize = 1000;

impl Leases {
    /// `election_millis` is the least time without a leader before an election.
    pub(crate) fn new(election_millis: u64) -> Self {
        Self {
            lessor: Lessor::new(),
            options: LeaseOptions::default(),
            election_millis,
            next_sweep_millis: 0,
            followed_millis: None,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn set_options(&mut self, options: LeaseOptions) {
        self.options = options;
    }

    pub(crate) fn options(&self) -> LeaseOptions {
        self.options
    }

    /// Whether the clock runs: this member leads and has applied everything from before.
    pub(crate) fn is_leading(&self) -> bool {
        self.lessor.is_leading()
    }

    /// A quorum followed this member, which leads, after `moment_millis`.
    pub(crate) fn followed_after(&mut self, moment_millis: u64) {
        self.followed_millis = self.followed_millis.max(Some(moment_millis));
    }

    /// Whether a renewal now is certain to be known to the next leader.
    pub(crate) fn may_renew(&self, now_millis: u64) -> bool {
        // Half of what would do: clocks do not run at quite the same speed.
        let recent = |moment: u64| now_millis <= moment + self.election_millis / 2;
        let is_followed = self.followed_millis.is_some_and(recent)
            || base::probe::mutant("renews-without-quorum");
        self.is_leading() && is_followed
    }

    /// Keeps a renewal until it may be made; `false` if there is no room.
    pub(crate) fn wait(&mut self, ticket: Ticket, id: LeaseId) -> bool {
        let room = self.waiting.len() < WAITING_MAX;
        if room {
            self.waiting.push_back((ticket, id));
        }
        room
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The renewals that waited.
    pub(crate) fn take_waiting(&mut self) -> VecDeque<(Ticket, LeaseId)> {
        std::mem::take(&mut self.waiting)
    }

    pub(crate) fn forget(&mut self, tickets: &BTreeSet<Ticket>) {
        self.waiting.retain(|(ticket, _)| !tickets.contains(ticket));
    }

    /// This member leads, and has applied every entry of the terms before: every lease lives on for
    /// what it had left, at least.
    pub(crate) fn promote(&mut self, now_millis: u64, state: &State) {
        self.next_sweep_millis = now_millis + SWEEP_MILLIS;
        let mut leases = state.leases_for_promotion();
        if base::probe::mutant("a-new-leader-forgets-a-lease") {
            leases.pop();
        }
        if !leases.is_empty() {
            base::probe::reached("member: a new leader takes over leases");
        }
        self.lessor.promote(now_millis, self.election_millis, &leases);
    }

    /// This member leads no more: its clock decides nothing.
    pub(crate) fn demote(&mut self) {
        if !base::probe::mutant("deposed-leader-ends-leases") {
            self.lessor.demote();
        }
        self.followed_millis = None;
    }

    /// Takes note of what an applied entry did to leases.
    pub(crate) fn on_applied(&mut self, now_millis: u64, applied: &Applied) {
        match applied {
            Applied::Done(Reply::LeaseGrant(granted)) => {
                self.lessor.grant(LeaseId(granted.id), granted.ttl, now_millis);
            }
            Applied::Done(Reply::LeaseRevoke(id, _)) => self.lessor.revoke(*id),
            Applied::Done(_) | Applied::Refused(_) => {}
        }
    }

    /// Renews a lease: the seconds it lives on, and the checkpoint to clear, if members know of a
    /// shorter rest. `None` for an unknown or ended one, or if another member leads.
    pub(crate) fn renew(
        &mut self,
        id: LeaseId,
        now_millis: u64,
    ) -> Option<(i64, Option<CheckpointNumber>)> {
        match self.lessor.renew(id, now_millis) {
            Ok(renewal) => Some((renewal.ttl_seconds, renewal.clear_checkpoint)),
            Err(RenewError::NotLeader | RenewError::NotFound | RenewError::Ended) => None,
        }
    }

    /// A checkpoint of 0 was committed.
    pub(crate) fn checkpoint_cleared(&mut self, id: LeaseId, number: CheckpointNumber) {
        self.lessor.checkpoint_cleared(id, number);
    }

    /// Seconds a lease lives on.
    pub(crate) fn remaining(&self, id: LeaseId, now_millis: u64) -> Option<i64> {
        self.lessor.remaining(id, now_millis)
    }

    /// Leases, soonest end first.
    pub(crate) fn by_expiry(&self) -> Vec<LeaseId> {
        self.lessor.by_expiry()
    }

    /// What must be proposed now.
    pub(crate) fn due(&mut self, now_millis: u64) -> Due {
        if !self.lessor.is_leading() || now_millis < self.next_sweep_millis {
            return Due::default();
        }
        self.next_sweep_millis = now_millis + SWEEP_MILLIS;
        let checkpoints_max = if self.options.checkpoints { CHECKPOINTS_PER_SWEEP_MAX } else { 0 };
        let checkpoints =
            self.lessor.checkpoints_due(now_millis, CHECKPOINT_MILLIS, checkpoints_max);
        let mut revoke = self.lessor.expired(now_millis, REVOKES_PER_SWEEP_MAX);
        if base::probe::mutant("ended-leases-live-on") {
            revoke.clear();
        }
        Due {
            revoke,
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
