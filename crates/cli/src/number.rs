//! Numbers as Go's `strconv` reads them, with its error texts.

use std::num::IntErrorKind;

use crate::quote::quote;

/// A text that is not a number of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strconv.{function}: parsing {}: {reason}", quote(text.as_bytes()))]
pub struct NumberError {
    function: &'static str,
    text: String,
    reason: &'static str,
}

const SYNTAX: &str = "invalid syntax";
const RANGE: &str = "value out of range";

/// Reads a signed number. Radix 0 takes it from the prefix (`0x`, `0o`, `0b`, `0`) and allows
/// underscores between digits.
///
/// # Errors
///
/// Not a number, or too large.
pub fn parse_int(text: &str, radix: u32) -> Result<i64, NumberError> {
    let error = |reason| NumberError { function: "ParseInt", text: text.to_owned(), reason };
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = parse_magnitude(digits, radix).map_err(error)?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(value).map_err(|_| error(RANGE))
}

/// Reads an unsigned number; radix as for [`parse_int`].
///
/// # Errors
///
/// Not a number, or too large.
pub fn parse_uint(text: &str, radix: u32) -> Result<u64, NumberError> {
    let error = |reason| NumberError { function: "ParseUint", text: text.to_owned(), reason };
    parse_magnitude(text, radix).map_err(error)
}

/// As [`parse_uint`], for a number of four bytes.
///
/// # Errors
///
/// Not a number, or too large.
pub fn parse_uint32(text: &str, radix: u32) -> Result<u64, NumberError> {
    let value = parse_uint(text, radix)?;
    let error = |_| NumberError { function: "ParseUint", text: text.to_owned(), reason: RANGE };
    u32::try_from(value).map(u64::from).map_err(error)
}

/// Reads a truth value.
///
/// # Errors
///
/// None of Go's twelve spellings.
pub fn parse_bool(text: &str) -> Result<bool, NumberError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(NumberError { function: "ParseBool", text: text.to_owned(), reason: SYNTAX }),
    }
}

fn parse_magnitude(text: &str, radix: u32) -> Result<u64, &'static str> {
    if radix != 0 {
        return parse_digits(text, radix);
    }
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.ends_with('_') || digits.contains("__") || (radix == 10 && digits.starts_with('_')) {
        return Err(SYNTAX);
    }
    parse_digits(&digits.replace('_', ""), radix)
}

fn parse_digits(digits: &str, radix: u32) -> Result<u64, &'static str> {
    // The standard library accepts a sign here, Go does not.
    if digits.starts_with(['+', '-']) {
        return Err(SYNTAX);
    }
    u64::from_str_radix(digits, radix)
        .map_err(|error| if *error.kind() == IntErrorKind::PosOverflow { RANGE } else { SYNTAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTL3-50.
    #[test]
    fn error_text_is_gos() {
        assert_eq!(
            parse_int("abc", 10).unwrap_err().to_string(),
            r#"strconv.ParseInt: parsing "abc": invalid syntax"#
        );
        assert_eq!(
            parse_int("ffffffffffffffff", 16).unwrap_err().to_string(),
            r#"strconv.ParseInt: parsing "ffffffffffffffff": value out of range"#
        );
        assert_eq!(
            parse_uint("-1", 0).unwrap_err().to_string(),
            r#"strconv.ParseUint: parsing "-1": invalid syntax"#
        );
    }

    #[test]
    fn radix_zero_reads_the_prefix() {
        assert_eq!(parse_int("0x10", 0), Ok(16));
        assert_eq!(parse_int("010", 0), Ok(8));
        assert_eq!(parse_int("-1_000", 0), Ok(-1000));
        assert_eq!(parse_int("0", 0), Ok(0));
        assert_eq!(parse_int("-9223372036854775808", 0), Ok(i64::MIN));
        assert!(parse_int("", 0).is_err());
        assert!(parse_int("1__0", 0).is_err());
    }
}
