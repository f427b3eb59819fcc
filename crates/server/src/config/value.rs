//! The kinds of values a flag can have, and how their texts are read.
//!
//! Texts are read as Go's flag package reads them (number prefixes, underscores, boolean words),
//! and refused in its words. The same kinds read environment variables and the scalars of a
//! configuration file.

use super::duration::{GoDuration, parse_duration};
use super::gates::{FeatureGates, GateError};
use crate::logging::Level;
use base::member_url::{MemberUrl, UrlError, join_urls as join};
use base::quote::quote;

/// What a flag's text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Yes or no; the flag alone means yes.
    Bool,
    /// A whole number from 0.
    Unsigned,
    /// A whole number from 0 to 4294967295.
    Unsigned32,
    /// A whole number.
    Signed,
    /// A Go duration.
    Duration,
    /// Any text.
    Text,
    /// URLs separated by commas; an empty text leaves the value as it was.
    Urls,
    /// Origins: URLs or `*`.
    Origins,
    /// Words separated by commas, in the order given.
    Words,
    /// Words separated by commas, sorted, each once.
    WordSet,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Some of these, separated by commas.
    Choices(&'static [&'static str]),
    /// A log level.
    Level,
    /// A list of feature gates.
    Gates,
    /// Accepted with or without a value, and without effect.
    Ignored,
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    /// Nanoseconds.
    Duration(i64),
    Text(String),
    Urls(Vec<MemberUrl>),
    Words(Vec<String>),
    Level(Level),
    Gates(FeatureGates),
    Nothing,
}

/// Why a text is no value of a kind, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a number, a boolean or a duration.
    #[error("parse error")]
    Syntax,
    /// A number, but too large or too small.
    #[error("value out of range")]
    Range,
    /// The same for a 32-bit number, which Go answers in other words.
    #[error("strconv.ParseUint: parsing {}: {why}", quote(.text))]
    Unsigned32 {
        /// The text.
        text: String,
        /// `invalid syntax` or `value out of range`.
        why: &'static str,
    },
    /// None of the words that may stand here.
    #[error("invalid value")]
    Choice,
    /// One word of a list may not stand here.
    #[error("invalid value {}", quote(.0))]
    Choices(String),
    /// No log level.
    #[error("unrecognized level: {}", quote(.0))]
    Level(String),
    /// A URL is wrong.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A feature gate is wrong.
    #[error(transparent)]
    Gate(#[from] GateError),
}

impl Kind {
    /// Whether the flag may stand alone.
    pub(crate) fn stands_alone(self) -> bool {
        matches!(self, Self::Bool | Self::Ignored)
    }

    /// Reads a text. `current` is the value so far: gates add to it, and empty URLs leave it.
    pub(crate) fn read(self, text: &str, current: Option<&Value>) -> Result<Value, ValueError> {
        Ok(match self {
            Self::Bool => Value::Bool(parse_bool(text).ok_or(ValueError::Syntax)?),
            Self::Unsigned => Value::Unsigned(parse_unsigned(text)?),
            Self::Unsigned32 => Value::Unsigned(parse_unsigned32(text)?),
            Self::Signed => Value::Signed(parse_signed(text)?),
            Self::Duration => {
                Value::Duration(parse_duration(text).map_err(|_| ValueError::Syntax)?)
            }
            Self::Text => Value::Text(text.to_owned()),
            Self::Urls if text.is_empty() => {
                current.cloned().unwrap_or_else(|| Value::Urls(Vec::new()))
            }
            Self::Urls => Value::Urls(MemberUrl::parse_list(text)?),
            // No origin at all and `*` both mean every origin.
            Self::Origins if text.is_empty() || text == "*" => Value::Words(vec!["*".to_owned()]),
            Self::Origins => {
                let urls = MemberUrl::parse_list(text)?;
                Value::Words(urls.iter().map(ToString::to_string).collect())
            }
            Self::Words if text.is_empty() => Value::Words(Vec::new()),
            // Only as a default: a list that was given as an empty text has one empty word.
            Self::WordSet if text.is_empty() && current.is_none() => Value::Words(Vec::new()),
            Self::Words => Value::Words(text.split(',').map(str::to_owned).collect()),
            Self::WordSet => {
                let mut words: Vec<_> = text.split(',').map(str::to_owned).collect();
                words.sort();
                words.dedup();
                Value::Words(words)
            }
            Self::Choice(words) if words.contains(&text) => Value::Text(text.to_owned()),
            Self::Choice(_) => return Err(ValueError::Choice),
            Self::Choices(words) => {
                if let Some(wrong) = text.split(',').find(|word| !words.contains(word)) {
                    return Err(ValueError::Choices(wrong.to_owned()));
                }
                Value::Text(text.to_owned())
            }
            Self::Level => {
                Value::Level(Level::parse(text).ok_or_else(|| ValueError::Level(text.to_owned()))?)
            }
            Self::Gates => {
                let mut gates = match current {
                    Some(Value::Gates(gates)) => gates.clone(),
                    _ => FeatureGates::default(),
                };
                gates.apply(text)?;
                Value::Gates(gates)
            }
            Self::Ignored => Value::Nothing,
        })
    }

    /// What may stand here, for the line under an error.
    pub(crate) fn expects(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Unsigned => format!("a whole number from 0 to {}", u64::MAX),
            Self::Unsigned32 => format!("a whole number from 0 to {}", u32::MAX),
            Self::Signed => format!("a whole number from {} to {}", i64::MIN, i64::MAX),
            Self::Duration => "a duration such as 300ms, 10s or 1h30m".to_owned(),
            Self::Text | Self::Words | Self::WordSet | Self::Ignored => "text".to_owned(),
            Self::Urls => "URLs such as http://127.0.0.1:2379, separated by commas".to_owned(),
            Self::Origins => "* or URLs separated by commas".to_owned(),
            Self::Choice(words) | Self::Choices(words) => format!("one of {}", words.join(", ")),
            Self::Level => format!("one of {}", Level::NAMES.join(", ")),
            Self::Gates => "a list such as LeaseCheckpoint=true,AllBeta=false".to_owned(),
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(on) => write!(f, "{on}"),
            Self::Unsigned(number) => write!(f, "{number}"),
            Self::Signed(number) => write!(f, "{number}"),
            Self::Duration(nanoseconds) => {
                write!(f, "{}", GoDuration::from_nanoseconds(*nanoseconds))
            }
            Self::Text(text) => f.write_str(text),
            Self::Urls(urls) => f.write_str(&join(urls)),
            Self::Words(words) => f.write_str(&words.join(",")),
            Self::Level(level) => f.write_str(level.name()),
            Self::Gates(gates) => write!(f, "{gates}"),
            Self::Nothing => Ok(()),
        }
    }
}

/// The words Go takes for yes and no.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_unsigned(text: &str) -> Result<u64, ValueError> {
    let (digits, radix) = digits(text).ok_or(ValueError::Syntax)?;
    u64::from_str_radix(&digits, radix).map_err(|error| number_error(&error))
}

fn parse_signed(text: &str) -> Result<i64, ValueError> {
    let (sign, magnitude) = match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    };
    let (digits, radix) = digits(magnitude).ok_or(ValueError::Syntax)?;
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|error| number_error(&error))
}

fn parse_unsigned32(text: &str) -> Result<u64, ValueError> {
    let fail = |why| ValueError::Unsigned32 { text: text.to_owned(), why };
    let number = parse_unsigned(text).map_err(|error| {
        fail(if error == ValueError::Range { "value out of range" } else { "invalid syntax" })
    })?;
    if number > u64::from(u32::MAX) {
        return Err(fail("value out of range"));
    }
    Ok(number)
}

fn number_error(error: &std::num::ParseIntError) -> ValueError {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    if matches!(error.kind(), PosOverflow | NegOverflow) {
        ValueError::Range
    } else {
        ValueError::Syntax
    }
}

/// Digits and radix of a Go integer literal: `0x1f`, `0o17`, `017`, `0b11`, `1_000`.
fn digits(text: &str) -> Option<(String, u32)> {
    let lower = text.to_ascii_lowercase();
    let (radix, rest) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // An underscore stands between two digits, or after the prefix, and nowhere else.
    let misplaced =
        rest.ends_with('_') || rest.contains("__") || (radix == 10 && rest.starts_with('_'));
    let digits = rest.replace('_', "");
    let all_digits = digits.chars().all(|c| c.is_digit(radix));
    (!digits.is_empty() && !misplaced && all_digits).then_some((digits, radix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_literals() {
        for (text, number) in [("0x10", 16), ("1_000", 1000), ("017", 15), ("0b11", 3), ("0", 0)] {
            assert_eq!(Kind::Unsigned.read(text, None), Ok(Value::Unsigned(number)));
        }
        assert_eq!(Kind::Signed.read("-5", None), Ok(Value::Signed(-5)));
        for text in ["", "abc", "-1", "1.5", "_1", "1__0", "+1"] {
            assert_eq!(Kind::Unsigned.read(text, None), Err(ValueError::Syntax), "{text}");
        }
        let huge = "99999999999999999999999";
        assert_eq!(Kind::Unsigned.read(huge, None), Err(ValueError::Range));
    }

    #[test]
    fn thirty_two_bit_numbers_fail_in_their_own_words() {
        for (text, error) in [
            ("-1", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
            ("99999999999", "strconv.ParseUint: parsing \"99999999999\": value out of range"),
        ] {
            assert_eq!(Kind::Unsigned32.read(text, None).unwrap_err().to_string(), error);
        }
    }
}
