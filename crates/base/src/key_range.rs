//! Which keys a request is about.

use bytes::Bytes;

/// The wire's "empty end" and "zero byte" conventions, made plain at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// Exactly this key.
    One(Bytes),
    /// Keys from `start` up to but not including `end`; empty if `end <= start`.
    Between {
        /// First key that may be in the range.
        start: Bytes,
        /// First key behind the range.
        end: Bytes,
    },
    /// This key and every one behind it.
    From(Bytes),
}

impl KeyRange {
    /// Reads the pair as clients send it: no `range_end` means one key, a single zero byte means
    /// to the last key.
    #[must_use]
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        match &range_end[..] {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Between { start: key, end: range_end },
        }
    }

    /// The first key that may be in the range.
    #[must_use]
    pub fn start(&self) -> &Bytes {
        match self {
            Self::One(key) | Self::From(key) => key,
            Self::Between { start, .. } => start,
        }
    }

    /// Whether `key` is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::From(start) => start <= key,
            Self::Between { start, end } => start <= key && key < end,
        }
    }

    /// Whether no key can be in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Between { start, end } if end <= start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::from_wire(Bytes::from_static(key), Bytes::from_static(end))
    }

    /// KV-02.
    #[test]
    fn wire_conventions_become_plain_ranges() {
        assert!(wire(b"a", b"").contains(b"a"));
        assert!(!wire(b"a", b"").contains(b"aa"));
        assert!(wire(b"a", b"\0").contains(b"\xff\xff"));
        assert!(!wire(b"a", b"\0").contains(b"A"));
        assert!(wire(b"a", b"c").contains(b"b"));
        assert!(!wire(b"a", b"c").contains(b"c"));
        assert!(wire(b"c", b"a").is_empty());
    }
}
