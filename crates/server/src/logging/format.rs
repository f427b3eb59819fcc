//! The two forms of a line: JSON, and columns for people.

use std::time::SystemTime;

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::record::Record;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Time, level, caller and message separated by tabs, then the fields as JSON.
    Console,
}

impl Format {
    /// The form of that name; no name is JSON.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "" | "json" => Some(Self::Json),
            "console" => Some(Self::Console),
            _ => None,
        }
    }

    /// The line of a record, with its line end.
    pub(super) fn line(self, record: &Record) -> String {
        match self {
            Self::Json => json(record),
            Self::Console => console(record),
        }
    }
}

fn json(record: &Record) -> String {
    let mut line = String::with_capacity(256);
    line.push('{');
    member(&mut line, "level", &record.level.name().into());
    member(&mut line, "ts", &timestamp(record.time).into());
    if let Some(logger) = &record.logger {
        member(&mut line, "logger", &logger.as_str().into());
    }
    member(&mut line, "caller", &record.caller.as_str().into());
    member(&mut line, "msg", &record.message.as_str().into());
    for (name, value) in &record.fields {
        member(&mut line, name, value);
    }
    line.push_str("}\n");
    line
}

fn member(line: &mut String, name: &str, value: &Value) {
    if !line.ends_with('{') || line.len() > 1 {
        line.push(',');
    }
    line.push_str(&Value::from(name).to_string());
    line.push(':');
    line.push_str(&value.to_string());
}

fn console(record: &Record) -> String {
    let mut columns = vec![timestamp(record.time), record.level.name().to_owned()];
    columns.extend(record.logger.clone());
    columns.push(record.caller.clone());
    columns.push(record.message.clone());
    if !record.fields.is_empty() {
        let fields: Map<_, _> = record.fields.iter().cloned().collect();
        columns.push(spaced(&Value::Object(fields)));
    }
    let mut line = columns.join("\t");
    line.push('\n');
    line
}

/// JSON with a blank after colons and commas, as zap's console form has it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), spaced(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(spaced).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// `2026-01-02T15:04:05.000000Z`.
pub(super) fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    )
}
