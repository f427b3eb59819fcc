//! The bytes of rows and of the events made from them.
//!
//! Rows are named by revision: 17 bytes, main revision, `_`, sub revision, both big-endian; a
//! deletion has a `t` behind them. A row is a canonical `mvccpb.KeyValue`: fields ascending, zeros
//! left out. A deletion's holds only the key. These bytes enter the hash that members compare, so
//! they are laid out here by hand and checked against prost in the tests.
//!
//! Source: etcd: server/storage/mvcc/revision.go, api/mvccpb/kv.proto.

use base::Revision;
use bytes::{BufMut, Bytes, BytesMut};

use crate::index::Stamp;

/// Bytes of a row's name, deletions' mark left out.
const REVISION_LEN: usize = 17;
/// Offset of the separator.
const SEPARATOR: usize = 8;

/// Names a put's row, or a compaction mark.
pub(crate) fn revision_key(revision: Revision) -> [u8; REVISION_LEN] {
    let mut key = [b'_'; REVISION_LEN];
    key[..SEPARATOR].copy_from_slice(&revision.main.to_be_bytes());
    key[SEPARATOR + 1..].copy_from_slice(&revision.sub.to_be_bytes());
    key
}

/// Names a row: 17 bytes, or 18 for a deletion.
pub(crate) fn row_key(stamp: Stamp, into: &mut [u8; REVISION_LEN + 1]) -> &[u8] {
    into[..REVISION_LEN].copy_from_slice(&revision_key(stamp.revision()));
    into[REVISION_LEN] = b't';
    &into[..REVISION_LEN + usize::from(stamp.is_deletion())]
}

/// First possible name of a row of this main revision or a later one.
pub(crate) fn from_main(main: i64) -> [u8; REVISION_LEN] {
    revision_key(Revision { main, sub: 0 })
}

/// Reads a row's name; `None` if it is not one.
pub(crate) fn parse_row_key(key: &[u8]) -> Option<Stamp> {
    let deletion = match key.len() {
        REVISION_LEN => false,
        18 if key[REVISION_LEN] == b't' => true,
        _ => return None,
    };
    let main = i64::from_be_bytes(key[..SEPARATOR].try_into().ok()?);
    let sub = i64::from_be_bytes(key[SEPARATOR + 1..REVISION_LEN].try_into().ok()?);
    let plausible =
        key[SEPARATOR] == b'_' && 0 <= main && (0..=i64::from(u32::MAX >> 1)).contains(&sub);
    plausible.then(|| Stamp::new(Revision { main, sub }, deletion))
}

/// Reads the name of a row of the `key` bucket: its revision and whether it is a deletion's; `None`
/// if it is no name. For tools that look at a database without opening a store.
#[must_use]
pub fn parse_row_name(key: &[u8]) -> Option<(Revision, bool)> {
    parse_row_key(key).map(|stamp| (stamp.revision(), stamp.is_deletion()))
}

/// The name of a put's row, which is also the form of a compaction mark.
#[must_use]
pub fn revision_name(revision: Revision) -> Vec<u8> {
    revision_key(revision).to_vec()
}

/// Where the last compaction that ended ended.
pub(crate) const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
/// Where the last compaction that was begun will end.
pub(crate) const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";

/// Fields of a `KeyValue` to be written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) value: &'a [u8],
    pub(crate) lease: i64,
}

// Tags: field number times eight, plus 0 for a number and 2 for bytes.
const KEY: u8 = 0x0a;
const CREATE: u8 = 0x10;
const MODIFIED: u8 = 0x18;
const VERSION: u8 = 0x20;
const VALUE: u8 = 0x2a;
const LEASE: u8 = 0x30;
const EVENT_TYPE: u8 = 0x08;
const EVENT_KV: u8 = 0x12;
const EVENT_PREVIOUS: u8 = 0x1a;

impl Fields<'_> {
    /// The row alone.
    pub(crate) fn row(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len());
        self.write(&mut out);
        out.freeze()
    }

    /// A put's event and its row, which is the tail of the event: one allocation for both.
    pub(crate) fn event_and_row(&self) -> (Bytes, Bytes) {
        let len = self.len();
        let mut out = BytesMut::with_capacity(1 + varint_len(len as u64) + len);
        out.put_u8(EVENT_KV);
        put_varint(&mut out, len as u64);
        self.write(&mut out);
        let event = out.freeze();
        let row = event.slice(event.len() - len..);
        (event, row)
    }

    fn len(&self) -> usize {
        let numbers = [self.create, self.modified, self.version, self.lease];
        let bytes = [self.key, self.value];
        let numbers = numbers.iter().filter(|number| **number != 0);
        let bytes = bytes.iter().filter(|bytes| !bytes.is_empty());
        numbers.map(|number| 1 + varint_len(number.cast_unsigned())).sum::<usize>()
            + bytes.map(|bytes| 1 + varint_len(bytes.len() as u64) + bytes.len()).sum::<usize>()
    }

    fn write(&self, out: &mut BytesMut) {
        put_bytes(out, KEY, self.key);
        put_number(out, CREATE, self.create);
        put_number(out, MODIFIED, self.modified);
        put_number(out, VERSION, self.version);
        put_bytes(out, VALUE, self.value);
        put_number(out, LEASE, self.lease);
    }
}

/// The event of a put whose row is at hand.
pub(crate) fn put_event(row: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + varint_len(row.len() as u64) + row.len());
    put_message(&mut out, EVENT_KV, row);
    out.freeze()
}

/// The event of a deletion: only key and mod revision.
pub(crate) fn delete_event(key: &[u8], modified: i64) -> Bytes {
    let fields = Fields { key, modified, ..Fields::default() };
    let len = fields.len();
    let mut out = BytesMut::with_capacity(3 + varint_len(len as u64) + len);
    out.put_slice(&[EVENT_TYPE, 1, EVENT_KV]);
    put_varint(&mut out, len as u64);
    fields.write(&mut out);
    out.freeze()
}

/// The event with the row before.
pub(crate) fn event_with_previous(event: &[u8], previous: &[u8]) -> Bytes {
    let len = 1 + varint_len(previous.len() as u64) + previous.len();
    let mut out = BytesMut::with_capacity(event.len() + len);
    out.put_slice(event);
    put_message(&mut out, EVENT_PREVIOUS, previous);
    out.freeze()
}

/// What the index needs of a row.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) key: Bytes,
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
}

impl Head {
    /// Reads the fields up to the value; `None` if the bytes are no row. No bytes at all are the
    /// row of the empty key, as a restore with a raised revision leaves it.
    pub(crate) fn parse(row: &Bytes) -> Option<Self> {
        let mut head = Self::default();
        let mut rest = &row[..];
        while let Some((tag, after)) = rest.split_first() {
            let (number, after) = varint(after)?;
            rest = after;
            match *tag {
                KEY => {
                    let len = usize::try_from(number).ok()?;
                    let (key, after) = rest.split_at_checked(len)?;
                    head.key = row.slice_ref(key);
                    rest = after;
                }
                CREATE => head.create = number.cast_signed(),
                MODIFIED => head.modified = number.cast_signed(),
                VERSION => head.version = number.cast_signed(),
                // Fields ascend: what is wanted is read.
                VALUE | LEASE => return Some(head),
                _ => return None,
            }
        }
        Some(head)
    }
}

fn put_number(out: &mut BytesMut, tag: u8, number: i64) {
    if number != 0 {
        out.put_u8(tag);
        put_varint(out, number.cast_unsigned());
    }
}

fn put_bytes(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_message(out, tag, bytes);
    }
}

/// Unlike plain bytes, an embedded message is written even if it is empty.
fn put_message(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

fn put_varint(out: &mut BytesMut, mut number: u64) {
    while 0x7f < number {
        out.put_u8(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.put_u8(number.to_le_bytes()[0]);
}

fn varint_len(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use proto::mvccpb::{Event, KeyValue, event::EventType};

    use super::*;

    prop_compose! {
        fn key_value()(
            key in prop::collection::vec(any::<u8>(), 0..200),
            value in prop::collection::vec(any::<u8>(), 0..200),
            create_revision in prop_oneof![Just(0), any::<i64>(), 0..300_i64],
            mod_revision in prop_oneof![Just(0), any::<i64>(), 0..300_i64],
            version in prop_oneof![Just(0), any::<i64>(), 0..300_i64],
            lease in prop_oneof![Just(0), any::<i64>()],
        ) -> KeyValue {
            KeyValue {
                key: key.into(), create_revision, mod_revision, version, value: value.into(), lease
            }
        }
    }

    fn fields(kv: &KeyValue) -> Fields<'_> {
        Fields {
            key: &kv.key,
            create: kv.create_revision,
            modified: kv.mod_revision,
            version: kv.version,
            value: &kv.value,
            lease: kv.lease,
        }
    }

    proptest! {
        /// KV-11, W-13: our bytes are prost's bytes.
        #[test]
        fn rows_and_events_are_canonical(kv in key_value(), previous in key_value()) {
            let row = kv.encode_to_vec();
            prop_assert_eq!(&fields(&kv).row()[..], &row[..]);

            let put = Event { r#type: EventType::Put.into(), kv: Some(kv.clone()), prev_kv: None };
            let (event, tail) = fields(&kv).event_and_row();
            prop_assert_eq!(&event[..], &put.encode_to_vec()[..]);
            prop_assert_eq!(&tail[..], &row[..]);
            prop_assert_eq!(&put_event(&row)[..], &event[..]);

            let both = Event { prev_kv: Some(previous.clone()), ..put };
            let with_previous = event_with_previous(&event, &previous.encode_to_vec());
            prop_assert_eq!(&with_previous[..], &both.encode_to_vec()[..]);

            let deleted = KeyValue {
                key: kv.key.clone(), mod_revision: kv.mod_revision, ..KeyValue::default()
            };
            let delete =
                Event { r#type: EventType::Delete.into(), kv: Some(deleted), prev_kv: None };
            let ours = delete_event(&kv.key, kv.mod_revision);
            prop_assert_eq!(&ours[..], &delete.encode_to_vec()[..]);

            let head = Head::parse(&row.into()).unwrap();
            prop_assert_eq!(
                (head.key, head.create, head.modified, head.version),
                (kv.key, kv.create_revision, kv.mod_revision, kv.version)
            );
        }

        #[test]
        fn row_keys_order_as_revisions(a in (0..5_i64, 0..5_i64), b in (0..5_i64, 0..5_i64)) {
            let stamp = |(main, sub), deletion| Stamp::new(Revision { main, sub }, deletion);
            let (mut left, mut right) = ([0; 18], [0; 18]);
            let (a, b) = (stamp(a, true), stamp(b, false));
            let (left, right) = (row_key(a, &mut left), row_key(b, &mut right));
            prop_assert_eq!(a.revision().cmp(&b.revision()), left[..17].cmp(right));
            prop_assert_eq!(parse_row_key(left), Some(a));
            prop_assert_eq!(parse_row_key(right), Some(b));
        }
    }

    #[test]
    fn damaged_rows_are_refused() {
        assert!(Head::parse(&Bytes::from_static(b"\x0a\x05ab")).is_none(), "key beyond the end");
        assert!(Head::parse(&Bytes::from_static(b"\x10\xff")).is_none(), "number without end");
        assert!(Head::parse(&Bytes::from_static(b"\x7a\x00")).is_none(), "no such field");
        assert!(parse_row_key(&[0; 17]).is_none(), "no separator");
        assert!(parse_row_key(&revision_key(Revision { main: -1, sub: 0 })).is_none());
    }

    /// Interop 3.2: `snapshot restore --bump-revision` leaves such a row.
    #[test]
    fn empty_row_is_that_of_the_empty_key() {
        let head = Head::parse(&Bytes::new()).unwrap();
        assert_eq!((head.key.len(), head.create, head.version), (0, 0, 0));
    }
}
