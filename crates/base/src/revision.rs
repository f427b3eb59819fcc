//! Logical time of the key space.

use std::fmt;

/// When a change happened: the main revision counts transactions, the sub revision the changes
/// inside one, from 0. Clients see only the main revision; an empty store is at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Counts transactions that changed something.
    pub main: i64,
    /// Counts changes inside one transaction, from 0.
    pub sub: i64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}
