//! Levels of importance, by etcd's names.

use std::sync::atomic::{AtomicU8, Ordering};

use tracing::Metadata;
use tracing::level_filters::LevelFilter;

/// How important a line is; a later one is more important.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// What happened.
    Info,
    /// What may need attention.
    Warn,
    /// What went wrong.
    Error,
    /// What ends the program because of a fault of its own.
    Panic,
    /// What ends the program.
    Fatal,
}

impl Level {
    /// The names, least important first.
    pub const NAMES: [&'static str; 6] = ["debug", "info", "warn", "error", "panic", "fatal"];

    const ALL: [Self; 6] =
        [Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Panic, Self::Fatal];

    /// The level of that name, whatever its case. `dpanic`, which Go's logger knows, is `panic`,
    /// and no name at all is `info`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "" => Some(Self::Info),
            "dpanic" => Some(Self::Panic),
            name => Self::ALL.into_iter().find(|level| level.name() == name),
        }
    }

    /// As written in lines and flags.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[usize::from(self.rank())]
    }

    /// The level of an event.
    pub(super) fn of(metadata: &Metadata<'_>) -> Self {
        if metadata.target() == super::FATAL {
            return Self::Fatal;
        }
        match *metadata.level() {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => Self::Debug,
        }
    }

    /// What `tracing` must let through for this level.
    pub(super) fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::TRACE,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error | Self::Panic | Self::Fatal => LevelFilter::ERROR,
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Debug => 0,
            Self::Info => 1,
            Self::Warn => 2,
            Self::Error => 3,
            Self::Panic => 4,
            Self::Fatal => 5,
        }
    }
}

/// The level in force, read at every event.
#[derive(Debug)]
pub(super) struct CurrentLevel(AtomicU8);

impl CurrentLevel {
    pub(super) fn new(level: Level) -> Self {
        Self(AtomicU8::new(level.rank()))
    }

    pub(super) fn get(&self) -> Level {
        Level::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    pub(super) fn set(&self, level: Level) {
        self.0.store(level.rank(), Ordering::Relaxed);
    }
}
