//! The log: one line per event, in the form etcd's tools read.
//!
//! Code says what happened with the macros of `tracing`; this module writes it down. It is the
//! only place that writes to stderr or stdout after the command line was read.
//!
//! - Every line has `level`, `ts`, `caller` and `msg`, in this order, then the event's fields in
//!   the order they were given.
//! - Numbers and booleans stay numbers and booleans; a [`List`] becomes an array; a
//!   [`Spread`] becomes fields of the line; everything else becomes text.
//! - The level can be changed while the program runs.
//! - Lines of other people's crates are only written from `warn` upwards.
//!
//! Source: process contract, section 4; etcd client/pkg/logutil/zap.go (keys, time format).

mod compress;
mod format;
mod journal;
mod level;
mod output;
mod panic;
mod record;
mod rotate;

use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::SystemTime;

use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

pub use format::Format;
pub use level::Level;
pub use output::{OpenError, Output};
pub use record::{Chain, List, Spread};
pub use rotate::{Rotation, RotationError};

use level::CurrentLevel;
use output::Sink;
use record::Record;

/// The target of an event that ends the program: its line has the level `fatal`.
pub const FATAL: &str = "fatal";

/// Before a target, to give the line a `logger` field: `target: "logger:raft"`.
const NAMED: &str = "logger:";

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The least important lines to write.
    pub level: Level,
    /// The form of a line.
    pub format: Format,
    /// Where to.
    pub outputs: Vec<Output>,
    /// When the file among the outputs is exchanged for a new one; `None` for never.
    pub rotation: Option<Rotation>,
}

impl Default for Settings {
    /// Before anything is configured: JSON at `info` to stderr.
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: Format::Json,
            outputs: vec![Output::Stderr],
            rotation: None,
        }
    }
}

/// Installs the log with its default settings, for everything before the configuration is known,
/// and makes panics lines of it. Later calls do nothing.
pub fn init() {
    if LOG.get().is_none() {
        let log = LOG.get_or_init(|| {
            Log::new(Settings::default().level, Format::Json, Sink::stderr(), SystemTime::now)
        });
        let subscriber = tracing_subscriber::registry().with(LogLayer { log });
        // A test may have installed another one: its log is the one that counts then.
        drop(tracing::subscriber::set_global_default(subscriber));
        panic::install_hook();
    }
}

/// Changes where and how lines are written.
///
/// # Errors
///
/// [`OpenError`] when an output cannot be opened; the log stays as it was.
///
/// # Panics
///
/// If [`init`] was not called.
pub fn configure(settings: &Settings) -> Result<(), OpenError> {
    let sink = Sink::open(&settings.outputs, settings.rotation.as_ref())?;
    let log = LOG.get().expect("the log is installed before it is configured");
    {
        let mut writer = log.writer.write().unwrap_or_else(PoisonError::into_inner);
        writer.sink = sink;
        writer.format = settings.format;
    }
    set_level(settings.level);
    Ok(())
}

/// Changes the least important level that is written, at once.
pub fn set_level(level: Level) {
    if let Some(log) = LOG.get() {
        log.level.set(level);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Writes the line of an error that ends the program, with its causes.
pub fn log_failure(message: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(target: FATAL, error, "{message}");
}

/// The level in force.
#[must_use]
pub fn level() -> Level {
    LOG.get().map_or(Level::Info, |log| log.level.get())
}

static LOG: OnceLock<Log> = OnceLock::new();

/// The state behind the subscriber.
#[derive(Debug)]
struct Log {
    level: CurrentLevel,
    writer: RwLock<Writer>,
    clock: fn() -> SystemTime,
}

#[derive(Debug)]
struct Writer {
    format: Format,
    sink: Sink,
}

impl Log {
    fn new(level: Level, format: Format, sink: Sink, clock: fn() -> SystemTime) -> Self {
        Self {
            level: CurrentLevel::new(level),
            writer: RwLock::new(Writer { format, sink }),
            clock,
        }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let level = Level::of(metadata);
        let ours = metadata.target().starts_with("retcd_")
            || metadata.target().starts_with("etcd")
            || metadata.target().starts_with(NAMED)
            || metadata.target() == FATAL;
        level >= self.level.get() && (ours || level >= Level::Warn)
    }

    /// Writes a line unless somebody holds a lock; whether it did.
    fn try_write(&self, record: &Record) -> bool {
        self.writer
            .try_read()
            .is_ok_and(|writer| writer.sink.try_write(record.level, &writer.format.line(record)))
    }

    fn write(&self, event: &Event<'_>) {
        let record = Record::of(event, (self.clock)());
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        writer.sink.write(record.level, &writer.format.line(&record));
    }
}

/// Hands events to the log.
#[derive(Debug)]
struct LogLayer<'a> {
    log: &'a Log,
}

impl<S: Subscriber> Layer<S> for LogLayer<'static> {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Asked again for every callsite when the level changes.
        if self.log.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.log.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.log.level.get().filter())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.log.write(event);
    }
}

#[cfg(test)]
mod tests;
