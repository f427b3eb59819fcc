//! Texts of Go, which may hold any bytes, as texts that are UTF-8.
//!
//! Keys and values of the second generation are whatever bytes a client sends; two keys that differ
//! in a byte that is no UTF-8 are two keys, though both are shown with U+FFFD there. Here such a byte
//! stands as a character of its own, [`FIRST`] and above, and so do the bytes of whoever writes those
//! characters: nothing is lost either way, and all other texts are what they were.
//!
//! Source: Go's encoding/json (what is shown), by experiment with etcd v3.4.23.

use std::borrow::Cow;

/// Stands for byte 0; only those from 0x80 on are ever needed. At the very end of the private use
/// planes.
const FIRST: u32 = 0x10_ff00;

/// How the UTF-8 of all characters begins that stand for bytes.
const LEAD: [u8; 2] = [0xf4, 0x8f];

/// The byte that a character stands for.
fn byte_of(character: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(character).checked_sub(FIRST)?).ok()?;
    (0x80 <= byte).then_some(byte)
}

fn push(byte: u8, into: &mut String) {
    into.push(char::from_u32(FIRST + u32::from(byte)).expect("the last ones are characters"));
}

/// The text of these bytes.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        if valid.as_bytes().windows(2).any(|pair| pair == LEAD) {
            for character in valid.chars() {
                match byte_of(character) {
                    Some(_) => {
                        let mut bytes = [0; 4];
                        character.encode_utf8(&mut bytes);
                        bytes.iter().for_each(|byte| push(*byte, &mut text));
                    }
                    None => text.push(character),
                }
            }
        } else {
            text.push_str(valid);
        }
        chunk.invalid().iter().for_each(|byte| push(*byte, &mut text));
    }
    text
}

/// The bytes of a text that [`of_bytes`] made, or of any other one without such characters.
#[must_use]
pub fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.as_bytes().windows(2).any(|pair| pair == LEAD) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-065.
    #[test]
    fn any_bytes_are_a_text_and_back() {
        let odd = ["\u{10ff7f}", "\u{10ff80}", "\u{10ffff}", "\u{10ffff}\u{fffd}"];
        let odd = odd.iter().map(|text| text.as_bytes().to_vec());
        let bytes = [&b"plain"[..], b"", "é\u{20ac}\u{fffd}".as_bytes(), b"a\xffb", b"\xe2\x82x"];
        let mut texts: Vec<String> = Vec::new();
        for bytes in bytes.iter().map(|bytes| bytes.to_vec()).chain(odd) {
            let text = of_bytes(&bytes);
            assert_eq!(to_bytes(&text), bytes);
            texts.push(text);
        }
        assert_eq!(texts[..3], ["plain", "", "é\u{20ac}\u{fffd}"]);
        for byte in 0..=255 {
            let text = of_bytes(&[b'x', byte]);
            assert_eq!(to_bytes(&text), &[b'x', byte][..]);
            assert!(!texts.contains(&text));
        }
    }
}
