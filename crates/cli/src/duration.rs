//! Durations as Go's `time.Duration` reads and prints them.

use std::time::Duration;

use crate::quote::quote;

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number where one must be, or too large.
    #[error("time: invalid duration {}", quote(text.as_bytes()))]
    Invalid {
        /// The whole text.
        text: String,
    },
    /// A number without a unit.
    #[error("time: missing unit in duration {}", quote(text.as_bytes()))]
    MissingUnit {
        /// The whole text.
        text: String,
    },
    /// A unit that does not exist.
    #[error("time: unknown unit {} in duration {}", quote(unit.as_bytes()), quote(text.as_bytes()))]
    UnknownUnit {
        /// What stands for the unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Reads `1h30m`, `1.5s`, `100ms`, `0`. Negative durations become zero: every use here is a limit.
///
/// # Errors
///
/// See [`DurationError`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid { text: text.to_owned() };
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanoseconds = 0_u128;
    while !rest.is_empty() {
        let number_len = span(rest, |c| c.is_ascii_digit() || c == '.');
        let (number, after) = rest.split_at(number_len);
        let unit_len = span(after, |c| c != '.' && !c.is_ascii_digit());
        let (unit, after) = after.split_at(unit_len);
        let count = Decimal::parse(number).ok_or_else(invalid)?;
        if unit.is_empty() {
            return Err(DurationError::MissingUnit { text: text.to_owned() });
        }
        let scale = unit_nanoseconds(unit).ok_or_else(|| DurationError::UnknownUnit {
            unit: unit.to_owned(),
            text: text.to_owned(),
        })?;
        nanoseconds = nanoseconds.checked_add(count.times(scale)).ok_or_else(invalid)?;
        rest = after;
    }
    let nanoseconds = i64::try_from(nanoseconds).ok().and_then(|value| u64::try_from(value).ok());
    let nanoseconds = nanoseconds.ok_or_else(invalid)?;
    Ok(if negative { Duration::ZERO } else { Duration::from_nanos(nanoseconds) })
}

fn span(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn unit_nanoseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A number with digits behind a point: `whole + fraction / 10^digits`.
struct Decimal {
    whole: u64,
    fraction: u64,
    scale: u64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        // Digits below a nanosecond of the largest unit do not matter.
        let fraction = &fraction[..fraction.len().min(15)];
        let digits = u32::try_from(fraction.len()).ok()?;
        let fraction = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        Some(Self { whole, fraction, scale: 10_u64.pow(digits) })
    }

    fn times(&self, unit: u64) -> u128 {
        u128::from(self.whole) * u128::from(unit)
            + u128::from(self.fraction) * u128::from(unit) / u128::from(self.scale)
    }
}

/// Prints `1h0m5s`, `1.5s`, `2.007416ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanoseconds, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanoseconds, 1_000_000)),
        _ => {
            let minutes = nanoseconds / 60_000_000_000;
            let seconds = decimal(nanoseconds % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` with as many digits as it takes. `unit` is a power of ten.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{fraction:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse(".5s"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        assert_eq!(parse("5").unwrap_err().to_string(), r#"time: missing unit in duration "5""#);
        assert_eq!(
            parse("5x").unwrap_err().to_string(),
            r#"time: unknown unit "x" in duration "5x""#
        );
        assert_eq!(parse("abc").unwrap_err().to_string(), r#"time: invalid duration "abc""#);
    }

    #[test]
    fn prints_what_go_prints() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (2_007_416, "2.007416ms"),
            (1_500, "1.5µs"),
            (5_000_000_000, "5s"),
            (60_000_000_000, "1m0s"),
            (3_605_500_000_000, "1h0m5.5s"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanoseconds)), text);
        }
    }
}
