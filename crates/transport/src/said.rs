//! What was logged a moment ago and need not be said again (N12).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base::MemberId;
use parking_lot::Mutex;

/// The same cause about the same member is told again after this time.
const PAUSE: Duration = Duration::from_secs(60);

/// Members remembered; whoever invents ids cannot use up memory.
const REMEMBERED_MAX: usize = 256;

/// What was said when.
#[derive(Debug, Default)]
pub(crate) struct Said {
    when: Mutex<BTreeMap<(&'static str, MemberId), Instant>>,
}

impl Said {
    /// Whether `cause` about `member` should be logged now.
    pub(crate) fn may_say(&self, cause: &'static str, member: MemberId) -> bool {
        self.may_say_at(cause, member, Instant::now())
    }

    fn may_say_at(&self, cause: &'static str, member: MemberId, now: Instant) -> bool {
        let mut when = self.when.lock();
        if when.get(&(cause, member)).is_some_and(|said| now.duration_since(*said) < PAUSE) {
            return false;
        }
        if when.len() == REMEMBERED_MAX {
            when.retain(|_, said| now.duration_since(*said) < PAUSE);
            if when.len() == REMEMBERED_MAX {
                return false;
            }
        }
        when.insert((cause, member), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N12.
    #[test]
    fn a_cause_is_said_once_a_minute() {
        let (said, begin) = (Said::default(), Instant::now());
        assert!(said.may_say_at("cluster", MemberId(1), begin));
        assert!(!said.may_say_at("cluster", MemberId(1), begin + PAUSE / 2));
        assert!(said.may_say_at("version", MemberId(1), begin));
        assert!(said.may_say_at("cluster", MemberId(2), begin));
        assert!(said.may_say_at("cluster", MemberId(1), begin + PAUSE));
    }

    #[test]
    fn invented_members_use_up_no_memory() {
        let (said, begin) = (Said::default(), Instant::now());
        for id in 0..10_000 {
            said.may_say_at("cluster", MemberId(id), begin);
        }
        assert_eq!(said.when.lock().len(), REMEMBERED_MAX);
        assert!(said.may_say_at("cluster", MemberId(1), begin + PAUSE));
    }
}
