//! Names of segments and what else lies in their folder.

use std::fmt;

use base::Index;

/// Size at which a segment is closed, as etcd has it.
pub(crate) const SEGMENT_BYTES: u64 = 64_000_000;

/// `<sequence>-<first index>.wal`, both as 16 lower hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    /// Counts segments, from 0.
    pub(crate) sequence: u64,
    /// The first entry the segment can hold; 0 for the first segment. Later segments may overwrite
    /// entries before it.
    pub(crate) first_index: Index,
}

impl SegmentName {
    pub(crate) const FIRST: Self = Self { sequence: 0, first_index: Index(0) };

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
        Some(Self { sequence: hex(sequence)?, first_index: Index(hex(index)?) })
    }
}

fn hex(digits: &str) -> Option<u64> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 16 || !digits.bytes().all(lower) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.sequence, self.first_index.0)
    }
}

/// The segments among the names of a folder, by sequence number.
pub(crate) fn segments_of(names: &[String]) -> Vec<SegmentName> {
    let mut found: Vec<_> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_read_back_and_others_are_ignored() {
        let name = SegmentName { sequence: 0x1f, first_index: Index(0xabc) };
        assert_eq!(name.to_string(), "000000000000001f-0000000000000abc.wal");
        let names = [
            "000000000000001f-0000000000000abc.wal",
            "000000000000001F-0000000000000abc.wal",
            "000000000000001f-0000000000000abc.wal.broken",
            "+00000000000001f-0000000000000abc.wal",
            "0.tmp",
            "x.wal",
            "0000000000000000-0000000000000000.wal",
        ];
        let names: Vec<String> = names.map(str::to_owned).into();
        assert_eq!(segments_of(&names), [SegmentName::FIRST, name]);
    }
}
