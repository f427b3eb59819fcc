//! How long sending to watchers takes (MET-66).
//!
//! Answers are made together when a connection can take more, so each counts as its share of that.
//! Source: etcd server/etcdserver/api/v3rpc/watch.go (`sendLoop`).

use std::time::Duration;

use prometheus::Histogram;

use super::register::{Register, SECONDS};
use super::tallied::Tallied;

/// The parts of a watch stream's work.
#[derive(Debug)]
pub(crate) struct Sending {
    answers: Tallied,
    events: Tallied,
    control: Histogram,
    progress: Histogram,
}

impl Sending {
    pub(super) fn new(register: &Register<'_>) -> Self {
        let name = |part| format!("etcd_debugging_server_watch_send_loop_{part}");
        let tallied = |part, help| register.tallied(&name(part), help, SECONDS);
        let seconds = |part, help| register.histogram(&name(part), help, SECONDS);
        Self {
            answers: tallied(
                "watch_stream_duration_seconds",
                "Seconds that an answer with what was watched takes.",
            ),
            events: tallied(
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
    pub(crate) fn on_answers(&self, events: &[u32], took: Duration) {
        let Ok(count) = u32::try_from(events.len()) else { return };
        self.answers.observe(took, count);
        for alike in events.chunk_by(|one, next| one == next) {
            let Ok(times) = u32::try_from(alike.len()) else { return };
            let each_of = count.saturating_mul(alike[0]);
            if let Some(share) = took.saturating_mul(times).checked_div(each_of) {
                self.events.observe(share, times);
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
