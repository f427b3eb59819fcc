//! An event taken apart: level, time, place, message and fields.
//!
//! `tracing` hands over lists and maps as formatted text only. [`List`] and [`Spread`] therefore
//! tell this module through a thread-local mark that their text is JSON; text that merely looks
//! like JSON, such as a client's, is never taken for it.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::Event;
use tracing::field::{Field, Visit};

use super::NAMED;
use super::level::Level;

/// The name of the field that a [`Spread`] is given under.
const SPREAD: &str = "spread";

/// A line before it is written.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) level: Level,
    pub(super) time: SystemTime,
    /// For parts that have a name in the log, such as `raft`.
    pub(super) logger: Option<String>,
    /// Folder, file and line.
    pub(super) caller: String,
    pub(super) message: String,
    pub(super) fields: Vec<(String, Value)>,
}

impl Record {
    pub(super) fn of(event: &Event<'_>, time: SystemTime) -> Self {
        let metadata = event.metadata();
        let mut record = Self {
            level: Level::of(metadata),
            time,
            logger: metadata.target().strip_prefix(NAMED).map(str::to_owned),
            caller: caller(metadata.file().unwrap_or("unknown"), metadata.line().unwrap_or(0)),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut record);
        record
    }

    fn push(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.push((field.name().to_owned(), value.into()));
    }
}

impl Visit for Record {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.push(field, Chain(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        IS_JSON.set(false);
        let text = format!("{value:?}");
        let json = if IS_JSON.replace(false) { serde_json::from_str(&text).ok() } else { None };
        match (field.name(), json) {
            ("message", _) => self.message = text,
            (SPREAD, Some(Value::Object(members))) => self.fields.extend(members),
            (_, Some(json)) => self.push(field, json),
            (_, None) => self.push(field, text),
        }
    }
}

/// The last folder and the file, as in `server/start.rs:12`. A crate's `src` folder says nothing:
/// the folder above it stands for it.
pub(super) fn caller(file: &str, line: u32) -> String {
    let mut parts = file.rsplit(['/', '\\']);
    let name = parts.next().unwrap_or_default();
    let folder = match parts.next() {
        Some("src") => parts.next(),
        other => other,
    };
    match folder {
        Some(folder) => format!("{folder}/{name}:{line}"),
        None => format!("{name}:{line}"),
    }
}

thread_local! {
    /// Set by a value of ours while it is formatted: its text is JSON.
    static IS_JSON: Cell<bool> = const { Cell::new(false) };
}

/// An array in a log line: `urls = ?List::of(&urls)`.
pub struct List(Vec<Value>);

impl List {
    /// The items' texts.
    pub fn of<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().map(|item| Value::from(item.to_string())).collect())
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IS_JSON.set(true);
        write!(f, "{}", Value::from(self.0.clone()))
    }
}

/// Fields that are not known when the program is written: `spread = ?Spread::new(fields)`.
pub struct Spread(Map<String, Value>);

impl Spread {
    /// Fields in order; of two of one name the later one counts.
    pub fn new<N: Into<String>>(fields: impl IntoIterator<Item = (N, Value)>) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IS_JSON.set(true);
        write!(f, "{}", Value::Object(self.0.clone()))
    }
}

/// An error with its causes, separated by colons: `error = %Chain(&error)`.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_is_the_last_folder_and_the_file() {
        for (file, expected) in [
            ("crates/server/src/start.rs", "server/start.rs:12"),
            ("crates/server/src/config/file.rs", "config/file.rs:12"),
            ("src/start.rs", "start.rs:12"),
            ("build.rs", "build.rs:12"),
        ] {
            assert_eq!(caller(file, 12), expected);
        }
    }
}
