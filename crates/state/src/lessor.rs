//! The leader's clock of leases: when they end. Not replicated, and it reads no clock itself.
//!
//! Only the leader's clock ends leases: its driver asks [`Lessor::expired`] and proposes revokes.
//! A new leader starts every lease anew with its full time, or with what was left at the last
//! checkpoint, and adds an election timeout, so that no lease ends earlier than any leader told
//! its owner (L-10). Times are milliseconds of a monotonic clock whose origin does not matter.
//!
//! A lazy timing wheel: a renewal only moves the deadline, and the wheel finds out when it comes to
//! the slot. Invariants: a lease of the table is either in one slot of the wheel, at or before its
//! deadline or at the wheel's horizon, or it is overdue; never both. Source: etcd
//! server/lease/lessor.go; wheel: docs/design, "Watch and lease".

use std::collections::{BTreeMap, BTreeSet};

use base::LeaseId;

use crate::LeaseTerm;

/// How exact ends are: a lease ends at most this much late.
const TICK_MILLISECONDS: u64 = 100;

/// Slots of the wheel: leases that end later than in nearly seven minutes are looked at once per
/// turn, which costs less than a tree.
const SLOTS: u64 = 4096;

/// A revoke that was not applied by then is asked for again.
const RETRY_MILLISECONDS: u64 = 3000;

/// After an election, leases are spread so that no more than this many end within a second: three
/// quarters of what etcd revokes per second.
const EXPIRIES_PER_SECOND_MAX: usize = 750;

/// From so many leases on they are spread.
const SPREAD_LEASES_MIN: usize = 1000;

/// How many leases one call looks at for checkpoints, of which most need none.
const CHECKPOINT_LOOKS_MAX: usize = 10_000;

/// The leader's clock of leases.
#[derive(Debug, Default)]
pub struct Lessor {
    leading: Option<Wheel>,
}

/// A renewal that took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Seconds the lease has from now.
    pub ttl_seconds: i64,
    /// Set if members know of a shorter rest, or may soon. Then a checkpoint of 0 must be committed
    /// before the owner is answered, or the next leader would end the lease too early; when it is,
    /// this goes to [`Lessor::checkpoint_cleared`].
    pub clear_checkpoint: Option<CheckpointNumber>,
}

/// Tells a lease's checkpoints apart, so that clearing one does not hide a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointNumber(u64);

/// Why a lease is not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// Only the leader renews.
    #[error("this member does not lead")]
    NotLeader,
    /// There is no such lease.
    #[error("lease not found")]
    NotFound,
    /// The lease has ended and its revoke is on the way.
    #[error("lease has ended and is being revoked")]
    Ended,
}

#[derive(Debug)]
struct Wheel {
    leases: BTreeMap<LeaseId, Clock>,
    slots: Vec<Vec<LeaseId>>,
    /// The first tick whose slot was not looked at.
    next_tick: u64,
    /// Ended leases by when to ask for their revoke (again).
    overdue: BTreeSet<(u64, LeaseId)>,
    /// Leases by when they were last looked at for a checkpoint.
    checkpoints: BTreeSet<(u64, LeaseId)>,
    next_checkpoint: CheckpointNumber,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    granted_ttl_seconds: i64,
    deadline: u64,
    place: Place,
    /// Key in `checkpoints`.
    looked_at: u64,
    /// The newest checkpoint that members know of or were sent and that was not cleared.
    checkpoint: Option<CheckpointNumber>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Tick(u64),
    Overdue(u64),
}

impl Lessor {
    /// The clock of a member that does not lead.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this member leads, and its clock runs.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    /// Starts the clock of a new leader, once it has applied every entry of the terms before.
    /// `extend` is the election timeout: the last leader may have renewed a lease that long ago
    /// without anybody knowing.
    pub fn promote(&mut self, now: u64, extend: u64, leases: &[LeaseTerm]) {
        let mut wheel = Wheel::new(now);
        for (term, deadline) in spread(now, extend, leases) {
            wheel.add(term.id, term.granted_ttl_seconds, deadline, now);
            if term.remaining_ttl_seconds != term.granted_ttl_seconds {
                wheel.note_checkpoint(term.id);
            }
        }
        self.leading = Some(wheel);
    }

    /// Stops the clock: another member leads, or none.
    pub fn demote(&mut self) {
        self.leading = None;
    }

    /// Starts the clock of a lease that was granted.
    pub fn grant(&mut self, id: LeaseId, ttl_seconds: i64, now: u64) {
        if let Some(wheel) = &mut self.leading {
            wheel.remove(id);
            wheel.add(id, ttl_seconds, after(now, ttl_seconds), now);
        }
    }

    /// Forgets a lease that was revoked.
    pub fn revoke(&mut self, id: LeaseId) {
        if let Some(wheel) = &mut self.leading {
            wheel.remove(id);
        }
    }

    /// Gives a lease its whole time again.
    ///
    /// # Errors
    ///
    /// `NotLeader`, `NotFound`, or `Ended`: to be exact, who asks must then wait for the revoke.
    pub fn renew(&mut self, id: LeaseId, now: u64) -> Result<Renewal, RenewError> {
        let wheel = self.leading.as_mut().ok_or(RenewError::NotLeader)?;
        let clock = wheel.leases.get_mut(&id).ok_or(RenewError::NotFound)?;
        if clock.deadline <= now {
            return Err(RenewError::Ended);
        }
        // Never shorter: after an election the lease may have longer than its time.
        clock.deadline = clock.deadline.max(after(now, clock.granted_ttl_seconds));
        let ttl_seconds = clock.granted_ttl_seconds;
        Ok(Renewal { ttl_seconds, clear_checkpoint: clock.checkpoint })
    }

    /// Notes that a checkpoint of 0, proposed because of a renewal, is committed.
    pub fn checkpoint_cleared(&mut self, id: LeaseId, number: CheckpointNumber) {
        let clock = self.leading.as_mut().and_then(|wheel| wheel.leases.get_mut(&id));
        if let Some(clock) = clock.filter(|clock| clock.checkpoint == Some(number)) {
            clock.checkpoint = None;
        }
    }

    /// Whole seconds a lease has left, 0 if it has ended; `None` if there is no such lease or this
    /// member does not lead.
    #[must_use]
    pub fn remaining(&self, id: LeaseId, now: u64) -> Option<i64> {
        let clock = self.leading.as_ref()?.leases.get(&id)?;
        Some(seconds(clock.deadline.saturating_sub(now)))
    }

    /// Leases that have ended, soonest first, at most `max`: their revokes are to be proposed.
    /// Those that are not revoked are named again after three seconds.
    pub fn expired(&mut self, now: u64, max: usize) -> Vec<LeaseId> {
        self.leading.as_mut().map(|wheel| wheel.expired(now, max)).unwrap_or_default()
    }

    /// Leases whose rest members should know, with that rest in seconds, at most `max`. Each is
    /// named once per interval, and only if it is longer than the interval and not fresh.
    pub fn checkpoints_due(&mut self, now: u64, interval: u64, max: usize) -> Vec<(LeaseId, i64)> {
        let Some(wheel) = &mut self.leading else {
            return Vec::new();
        };
        wheel.checkpoints_due(now, interval, max)
    }

    /// All leases, the one that ends first first (L-09).
    #[must_use]
    pub fn by_expiry(&self) -> Vec<LeaseId> {
        let Some(wheel) = &self.leading else {
            return Vec::new();
        };
        let mut leases: Vec<_> =
            wheel.leases.iter().map(|(id, clock)| (clock.deadline, *id)).collect();
        leases.sort_unstable();
        leases.into_iter().map(|(_, id)| id).collect()
    }
}

impl Wheel {
    fn new(now: u64) -> Self {
        Self {
            leases: BTreeMap::new(),
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            next_tick: now / TICK_MILLISECONDS,
            overdue: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
            next_checkpoint: CheckpointNumber(0),
        }
    }

    fn add(&mut self, id: LeaseId, granted_ttl_seconds: i64, deadline: u64, now: u64) {
        let place = Place::Tick(self.place(id, deadline));
        let clock =
            Clock { granted_ttl_seconds, deadline, place, looked_at: now, checkpoint: None };
        self.leases.insert(id, clock);
        self.checkpoints.insert((now, id));
    }

    fn note_checkpoint(&mut self, id: LeaseId) {
        let clock = self.leases.get_mut(&id).expect("only a known lease has checkpoints");
        clock.checkpoint = Some(self.next_checkpoint);
        self.next_checkpoint.0 += 1;
    }

    /// Puts a lease into the slot of its deadline, or of the horizon if that is nearer.
    fn place(&mut self, id: LeaseId, deadline: u64) -> u64 {
        let tick =
            deadline.div_ceil(TICK_MILLISECONDS).clamp(self.next_tick, self.next_tick + SLOTS - 1);
        self.slots[slot(tick)].push(id);
        tick
    }

    /// Its slot keeps the id, which is dropped when the wheel comes there.
    fn remove(&mut self, id: LeaseId) {
        let Some(clock) = self.leases.remove(&id) else {
            return;
        };
        self.checkpoints.remove(&(clock.looked_at, id));
        if let Place::Overdue(at) = clock.place {
            self.overdue.remove(&(at, id));
        }
    }

    fn expired(&mut self, now: u64, max: usize) -> Vec<LeaseId> {
        self.turn(now);
        let mut expired = Vec::new();
        while expired.len() < max {
            let Some((at, id)) = self.overdue.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            self.overdue.remove(&(at, id));
            let again = now + RETRY_MILLISECONDS;
            self.overdue.insert((again, id));
            self.leases.get_mut(&id).expect("an overdue lease is in the table").place =
                Place::Overdue(again);
            expired.push(id);
        }
        expired
    }

    /// Looks at every slot whose time has come.
    fn turn(&mut self, now: u64) {
        let end = now / TICK_MILLISECONDS + 1;
        while self.next_tick < end {
            let tick = self.next_tick;
            let ids = std::mem::take(&mut self.slots[slot(tick)]);
            self.next_tick += 1;
            for id in ids {
                self.look(id, tick, now);
            }
        }
    }

    fn look(&mut self, id: LeaseId, tick: u64, now: u64) {
        // Revoked, or revoked and granted again: the newer one has its own slot.
        let Some(clock) = self.leases.get(&id).filter(|clock| clock.place == Place::Tick(tick))
        else {
            return;
        };
        let deadline = clock.deadline;
        let place = if deadline <= now {
            self.overdue.insert((deadline, id));
            Place::Overdue(deadline)
        } else {
            Place::Tick(self.place(id, deadline))
        };
        self.leases.get_mut(&id).expect("found above").place = place;
    }

    fn checkpoints_due(&mut self, now: u64, interval: u64, max: usize) -> Vec<(LeaseId, i64)> {
        let mut due = Vec::new();
        for _ in 0..CHECKPOINT_LOOKS_MAX {
            let Some((at, id)) = self.checkpoints.first().copied() else {
                break;
            };
            if now < at.saturating_add(interval.max(1)) || due.len() == max {
                break;
            }
            self.checkpoints.remove(&(at, id));
            self.checkpoints.insert((now, id));
            let clock = self.leases.get_mut(&id).expect("a lease that is looked at is known");
            clock.looked_at = now;
            // Rounded up, so that no lease is shortened.
            let rest = seconds(clock.deadline.saturating_sub(now).saturating_add(999));
            let is_long = interval < milliseconds(clock.granted_ttl_seconds);
            if is_long && 0 < rest && rest < clock.granted_ttl_seconds {
                self.note_checkpoint(id);
                due.push((id, rest));
            }
        }
        due
    }
}

/// Deadlines after an election. All leases begin anew, so many may end together; beyond what can
/// be revoked in a second they are put off, one behind the other.
fn spread(now: u64, extend: u64, leases: &[LeaseTerm]) -> Vec<(LeaseTerm, u64)> {
    let start = now.saturating_add(extend);
    let mut clocks: Vec<_> =
        leases.iter().map(|term| (*term, after(start, term.remaining_ttl_seconds))).collect();
    if clocks.len() < SPREAD_LEASES_MIN {
        return clocks;
    }
    clocks.sort_by_key(|(term, deadline)| (*deadline, term.id));
    // No window of a second has more, since each is a second behind the one so many before it.
    for late in EXPIRIES_PER_SECOND_MAX..clocks.len() {
        let earliest = clocks[late - EXPIRIES_PER_SECOND_MAX].1.saturating_add(1000);
        clocks[late].1 = clocks[late].1.max(earliest);
    }
    clocks
}

fn slot(tick: u64) -> usize {
    usize::try_from(tick % SLOTS).expect("the number of slots fits")
}

fn after(now: u64, ttl_seconds: i64) -> u64 {
    now.saturating_add(milliseconds(ttl_seconds))
}

fn milliseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

/// Rounded down.
fn seconds(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds / 1000).expect("a thousandth of the range fits")
}

#[cfg(test)]
mod tests;
