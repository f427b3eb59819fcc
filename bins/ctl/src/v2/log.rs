//! Lines with a time in front, on standard error: what the original's logger writes.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");

/// Writes a line.
pub(super) fn line(text: &str) {
    eprintln!("{}", stamped(text));
}

/// A line as [`line`] writes it, without its end.
pub(super) fn stamped(text: &str) -> String {
    let now = OffsetDateTime::now_utc().format(TIME).expect("the format needs nothing but UTC");
    format!("{now} I | {text}")
}
