//! Go's way of quoting a string in messages about flags and addresses, which scripts match.
//!
//! Not a general escaper: only what messages need.

/// Quotes `text` as Go's `%q` does: double quotes, `\n \t \r \" \\`, other control characters as
/// `\x00`; printable text outside ASCII stays as it is.
#[must_use]
pub fn quote(text: &str) -> String {
    use std::fmt::Write as _;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                write!(quoted, "\\x{:02x}", u32::from(control)).expect("a String takes any text");
            }
            printable => quoted.push(printable),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(quote("a\"b\\\n\u{1}é"), "\"a\\\"b\\\\\\n\\x01é\"");
    }
}
