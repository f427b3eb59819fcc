//! JSON as Go's encoder writes it: the stored bytes of members must be equal on every member,
//! whoever wrote them.
//!
//! It differs from serde_json's only inside strings, where Go also escapes what browsers might
//! take for markup or line ends.

use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// The compact form.
pub(crate) fn encode(value: &impl Serialize) -> Bytes {
    let mut bytes = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, GoFormatter))
        .expect("plain structs of strings and numbers encode into memory");
    bytes.into()
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            let escaped = special.chars().next().expect("found above");
            write!(writer, "{plain}\\u{:04x}", u32::from(escaped))?;
            rest = &special[escaped.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        let text = "a<b>&\u{2028}\"\\\n\u{1}\u{8}é";
        assert_eq!(
            &encode(&text)[..],
            "\"a\\u003cb\\u003e\\u0026\\u2028\\\"\\\\\\n\\u0001\\bé\"".as_bytes()
        );
    }
}
