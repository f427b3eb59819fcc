//! How long sending to watchers takes (MET-66).
//!
//! Answers are made together when a connection can take more, so each counts as its share of that.
//! Source: etcd server/etcdserver/api/v3rpc/watch.go (`sendLoop`).

use std::time::Duration;

use prometheus::Histogram;

use super::register::{Register, SECONDS};

/// The parts of a watch stream's work.
#[derive(Debug)]
pub(crate) struct Sending {
    answers: Histogram,
    events: Histogram,
    control: Histogram,
    progress: Histogram,
}

impl Sending {
    pub(super) fn new(register: &Register<'_>) -> Self {
        let seconds = |part: &str, help| {
            let name = format!("etcd_debugging_server_watch_send_loop_{part}");
            register.histogram(&name, help, SECONDS)
        };
        Self {
            answers: seconds(
                "watch_stream_duration_seconds",
                "Seconds that an answer with what was watched takes.",
            ),
            events: seconds(
                "watch_stream_duration_per_event_seconds",
                "The same, for each of its events.",
            ),
            control: seconds(
                "control_stream_duration_seconds",
                "Seconds that answering a request for a watch takes.",
            ),
            progress: seconds(
                "progress_duration_seconds",
                "Seconds of a look for watches that heard nothing for long.",
            ),
        }
    }

    /// Answers with so many events each took this long together.
    pub(crate) fn on_answers(&self, events: &[usize], took: Duration) {
        let Ok(count) = u32::try_from(events.len()) else { return };
        if count == 0 {
            return;
        }
        let share = took.as_secs_f64() / f64::from(count);
        let (answers, of_each) = (self.answers.local(), self.events.local());
        for events in events {
            answers.observe(share);
            if let Some(events) = u32::try_from(*events).ok().filter(|events| 0 < *events) {
                of_each.observe(share / f64::from(events));
            }
        }
    }

    /// A request for a watch was answered.
    pub(crate) fn on_control(&self, took: Duration) {
        self.control.observe(took.as_secs_f64());
    }

    /// Watches that heard nothing were looked for.
    pub(crate) fn on_progress(&self, took: Duration) {
        self.progress.observe(took.as_secs_f64());
    }
}
