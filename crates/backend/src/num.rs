//! Conversions between the widths that files and memory count in.
//!
//! Page ids and offsets are `u64` in the file, lengths in memory are `usize`; on the 64-bit targets
//! that are supported both hold the same values, which is asserted here once.

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "64-bit targets only");

/// A count from the file as a length in memory.
pub(crate) fn to_len(count: u64) -> usize {
    usize::try_from(count).expect("usize has 64 bits")
}

/// A length in memory as a count for the file.
pub(crate) fn to_count(len: usize) -> u64 {
    u64::try_from(len).expect("usize has 64 bits")
}

/// Two bytes of the file, little endian.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes were sliced"))
}

/// Four bytes of the file, little endian.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

/// Eight bytes of the file, little endian.
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}
