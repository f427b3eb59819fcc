//! JSON strings as Go's encoder writes them.

use std::borrow::Cow;
use std::io::Write as _;

use crate::text;

/// Appends the string with its quotes. Beyond what JSON demands Go escapes what browsers might take
/// for markup or line ends; what is no UTF-8 it shows by a replacement, byte for byte.
pub(crate) fn string(text: &str, into: &mut Vec<u8>) {
    into.push(b'"');
    match text::to_bytes(text) {
        Cow::Borrowed(bytes) => escaped(bytes, into),
        Cow::Owned(bytes) => {
            for chunk in bytes.utf8_chunks() {
                escaped(chunk.valid().as_bytes(), into);
                chunk.invalid().iter().for_each(|_| into.extend_from_slice(b"\\ufffd"));
            }
        }
    }
    into.push(b'"');
}

/// Appends what is UTF-8.
fn escaped(bytes: &[u8], into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let is_line_end =
            byte == 0xe2 && matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9]));
        let is_special = byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
        if !is_special && !is_line_end {
            continue;
        }
        into.extend_from_slice(&bytes[plain..at]);
        plain = at + if is_line_end { 3 } else { 1 };
        match byte {
            b'"' | b'\\' => into.extend_from_slice(&[b'\\', byte]),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\t' => into.extend_from_slice(b"\\t"),
            _ if is_line_end => {
                into.extend_from_slice(if bytes[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            }
            byte => {
                into.extend_from_slice(b"\\u00");
                into.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    into.extend_from_slice(&bytes[plain..]);
}

/// Appends a number.
pub(crate) fn number(number: impl std::fmt::Display, into: &mut Vec<u8>) {
    write!(into, "{number}").expect("memory takes it");
}

#[cfg(test)]
mod tests {
    /// V2-065, as etcd 3.4.23 shows them.
    #[test]
    fn what_is_no_text_is_replaced_as_in_go() {
        let mut text = Vec::new();
        super::string(&crate::text::of_bytes(b"a\xff<\xe2\x82\xef\xbf\xbd"), &mut text);
        let expected = "\"a\\ufffd\\u003c\\ufffd\\ufffd\u{fffd}\"";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    /// V2-010.
    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut text = Vec::new();
        super::string("a<b>&\u{2028}\u{2029}\"\\\n\r\t\u{1}\u{7f}é\u{20ac}", &mut text);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "\"a\\u003cb\\u003e\\u0026\\u2028\\u2029\\\"\\\\\\n\\r\\t\\u0001\u{7f}é\u{20ac}\""
        );
    }
}
