//! A panic as a line of the log: a broken invariant must be found by those who read only that.
//!
//! The panicking thread may hold the log's locks. Nothing here waits for them: if they are held,
//! the line goes to standard error alone.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::panic::PanicHookInfo;

use super::record::{Record, caller};
use super::{Format, LOG, Level};

/// Makes every panic from now on a line of level `panic`.
pub(super) fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        let record = record_of(info);
        let written = LOG.get().is_some_and(|log| log.try_write(&record));
        if !written {
            let line = Format::Json.line(&record);
            // Nothing is left to tell it to.
            drop(std::io::stderr().write_all(line.as_bytes()));
        }
    }));
}

pub(super) fn record_of(info: &PanicHookInfo<'_>) -> Record {
    let place = info.location();
    let text = info.payload_as_str().unwrap_or("a panic without text");
    let mut fields = vec![("error".to_owned(), text.into())];
    if let Some(name) = std::thread::current().name() {
        fields.push(("thread".to_owned(), name.into()));
    }
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        fields.push(("stacktrace".to_owned(), trace.to_string().into()));
    }
    Record {
        level: Level::Panic,
        time: std::time::SystemTime::now(),
        logger: None,
        caller: place.map_or_else(|| "unknown:0".to_owned(), |at| caller(at.file(), at.line())),
        message: "a rule of the program itself was broken".to_owned(),
        fields,
    }
}
