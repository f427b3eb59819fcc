//! Whether a change of the members is wise: the strict checks that come before it is proposed.
//!
//! They look at what this member knows and sees, so another member may decide otherwise; what is
//! possible at all is decided when the change is applied, by everyone alike. Off with
//! `--strict-reconfig-check=false`. Source: etcd server/etcdserver/{server,util}.go,
//! api/membership/cluster.go.

use std::time::{Duration, Instant};

use base::MemberId;
use proto::etcdserverpb as pb;

/// A member counts as connected once it was heard from for this long (CB-32).
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// Why a change is refused before it is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwise {
    /// E-18: too few members of the new cluster have started.
    NotEnoughStarted,
    /// E-53: too few of them are connected to this one.
    Unhealthy,
}

/// What the checks look at.
#[derive(Debug)]
pub(crate) struct View<'a, F> {
    /// This member.
    pub(crate) own: MemberId,
    /// All members.
    pub(crate) members: &'a [pb::Member],
    /// Since when another member is heard from without a break, if it is.
    pub(crate) connected_since: F,
    /// The moment.
    pub(crate) now: Instant,
}

fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// A member that never published its name has not started.
fn has_started(member: &pb::Member) -> bool {
    !member.name.is_empty()
}

impl<F: Fn(MemberId) -> Option<Instant>> View<'_, F> {
    fn voters(&self) -> impl Iterator<Item = &pb::Member> {
        self.members.iter().filter(|member| !member.is_learner)
    }

    /// How many voters, this one among them, are connected for long enough.
    fn connected(&self) -> usize {
        let is_connected = |member: &&pb::Member| {
            let id = MemberId(member.id);
            let since = || (self.connected_since)(id);
            id == self.own || since().is_some_and(|since| since + HEALTHY_AFTER < self.now)
        };
        self.voters().filter(is_connected).count()
    }

    /// A member is to be added (CB-31, CB-32).
    pub(crate) fn check_add(&self, learner: bool) -> Result<(), Unwise> {
        let voters = self.voters().count();
        let started = self.voters().filter(|member| has_started(member)).count();
        // From one member to two is always allowed, or a restored cluster could never grow.
        let grows_from_one = started == 1 && voters == 1;
        if !learner && !grows_from_one && started < quorum(voters + 1) {
            return Err(Unwise::NotEnoughStarted);
        }
        // The new one does not run yet.
        if voters != 1 && self.connected() < quorum(voters + 1) {
            return Err(Unwise::Unhealthy);
        }
        Ok(())
    }

    /// A member is to be removed (CB-33).
    pub(crate) fn check_remove(&self, id: MemberId) -> Result<(), Unwise> {
        if self.members.iter().any(|member| member.id == id.0 && member.is_learner) {
            return Ok(());
        }
        let rest = || self.voters().filter(|member| member.id != id.0);
        if rest().filter(|member| has_started(member)).count() < quorum(rest().count()) {
            return Err(Unwise::NotEnoughStarted);
        }
        if id != self.own && (self.connected_since)(id).is_none() {
            // It is down, so nothing is lost with it.
            return Ok(());
        }
        let voters = self.voters().count();
        if self.connected() < 1 + quorum(voters.saturating_sub(1)) {
            return Err(Unwise::Unhealthy);
        }
        Ok(())
    }

    /// A learner is to get its vote; it counts as started.
    pub(crate) fn check_promote(&self) -> Result<(), Unwise> {
        let started = self.voters().filter(|member| has_started(member)).count();
        if 1 + started < quorum(1 + self.voters().count()) {
            return Err(Unwise::NotEnoughStarted);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members 1 to `started` run, further ones up to `all` do not.
    fn members(started: u64, all: u64) -> Vec<pb::Member> {
        let member = |id: u64| pb::Member {
            id,
            name: if id <= started { format!("m{id}") } else { String::new() },
            ..pb::Member::default()
        };
        (1..=all).map(member).collect()
    }

    /// What member 1 says while members up to `connected` are connected for `age`.
    fn check<T>(
        members: &[pb::Member],
        connected: u64,
        age: Duration,
        ask: impl Fn(&View<'_, &dyn Fn(MemberId) -> Option<Instant>>) -> T,
    ) -> T {
        let since = Instant::now();
        let connected_since = |id: MemberId| (id.0 <= connected).then_some(since);
        ask(&View {
            own: MemberId(1),
            members,
            connected_since: &connected_since,
            now: since + age,
        })
    }

    const LONG: Duration = Duration::from_secs(6);
    const SHORT: Duration = Duration::from_secs(4);

    /// CB-31, CB-32, CB-34.
    #[test]
    fn a_member_is_added_if_the_new_quorum_runs_and_is_connected() {
        for (started, all, connected, age, learner, expected) in [
            (1, 1, 1, SHORT, false, Ok(())),
            (1, 2, 1, LONG, false, Err(Unwise::NotEnoughStarted)),
            (1, 2, 2, LONG, true, Ok(())),
            (2, 2, 2, LONG, false, Ok(())),
            (2, 2, 2, SHORT, false, Err(Unwise::Unhealthy)),
            (3, 3, 3, LONG, false, Ok(())),
            (3, 3, 2, LONG, false, Err(Unwise::Unhealthy)),
            (3, 3, 2, LONG, true, Err(Unwise::Unhealthy)),
            // One of five may be down.
            (5, 5, 4, LONG, false, Ok(())),
            (5, 5, 3, LONG, false, Err(Unwise::Unhealthy)),
        ] {
            let said =
                check(&members(started, all), connected, age, |view| view.check_add(learner));
            assert_eq!(said, expected, "{started} of {all}, {connected} connected for {age:?}");
        }
    }

    /// CB-33.
    #[test]
    fn a_member_is_removed_if_the_rest_has_a_quorum() {
        for (started, all, connected, id, expected) in [
            (1, 1, 1, 1, Err(Unwise::NotEnoughStarted)),
            (1, 2, 1, 2, Ok(())),
            (1, 2, 1, 1, Err(Unwise::NotEnoughStarted)),
            (2, 2, 2, 2, Ok(())),
            (3, 3, 3, 3, Ok(())),
            // A running one while another is down.
            (3, 3, 2, 2, Err(Unwise::Unhealthy)),
            // The one that is down.
            (3, 3, 2, 3, Ok(())),
            (3, 3, 3, 77, Ok(())),
        ] {
            let said = check(&members(started, all), connected, LONG, |view| {
                view.check_remove(MemberId(id))
            });
            assert_eq!(said, expected, "{id} of {all}, {connected} connected");
        }
        let mut with_learner = members(1, 2);
        with_learner[1].is_learner = true;
        let said = check(&with_learner, 1, SHORT, |view| view.check_remove(MemberId(2)));
        assert_eq!(said, Ok(()));
    }

    #[test]
    fn a_learner_is_promoted_if_the_new_quorum_has_started() {
        for (started, all, expected) in
            [(1, 1, Ok(())), (2, 3, Ok(())), (1, 3, Err(Unwise::NotEnoughStarted))]
        {
            let said = check(&members(started, all), 1, LONG, |view| view.check_promote());
            assert_eq!(said, expected, "{started} of {all}");
        }
    }
}
