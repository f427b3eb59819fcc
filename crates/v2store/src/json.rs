//! JSON strings as Go's encoder writes them.

/// Appends the string with its quotes. Beyond what JSON demands Go escapes what browsers might take
/// for markup or line ends.
pub(crate) fn string(text: &str, into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    into.push(b'"');
    let bytes = text.as_bytes();
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
    into.push(b'"');
}

/// Appends a number.
pub(crate) fn number(number: impl std::fmt::Display, into: &mut Vec<u8>) {
    into.extend_from_slice(number.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
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
