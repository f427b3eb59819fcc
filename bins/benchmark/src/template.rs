//! Requests that are encoded once and patched per use.
//!
//! Not an encoder: the message is written by prost when a workload is prepared; afterwards only the
//! digits of its keys, and the stamp in its value, change in place. Lengths never change, so the
//! bytes stay a valid message.
//!
//! Invariant: every patch lies inside `bytes`.

/// An encoded request with places for numbers.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    patches: Vec<Patch>,
    stamp_at: Option<usize>,
    digits: usize,
}

#[derive(Debug, Clone, Copy)]
struct Patch {
    at: usize,
    delta: u64,
}

/// Digits of the numbers in keys, for keys that have room for them.
const DIGITS_MAX: usize = 12;
/// Shortest key: its digits tell a hundred million keys apart.
pub(crate) const KEY_BYTES_MIN: usize = 8;
/// Decimal digits of a stamp at the beginning of a value.
pub(crate) const STAMP_DIGITS: usize = 18;
/// A byte that neither protobuf's tags here nor the values contain four of.
const MARK: u8 = 0xF5;
const STAMP_MARK: [u8; STAMP_DIGITS] = [0xF6; STAMP_DIGITS];

impl Template {
    /// Prepares an encoded message that was built from [`key_mark`]s and perhaps a
    /// [`stamp_mark`].
    pub(crate) fn new(bytes: Vec<u8>, key_size: usize) -> Self {
        let digits = digits(key_size);
        let head = vec![MARK; digits - 4];
        let mut patches = Vec::new();
        let mut at = 0;
        while at + digits <= bytes.len() {
            if bytes[at..].starts_with(&head) {
                let tail = &bytes[at + head.len()..at + digits];
                let delta = tail.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                patches.push(Patch { at, delta });
                at += digits;
            } else {
                at += 1;
            }
        }
        let stamp_at = bytes.windows(STAMP_DIGITS).position(|window| window == STAMP_MARK);
        Self { bytes, patches, stamp_at, digits }
    }

    /// Writes `number` (plus each place's own distance) and the stamp, and returns the message.
    pub(crate) fn fill(&mut self, number: u64, stamp: u64) -> &[u8] {
        for patch in &self.patches {
            write_digits(&mut self.bytes[patch.at..patch.at + self.digits], number + patch.delta);
        }
        if let Some(at) = self.stamp_at {
            write_digits(&mut self.bytes[at..at + STAMP_DIGITS], stamp);
        }
        &self.bytes
    }

    /// Whether its value carries a stamp.
    pub(crate) fn has_stamp(&self) -> bool {
        self.stamp_at.is_some()
    }
}

/// The key whose number lies `delta` above the request's, to be patched later.
pub(crate) fn key_mark(key_size: usize, delta: u32) -> Vec<u8> {
    let digits = digits(key_size);
    let mut key = vec![b'k'; key_size - digits];
    key.resize(key_size - 4, MARK);
    key.extend_from_slice(&delta.to_be_bytes());
    key
}

/// The beginning of a value that is to carry a stamp.
pub(crate) const fn stamp_mark() -> [u8; STAMP_DIGITS] {
    STAMP_MARK
}

/// The key of a number, as requests carry it.
pub(crate) fn key(key_size: usize, number: u64) -> Vec<u8> {
    let digits = digits(key_size);
    let mut key = vec![b'k'; key_size];
    write_digits(&mut key[key_size - digits..], number);
    key
}

/// Reads a stamp back from the beginning of a value.
pub(crate) fn stamp(value: &[u8]) -> Option<u64> {
    value.get(..STAMP_DIGITS)?.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0'))
    })
}

fn digits(key_size: usize) -> usize {
    assert!(key_size >= KEY_BYTES_MIN, "{key_size} < {KEY_BYTES_MIN}");
    key_size.min(DIGITS_MAX)
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for byte in place.iter_mut().rev() {
        *byte = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use proto::etcdserverpb::{PutRequest, RangeRequest};

    #[test]
    fn patched_put_decodes_to_the_numbered_key_and_stamp() {
        let mut value = stamp_mark().to_vec();
        value.extend_from_slice(b"rest");
        let request = PutRequest {
            key: key_mark(16, 0).into(),
            value: value.into(),
            ..PutRequest::default()
        };
        let mut template = Template::new(request.encode_to_vec(), 16);
        let put = PutRequest::decode(template.fill(4711, 99)).unwrap();
        assert_eq!(put.key, "kkkk000000004711");
        assert_eq!(put.key, key(16, 4711));
        assert_eq!(stamp(&put.value), Some(99));
        assert!(put.value.ends_with(b"rest"));
    }

    #[test]
    fn range_end_keeps_its_distance() {
        let request = RangeRequest {
            key: key_mark(8, 0).into(),
            range_end: key_mark(8, 1000).into(),
            ..RangeRequest::default()
        };
        let mut template = Template::new(request.encode_to_vec(), 8);
        let range = RangeRequest::decode(template.fill(5, 0)).unwrap();
        assert_eq!((&range.key[..], &range.range_end[..]), (&b"00000005"[..], &b"00001005"[..]));
    }

    #[test]
    fn value_without_digits_has_no_stamp() {
        assert_eq!(stamp(b"short"), None);
        assert_eq!(stamp(b"not digits at all, but long"), None);
    }
}
