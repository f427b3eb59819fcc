//! Encoded protobuf messages as text, so that ids in them can be put aside like those in texts.
//!
//! There is no schema: what is printable is taken for a string, what else parses for a message.

use std::fmt::Write as _;

/// The fields of a message, `number: value` each; `None` if the bytes are no message.
pub(crate) fn text(mut bytes: &[u8]) -> Option<String> {
    let mut out = String::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = key >> 3;
        if number == 0 || 1 << 20 < number {
            return None;
        }
        write!(out, "{number}: ").unwrap();
        match key & 7 {
            0 => write!(out, "{} ", varint(&mut bytes)?).unwrap(),
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(len)?;
                bytes = rest;
                write!(out, "{} ", value_text(value)).unwrap();
            }
            _ => return None,
        }
    }
    Some(out.trim_end().to_owned())
}

fn value_text(value: &[u8]) -> String {
    let printable = str::from_utf8(value).ok().filter(|it| !it.chars().any(char::is_control));
    let message = || text(value).map(|fields| format!("{{{fields}}}"));
    printable.map(|it| format!("{it:?}")).or_else(message).unwrap_or_else(|| format!("{value:?}"))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[test]
fn message_is_told_by_its_fields() {
    let header = [0x0a, 5, 8, 0xac, 2, 0x18, 5, 0x12, 2, b'h', b'i'];
    assert_eq!(text(&header).as_deref(), Some("1: {1: 300 3: 5} 2: \"hi\""));
    assert_eq!(text(b"no message"), None);
}
