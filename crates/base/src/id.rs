//! Identifiers of members, clusters and leases.

use std::fmt;

/// A member of a cluster; 0 is nobody. Printed as lower hex without leading zeros, as etcd does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// A cluster. Printed as lower hex without leading zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// A lease; 0 is none, negative ones never exist. Printed as 16 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl MemberId {
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// Whether this names no member.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl LeaseId {
    /// No lease.
    pub const NONE: Self = Self(0);

    /// Whether this names no lease.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
