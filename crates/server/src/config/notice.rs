//! What reading a configuration has to say: log lines as values, told once the logger stands.

use serde_json::Value;

use crate::logging::{self, Level};

/// A line for the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// How important.
    pub level: Level,
    /// The message.
    pub message: String,
    /// Its fields, in order.
    pub fields: Vec<(&'static str, Value)>,
}

impl Notice {
    pub(crate) fn info(message: impl Into<String>) -> Self {
        Self { level: Level::Info, message: message.into(), fields: Vec::new() }
    }

    pub(crate) fn warn(message: impl Into<String>) -> Self {
        Self { level: Level::Warn, message: message.into(), fields: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Writes the line to the log.
    pub fn log(&self) {
        let fields = logging::Spread::new(self.fields.iter().cloned());
        match self.level {
            Level::Debug => tracing::debug!(spread = ?fields, "{}", self.message),
            Level::Info => tracing::info!(spread = ?fields, "{}", self.message),
            Level::Warn => tracing::warn!(spread = ?fields, "{}", self.message),
            Level::Error => tracing::error!(spread = ?fields, "{}", self.message),
            Level::Panic | Level::Fatal => {
                tracing::error!(target: logging::FATAL, spread = ?fields, "{}", self.message);
            }
        }
    }
}
