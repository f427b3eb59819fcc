//! The cluster version: what every member can speak, decided by the leader.
//!
//! Every few seconds the leader asks all members for their version and proposes the lowest one. A
//! cluster that was founded by an older etcd keeps its version although all members are ours, so
//! that it can go back (docs/design/0004). Source: etcd server/etcdserver/version/monitor.go,
//! cluster_util.go.

use base::version;

/// Major and minor of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

impl Release {
    /// The first release whose members understand cluster facts in the form of 1300 to 1302.
    pub(crate) const V3_5: Self = Self { major: 3, minor: 5 };

    /// The first release that keeps its version in the database.
    pub(crate) const V3_6: Self = Self { major: 3, minor: 6 };

    /// What etcd begins with while a member cannot be asked.
    pub(crate) const MINIMUM: Self = Self { major: 3, minor: 0 };

    /// This program's.
    pub(crate) fn own() -> Self {
        Self::parse(version::COMPATIBLE).expect("our own version is one")
    }

    /// Reads `3.5.30`, `3.5.0-rc.1` or, as an operator may write it, `3.5`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(str::parse::<u64>);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let patch_is_right = numbers.next().is_none_or(|patch| patch.is_ok());
        (patch_is_right && numbers.next().is_none()).then_some(Self { major, minor })
    }

    /// As the log carries it: `3.5.0`.
    pub(crate) fn to_cluster_version(self) -> String {
        format!("{}.{}.0", self.major, self.minor)
    }

    /// One minor lower, which is as far as a downgrade goes.
    pub(crate) fn before(self) -> Option<Self> {
        self.minor.checked_sub(1).map(|minor| Self { minor, ..self })
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Whether facts about the cluster must be written as requests of the v2 store: a member runs an
/// older release than 3.5, or may, by the version that the cluster has. Whoever else there is
/// understands the form of 1300 to 1302, and 3.7 panics on the older one (interop 6.3).
///
/// A member that cannot be asked is as old as the cluster lets it be. That of a cluster without a
/// version may be of any age, but a founder that is older than 3.5 and never answered is rarer than
/// a cluster that founds with a member missing, and whose log a 3.7 must be able to read.
pub(crate) fn needs_old_form(cluster: Option<Release>, releases: &[Option<Release>]) -> bool {
    let may_be_old = cluster.is_some_and(|it| Release::MINIMUM < it && it < Release::V3_5);
    may_be_old || releases.iter().flatten().any(|release| *release < Release::V3_5)
}

/// What the decision is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The cluster version, if there is one.
    pub(crate) cluster: Option<Release>,
    /// The lowest version of all members; `None` if one could not be asked.
    pub(crate) lowest: Option<Release>,
    /// To where the cluster is being taken back, if it is.
    pub(crate) downgrade: Option<Release>,
}

/// What the cluster version should be now; `None` to leave it.
pub(crate) fn decide(known: Known) -> Option<Release> {
    let Some(cluster) = known.cluster else {
        return Some(known.lowest.unwrap_or(Release::MINIMUM).min(Release::own()));
    };
    let lowest = known.lowest?.min(Release::own());
    if let Some(target) = known.downgrade {
        let one_lower = |from: Release| from.before() == Some(target);
        return (target != cluster && one_lower(cluster) && one_lower(lowest)).then_some(target);
    }
    // From the first guess it always goes up; from a version that older members wrote only as far
    // as the oldest of them, and not at all once they are gone.
    let is_guess = cluster <= Release::MINIMUM;
    let has_older = lowest < Release::own();
    ((is_guess || has_older || Release::V3_6 <= cluster) && cluster < lowest).then_some(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(minor: u64) -> Release {
        Release { major: 3, minor }
    }

    #[test]
    fn releases_are_read() {
        for (text, expected) in [
            ("3.5.30", Some(release(5))),
            ("3.7", Some(release(7))),
            ("3.6.0-alpha.0", Some(release(6))),
            ("not_decided", None),
            ("3", None),
            ("3.x", None),
            ("3.4.5.6", None),
        ] {
            assert_eq!(Release::parse(text), expected, "{text}");
        }
        assert_eq!(release(5).to_cluster_version(), "3.5.0");
    }

    /// CB-40, CB-54.
    #[test]
    fn the_old_form_is_for_members_before_3_5_only() {
        let own = Some(Release::own());
        let (old, new) = (Some(release(4)), Some(release(5)));
        for (cluster, releases, expected) in [
            (None, [own, own], false),
            (None, [own, None], false),
            (None, [own, old], true),
            (Some(release(0)), [own, None], false),
            (Some(release(0)), [own, old], true),
            // Its directory may go back to it.
            (old, [own, own], true),
            (old, [own, None], true),
            (new, [own, new], false),
            (new, [own, None], false),
            (Some(release(6)), [own, Some(release(6))], false),
            (own, [own, None], false),
        ] {
            assert_eq!(needs_old_form(cluster, &releases), expected, "{cluster:?} {releases:?}");
        }
    }

    /// CB-54, CB-57.
    #[test]
    fn the_cluster_speaks_what_its_oldest_member_speaks() {
        let own = Release::own();
        for (cluster, lowest, downgrade, expected) in [
            (None, None, None, Some(release(0))),
            (None, Some(release(5)), None, Some(release(5))),
            (None, Some(own), None, Some(own)),
            (Some(release(0)), Some(own), None, Some(own)),
            (Some(release(0)), None, None, None),
            (Some(release(4)), Some(release(5)), None, Some(release(5))),
            // All are ours now, and could still go back.
            (Some(release(5)), Some(own), None, None),
            (Some(release(6)), Some(own), None, Some(own)),
            (Some(own), Some(own), None, None),
            (Some(own), Some(own), own.before(), own.before()),
            (Some(own), Some(own), Some(release(1)), None),
            (own.before(), Some(own), own.before(), None),
        ] {
            let known = Known { cluster, lowest, downgrade };
            assert_eq!(decide(known), expected, "{known:?}");
        }
    }
}
