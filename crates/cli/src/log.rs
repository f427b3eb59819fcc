//! The few lines that the tools log on standard error, one JSON object each.
//!
//! etcd: `client/pkg/logutil`, zap's production encoder.

use std::fmt::Write as _;

use crate::json::GoJson;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Probably not meant so.
    Warn,
    /// The program ends.
    Fatal,
}

/// One line: level, time, message, then the fields in order.
#[must_use]
pub fn line(level: Level, message: &str, fields: &[(&str, &str)]) -> String {
    let level = match level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Fatal => "fatal",
    };
    let mut out = format!("{{\"level\":\"{level}\",\"ts\":\"{}\",\"msg\":", now());
    message.write(&mut out);
    for (name, value) in fields {
        write!(out, ",\"{name}\":").expect("writing to a string");
        value.write(&mut out);
    }
    out.push('}');
    out
}

/// The time in UTC, to the microsecond.
fn now() -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
    );
    time::OffsetDateTime::now_utc().format(FORMAT).expect("the format needs nothing but UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_one_object() {
        let line = line(Level::Warn, "odd", &[("name", "a\"b")]);
        assert!(line.starts_with(r#"{"level":"warn","ts":"2"#), "{line}");
        assert!(line.ends_with(r#"Z","msg":"odd","name":"a\"b"}"#), "{line}");
    }
}
