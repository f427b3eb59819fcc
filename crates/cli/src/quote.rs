//! Strings as Go's `%q` and `strconv` quote and read them.

use std::fmt::Write as _;

/// Puts bytes between double quotes, escaping what cannot be printed. Bytes that are not UTF-8
/// become `\xNN`.
#[must_use]
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_escaped(&mut out, character, '"');
        }
        for byte in chunk.invalid() {
            push_hex(&mut out, *byte);
        }
    }
    out.push('"');
    out
}

/// Puts one character between single quotes.
#[must_use]
pub fn quote_char(character: char) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, character, '\'');
    out.push('\'');
    out
}

fn push_hex(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a string");
}

fn push_escaped(out: &mut String, character: char, delimiter: char) {
    match character {
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        _ if character == delimiter => {
            out.push('\\');
            out.push(character);
        }
        ' '..='~' => out.push(character),
        _ if is_printable(character) => out.push(character),
        _ => push_code(out, character),
    }
}

fn push_code(out: &mut String, character: char) {
    let code = u32::from(character);
    let written = match code {
        0..=0x7f => write!(out, "\\x{code:02x}"),
        0x80..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
    written.expect("writing to a string");
}

/// Close to Go's table of printable characters: no controls, no spaces but the plain one, no
/// format, private, or unassigned characters of the planes that are all of one kind.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !character.is_whitespace()
        && !matches!(character,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
            | '\u{fffe}'..='\u{ffff}' | '\u{e000}'..='\u{f8ff}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

/// Reads a string in double quotes or back quotes from the start of `text`, the way Go's `Sscanf`
/// does for `%q`. Returns the bytes and what follows the closing quote.
#[must_use]
pub fn unquote_prefix(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (inside, rest) = raw.split_once('`')?;
        return Some((inside.as_bytes().to_vec(), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut out = Vec::new();
    loop {
        let character = rest.chars().next()?;
        let after = &rest[character.len_utf8()..];
        match character {
            '"' => return Some((out, after)),
            '\n' => return None,
            '\\' => rest = unescape(after, &mut out)?,
            _ => {
                out.extend_from_slice(&rest.as_bytes()[..character.len_utf8()]);
                rest = after;
            }
        }
    }
}

/// Reads what follows a backslash and returns what follows that.
fn unescape<'a>(text: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let kind = text.chars().next()?;
    let rest = &text[kind.len_utf8()..];
    let simple = match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        '"' => b'"',
        'x' => {
            out.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
            return rest.get(2..);
        }
        '0'..='7' => {
            out.push(u8::from_str_radix(text.get(..3)?, 8).ok()?);
            return text.get(3..);
        }
        'u' | 'U' => {
            let len = if kind == 'u' { 4 } else { 8 };
            let code = u32::from_str_radix(rest.get(..len)?, 16).ok()?;
            let mut buffer = [0; 4];
            out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut buffer).as_bytes());
            return rest.get(len..);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

/// Bytes as `\x6e\x61…`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 4);
    for byte in bytes {
        push_hex(&mut out, *byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTL3-21.
    #[test]
    fn unprintable_bytes_are_escaped() {
        assert_eq!(quote(b"a\"b\\\n\x01\x7f\xff"), r#""a\"b\\\n\x01\x7f\xff""#);
        assert_eq!(quote("é\u{a0}😀".as_bytes()), "\"é\\u00a0😀\"");
    }

    #[test]
    fn reading_undoes_quoting() {
        for bytes in [&b"a b"[..], b"\"\\\n\t\x00\xff", "é😀\u{a0}".as_bytes()] {
            let text = quote(bytes) + " rest";
            assert_eq!(unquote_prefix(&text), Some((bytes.to_vec(), " rest")));
        }
    }

    #[test]
    fn unfinished_quotes_are_not_read() {
        for text in ["\"abc", "abc", "\"\\q\"", "\"\\x1\""] {
            assert_eq!(unquote_prefix(text), None, "{text}");
        }
    }

    /// CTL3-13.
    #[test]
    fn hex_has_a_prefix_per_byte() {
        assert_eq!(hex(b"na"), r"\x6e\x61");
    }
}
