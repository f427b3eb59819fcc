//! The steps of a request that took longer than a tenth of a second, and how long each took.
//!
//! Source: etcd pkg/traceutil/trace.go; names are etcd's where a step is the same.

use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::at;
use crate::config::GoDuration;
use crate::logging::List;

/// Requests that take longer are told.
const TOLD_LONGER_THAN: Duration = Duration::from_millis(100);

/// Steps of one request.
const STEPS_MAX: usize = 3;

/// How far a request has come. It costs a look at the clock for each step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    began: Instant,
    done: [Option<(&'static str, Instant)>; STEPS_MAX],
}

impl Steps {
    /// A request begins.
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), done: [None; STEPS_MAX] }
    }

    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// A step is done.
    pub(crate) fn step(&mut self, name: &'static str) {
        let free = self.done.iter_mut().find(|step| step.is_none());
        *free.expect("no request has so many steps") = Some((name, Instant::now()));
    }

    /// Tells of an operation that is done, if it took long: `detail` are its fields.
    pub(crate) fn note(
        &self,
        operation: &str,
        detail: impl FnOnce() -> Vec<(&'static str, String)>,
    ) {
        self.note_if(TOLD_LONGER_THAN, operation, detail);
    }

    fn note_if(
        &self,
        longer_than: Duration,
        operation: &str,
        detail: impl FnOnce() -> Vec<(&'static str, String)>,
    ) {
        let took = self.began.elapsed();
        if took <= longer_than {
            return;
        }
        let end = SystemTime::now();
        let steps = self.long_ones(longer_than);
        tracing::info!(
            // Any number that the next one does not have.
            trace_id = end.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos(),
            operation,
            detail = fields(&detail()),
            duration = %GoDuration::from(took),
            start = at(end - took),
            end = at(end),
            steps = ?List::of(&steps),
            step_count = steps.len(),
            "trace"
        );
    }

    /// The steps that took more than their share.
    fn long_ones(&self, longer_than: Duration) -> Vec<String> {
        let done: Vec<_> = self.done.iter().flatten().collect();
        let share = longer_than / u32::try_from(done.len() + 1).expect("there are few");
        let mut before = self.began;
        let mut told = Vec::new();
        for (name, at) in done {
            let took = at.duration_since(before);
            before = *at;
            if share < took {
                told.push(format!("'{name}'  (duration: {})", GoDuration::from(took)));
            }
        }
        told
    }
}

/// Fields as etcd writes them; nothing if there are none.
fn fields(fields: &[(&'static str, String)]) -> String {
    if fields.is_empty() {
        return String::new();
    }
    let told: String = fields.iter().map(|(name, value)| format!("{name}:{value}; ")).collect();
    format!("{{{told}}}")
}

/// A field of an operation.
pub(crate) fn field(name: &'static str, value: impl Display) -> (&'static str, String) {
    (name, value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G-020.
    #[test]
    fn steps_that_took_their_share_are_told() {
        let began = Instant::now();
        let after = |millis| began + Duration::from_millis(millis);
        let mut steps = Steps { began, done: [None; STEPS_MAX] };
        steps.done[0] = Some(("agreement", after(200)));
        steps.done[1] = Some(("reading", after(201)));
        assert_eq!(steps.long_ones(Duration::from_millis(100)), ["'agreement'  (duration: 200ms)"]);
        let told = fields(&[field("range_begin", "a"), field("response_count", 1)]);
        assert_eq!(told, "{range_begin:a; response_count:1; }");
        assert_eq!(fields(&[]), "");
    }
}
