//! The table of flags: everything that can be set, said once.
//!
//! Names of environment variables, keys of the configuration file, the help text, the document
//! `docs/operating/flags.md` and the warning about flags that do not act yet are all derived
//! from it. Values are not kept here.
//! Source: etcd server/embed/config.go and server/etcdmain/ of 3.4 to 3.7 (names and defaults).

mod clustering;
mod legacy;
mod member;
mod operation;
mod security;

use std::sync::LazyLock;

pub(crate) use operation::DEFAULT_LOG_ROTATION;

use super::value::Kind;

/// Under which heading a flag is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Older,
}

impl Group {
    pub(crate) const ALL: [Self; 10] = [
        Self::Member,
        Self::Clustering,
        Self::Security,
        Self::Auth,
        Self::Monitoring,
        Self::Logging,
        Self::Tracing,
        Self::Features,
        Self::Unsafe,
        Self::Older,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Monitoring => "Profiling and Monitoring",
            Self::Logging => "Logging",
            Self::Tracing => "Distributed tracing",
            Self::Features => "Features",
            Self::Unsafe => "Unsafe feature",
            Self::Older => "Names of earlier releases (accepted with a warning)",
        }
    }
}

/// What setting a flag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sets the value of its own name.
    Setting,
    /// Is an older name of another flag.
    Alias(&'static str),
    /// Is an older name of a feature gate.
    Gate(&'static str),
    /// Does nothing and is not listed.
    Ignored,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// Without dashes.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// In the flag's own syntax.
    pub(crate) default: &'static str,
    pub(crate) group: Group,
    /// One or more sentences.
    pub(crate) help: &'static str,
    /// The releases of etcd that know it.
    pub(crate) since: &'static str,
    /// Why setting it changes nothing, if that is so.
    pub(crate) idle: Option<&'static str>,
    pub(crate) role: Role,
}

/// Why a flag of which nothing is said changes nothing.
const NOT_BUILT: &str = "it is not built yet";

impl Flag {
    const fn new(
        group: Group,
        name: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        let role = Role::Setting;
        Self { name, kind, default, group, help, since: "3.4", idle: Some(NOT_BUILT), role }
    }

    const fn acts(mut self) -> Self {
        self.idle = None;
        self
    }

    const fn idle(mut self, why: &'static str) -> Self {
        self.idle = Some(why);
        self
    }

    const fn since(mut self, release: &'static str) -> Self {
        self.since = release;
        self
    }

    const fn alias(mut self, target: &'static str) -> Self {
        self.role = Role::Alias(target);
        self.acts()
    }

    /// The environment variable of the same meaning.
    pub(crate) fn environment_name(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether its value must not be repeated in logs.
    pub(crate) fn is_secret(&self) -> bool {
        self.name.ends_with("-password")
    }
}

static FLAGS: LazyLock<Vec<Flag>> = LazyLock::new(|| {
    [member::FLAGS, clustering::FLAGS, security::FLAGS, operation::FLAGS, legacy::FLAGS].concat()
});

/// Every flag, in the order of the help text.
pub(crate) fn all() -> &'static [Flag] {
    &FLAGS
}

/// The flag of that name.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    all().iter().find(|flag| flag.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_every_default_can_be_read() {
        for (position, flag) in all().iter().enumerate() {
            assert!(
                !all()[..position].iter().any(|other| other.name == flag.name),
                "{}",
                flag.name
            );
            assert!(flag.kind.read(flag.default, None).is_ok(), "{}", flag.name);
            assert!(flag.role == Role::Ignored || flag.help.ends_with('.'), "{}", flag.name);
        }
    }

    #[test]
    fn older_names_lead_to_flags_of_the_same_kind() {
        for flag in all() {
            if let Role::Alias(target) = flag.role {
                assert_eq!(find(target).map(|found| found.kind), Some(flag.kind), "{}", flag.name);
            }
        }
    }
}
