//! Moments: nanoseconds since 1970 as etcd's requests carry them, and their text.
//!
//! Source: Go's `time.RFC3339Nano`; etcd v3.4.23 etcdserver/api/v2store/node.go (what is left).

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds since 1970, in UTC.
pub type Nanos = i64;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// 2000-01-01: what would end before was never meant to end.
const EARLIEST: Nanos = 946_684_800 * NANOS_PER_SECOND;

/// The expiry of what never expires, as Go writes it.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// When a new node ends: the distant past means never.
pub(crate) fn of_new_node(expires: Option<Nanos>) -> Option<Nanos> {
    expires.filter(|expires| EARLIEST <= *expires)
}

/// Whole seconds left, rounded up; zero and less once the moment is past.
pub(crate) fn seconds_left(expires: Nanos, now: Nanos) -> i64 {
    let left = expires.saturating_sub(now);
    left / NANOS_PER_SECOND + i64::from(left % NANOS_PER_SECOND > 0)
}

/// The moment as Go writes it in UTC.
pub(crate) fn to_text(moment: Nanos) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(moment.into())
        .expect("292 years around 1970 are dates");
    moment.format(&Rfc3339).expect("a date of four digits in UTC has this form")
}

/// Reads a moment with any offset; outer `None` if it is none, inner if it is [`NEVER`] or further
/// from 1970 than nanoseconds can say.
#[expect(clippy::option_option, reason = "two kinds of nothing that must not be mixed up")]
pub(crate) fn from_text(text: &str) -> Option<Option<Nanos>> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(i64::try_from(moment.unix_timestamp_nanos()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-044.
    #[test]
    fn what_is_left_is_rounded_up() {
        for (left, expected) in [
            (10 * NANOS_PER_SECOND, 10),
            (9 * NANOS_PER_SECOND + 1, 10),
            (1, 1),
            (0, 0),
            (-1, 0),
            (-NANOS_PER_SECOND / 2, 0),
            (-NANOS_PER_SECOND * 3 / 2, -1),
        ] {
            assert_eq!(seconds_left(EARLIEST + left, EARLIEST), expected, "{left}");
        }
    }

    /// V2-044: zeros at the end of the fraction are left out.
    #[test]
    fn moments_are_written_as_go_does() {
        assert_eq!(to_text(EARLIEST), "2000-01-01T00:00:00Z");
        assert_eq!(to_text(EARLIEST + 120_000_000), "2000-01-01T00:00:00.12Z");
        assert_eq!(to_text(EARLIEST + 1), "2000-01-01T00:00:00.000000001Z");
        assert_eq!(from_text("2000-01-01T01:00:00.12+01:00"), Some(Some(EARLIEST + 120_000_000)));
        assert_eq!(from_text(NEVER), Some(None));
        assert_eq!(from_text("yesterday"), None);
    }
}
