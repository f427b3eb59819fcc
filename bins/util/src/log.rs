//! What is logged on standard error: columns between tabs, fields as JSON.
//!
//! etcd: `etcdutl/etcdutl/common.go`, zap's console encoder.

use std::fmt::Write as _;
use std::panic::Location;

use serde_json::Value;

/// A line that tells what is done.
#[track_caller]
pub(crate) fn info(message: &str, fields: &[(&str, Value)]) {
    eprintln!("{}", line("info", Location::caller(), message, fields));
}

/// A line that tells of something that should not be done often.
#[track_caller]
pub(crate) fn warn(message: &str, fields: &[(&str, Value)]) {
    eprintln!("{}", line("warn", Location::caller(), message, fields));
}

/// A line that tells why nothing was done.
#[track_caller]
pub(crate) fn error(message: &str, fields: &[(&str, Value)]) {
    eprintln!("{}", line("error", Location::caller(), message, fields));
}

fn line(level: &str, caller: &Location<'_>, message: &str, fields: &[(&str, Value)]) -> String {
    // Folder and file, as Go names places.
    let mut parts = caller.file().rsplitn(3, '/');
    let file = parts.next().unwrap_or_default();
    let folder = parts.next().unwrap_or_default();
    let mut out = format!("{}\t{level}\t{folder}/{file}:{}\t{message}", now(), caller.line());
    for (position, (name, value)) in fields.iter().enumerate() {
        out.push_str(if position == 0 { "\t{" } else { ", " });
        write!(out, "\"{name}\": ").expect("writing to a string");
        write_value(&mut out, value);
    }
    if !fields.is_empty() {
        out.push('}');
    }
    out
}

/// Lists have a space behind their commas; serde's do not.
fn write_value(out: &mut String, value: &Value) {
    let Value::Array(items) = value else {
        return write!(out, "{value}").expect("writing to a string");
    };
    out.push('[');
    for (position, item) in items.iter().enumerate() {
        out.push_str(if position == 0 { "" } else { ", " });
        write_value(out, item);
    }
    out.push(']');
}

/// The time in UTC, to the second.
fn now() -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time::OffsetDateTime::now_utc().format(FORMAT).expect("the format needs nothing but UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Process contract, section 5.
    #[test]
    fn columns_are_between_tabs_and_fields_have_spaces() {
        let fields = [("id", Value::from("a\"b")), ("urls", Value::from(vec!["u", "v"]))];
        let line = line("info", Location::caller(), "added member", &fields);
        let (time, rest) = line.split_once('\t').unwrap();
        assert_eq!(time.len(), "2026-11-20T12:11:58Z".len());
        let rest = rest.strip_prefix("info\tsrc/log.rs:").unwrap();
        let (_, rest) = rest.split_once('\t').unwrap();
        assert_eq!(rest, "added member\t{\"id\": \"a\\\"b\", \"urls\": [\"u\", \"v\"]}");
    }
}
