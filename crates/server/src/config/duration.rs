//! Durations as Go writes and reads them: `1h0m0s`, `100ms`, `1.5s`.
//!
//! Flags, log fields and answers use this form. A duration is a signed number of nanoseconds
//! here, as in Go, because a flag may be given a negative one and must be answered in kind.
//! Source: the grammar and texts of Go's `time.ParseDuration` and `Duration.String`.

use std::fmt;
use std::time::Duration;

use base::quote::quote;

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000 * MICROSECOND;
const SECOND: i64 = 1_000 * MILLISECOND;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Why a text is no duration, in Go's wording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No digits, or more than 292 years.
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    /// A number without a unit, such as `5`.
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    /// A unit that is none of ns, us, ms, s, m, h.
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Reads a Go duration into nanoseconds.
///
/// # Errors
///
/// [`DurationError`] with the text that was not understood.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole = digits(rest);
        rest = &rest[whole.len()..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            fraction = digits(after);
            rest = &after[fraction.len()..];
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_len = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(unit_len);
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let scale = scale(unit).ok_or_else(|| DurationError::UnknownUnit {
            unit: unit.to_owned(),
            text: text.to_owned(),
        })?;
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total += i128::from(whole) * i128::from(scale) + fraction_of(fraction, scale);
        rest = after;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).map_err(|_| invalid())
}

/// A duration that prints in Go's form, for messages and log fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(i64);

impl GoDuration {
    /// From nanoseconds.
    #[must_use]
    pub fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self(nanoseconds)
    }
}

impl From<Duration> for GoDuration {
    /// Longer than 292 years becomes 292 years, the longest Go knows.
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let nanoseconds = self.0.unsigned_abs();
        for (unit, name) in [(MICROSECOND, "ns"), (MILLISECOND, "µs"), (SECOND, "ms")] {
            if nanoseconds < unit.unsigned_abs() {
                return write_scaled(f, nanoseconds, unit.unsigned_abs() / 1_000, name);
            }
        }
        let hours = nanoseconds / HOUR.unsigned_abs();
        let minutes = nanoseconds % HOUR.unsigned_abs() / MINUTE.unsigned_abs();
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write_scaled(f, nanoseconds % MINUTE.unsigned_abs(), SECOND.unsigned_abs(), "s")
    }
}

/// Writes `value / unit` with as many decimals as it has, and the unit's name.
fn write_scaled(f: &mut fmt::Formatter<'_>, value: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", value / unit)?;
    let remainder = value % unit;
    if remainder > 0 {
        let width = unit.ilog10() as usize;
        let decimals = format!("{remainder:0width$}");
        write!(f, ".{}", decimals.trim_end_matches('0'))?;
    }
    f.write_str(name)
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

/// The nanoseconds of `.fraction` of a unit; digits beyond a nanosecond are dropped.
fn fraction_of(fraction: &str, scale: i64) -> i128 {
    let kept = &fraction[..fraction.len().min(18)];
    let Ok(number) = kept.parse::<i128>() else {
        return 0;
    };
    let divisor = 10_i128.pow(u32::try_from(kept.len()).expect("at most 18 digits are kept"));
    number * i128::from(scale) / divisor
}

fn scale(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (7_200_000_000_000, "2h0m0s"),
            (-60_000_000_000, "-1m0s"),
        ] {
            assert_eq!(GoDuration::from_nanoseconds(nanoseconds).to_string(), text);
            assert_eq!(parse_duration(text), Ok(nanoseconds));
        }
    }

    /// What is printed is read back, for durations of every size and sign.
    #[test]
    fn printing_and_reading_are_inverse() {
        let mut state: u64 = 1;
        for round in 0..10_000 {
            // A linear congruential sequence, cut to every length in turn.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let nanoseconds = state.cast_signed() >> (round % 64);
            let text = GoDuration::from_nanoseconds(nanoseconds).to_string();
            assert_eq!(parse_duration(&text), Ok(nanoseconds), "{text}");
        }
    }

    /// Process contract, section 3.
    #[test]
    fn durations_are_read_as_in_go() {
        assert_eq!(parse_duration("1µs"), Ok(1_000));
        assert_eq!(parse_duration("1h0m0s"), Ok(HOUR));
        assert_eq!(parse_duration("+.5s"), Ok(500 * MILLISECOND));
        assert_eq!(parse_duration("0"), Ok(0));
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("-1", "time: missing unit in duration \"-1\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            (".s", "time: invalid duration \".s\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), error);
        }
    }
}
