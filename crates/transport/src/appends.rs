//! Appends as etcd's second generation tells of them: how many come and go at which rate, and how
//! long each follower's wait (features V2-130, V2-131).
//!
//! What goes is counted when it is handed to the network, not when Raft wants it sent. Counts are
//! since this process began; rates are over the last 200 at most, and nothing once no message came
//! for a second.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2stats.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Messages that a rate is made of.
const RATE_MESSAGES_MAX: usize = 200;

/// Without a message for so long there is no rate.
const RATE_AGE_MAX: Duration = Duration::from_secs(1);

/// Appends in both directions, of all members together.
#[derive(Debug, Default)]
pub struct Appends {
    /// Those that this member sent.
    pub sent: Flow,
    /// Those that it received.
    pub received: Flow,
}

/// Messages in one direction.
#[derive(Debug, Default)]
pub struct Flow(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    count: u64,
    /// The newest at the back, each with its bytes.
    messages: VecDeque<(Instant, usize)>,
    bytes: usize,
}

/// What a [`Flow`] was at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlowSample {
    /// Messages since the process began.
    pub count: u64,
    /// Messages in a second; 0 if there are none to tell of.
    pub messages_per_second: f64,
    /// Bytes in a second; 0 if there are none to tell of.
    pub bytes_per_second: f64,
}

impl Flow {
    /// Counts messages by their bytes.
    pub(crate) fn count(&self, sizes: &[usize]) {
        if !sizes.is_empty() {
            self.count_at(sizes, Instant::now());
        }
    }

    fn count_at(&self, sizes: &[usize], now: Instant) {
        let mut recent = self.0.lock();
        for &bytes in sizes {
            if recent.messages.len() == RATE_MESSAGES_MAX {
                let oldest = recent.messages.pop_front();
                recent.bytes -= oldest.map_or(0, |(_, bytes)| bytes);
            }
            recent.count += 1;
            recent.bytes += bytes;
            recent.messages.push_back((now, bytes));
        }
    }

    /// What it is now.
    #[must_use]
    pub fn sample(&self) -> FlowSample {
        self.sample_at(Instant::now())
    }

    fn sample_at(&self, now: Instant) -> FlowSample {
        let recent = self.0.lock();
        let still = FlowSample { count: recent.count, ..FlowSample::default() };
        let ends = recent.messages.front().zip(recent.messages.back());
        let Some((&(first, _), &(last, _))) = ends else { return still };
        let seconds = last.duration_since(first).as_secs_f64();
        if RATE_AGE_MAX < now.duration_since(last) || seconds <= 0.0 {
            return still;
        }
        FlowSample {
            count: recent.count,
            messages_per_second: float(recent.messages.len() as u64) / seconds,
            bytes_per_second: float(recent.bytes as u64) / seconds,
        }
    }
}

/// How long one follower's appends take until the network has them.
#[derive(Debug, Default)]
pub struct Latency(Mutex<LatencySample>);

/// What a [`Latency`] was at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencySample {
    /// Appends that the network took.
    pub successes: u64,
    /// Appends that it did not.
    pub failures: u64,
    /// Milliseconds of the newest.
    pub current_millis: f64,
    /// Mean milliseconds.
    pub average_millis: f64,
    /// Milliseconds of the fastest; 2^63 before the first.
    pub min_millis: f64,
    /// Milliseconds of the slowest.
    pub max_millis: f64,
    average_square: f64,
}

impl Default for LatencySample {
    fn default() -> Self {
        Self {
            successes: 0,
            failures: 0,
            current_millis: 0.0,
            average_millis: 0.0,
            min_millis: 9_223_372_036_854_775_808.0,
            max_millis: 0.0,
            average_square: 0.0,
        }
    }
}

impl LatencySample {
    /// How far the times are from their mean, in milliseconds.
    #[must_use]
    pub fn standard_deviation_millis(&self) -> f64 {
        // Rounding may leave a little less than nothing.
        (self.average_square - self.average_millis * self.average_millis).max(0.0).sqrt()
    }

    fn add(&mut self, millis: f64) {
        self.successes += 1;
        let count = float(self.successes);
        self.current_millis = millis;
        self.min_millis = self.min_millis.min(millis);
        self.max_millis = self.max_millis.max(millis);
        self.average_millis += (millis - self.average_millis) / count;
        self.average_square += (millis * millis - self.average_square) / count;
    }
}

impl Latency {
    /// Counts appends that all took so long.
    pub(crate) fn succeeded(&self, count: usize, took: Duration) {
        let mut sample = self.0.lock();
        for _ in 0..count {
            sample.add(took.as_secs_f64() * 1000.0);
        }
    }

    /// Counts an append that was not taken.
    pub(crate) fn failed(&self) {
        self.0.lock().failures += 1;
    }

    /// What it is now.
    #[must_use]
    pub fn sample(&self) -> LatencySample {
        *self.0.lock()
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody tells such numbers apart to the last digit")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-130.
    #[test]
    fn a_rate_is_that_of_the_last_messages() {
        let (flow, begin) = (Flow::default(), Instant::now());
        assert_eq!(flow.sample_at(begin), FlowSample::default());
        for number in 0..300 {
            flow.count_at(&[10], begin + Duration::from_millis(number));
        }
        let now = begin + Duration::from_millis(299);
        let sample = flow.sample_at(now);
        assert_eq!(sample.count, 300);
        assert!((sample.messages_per_second - 200.0 / 0.199).abs() < 1e-6, "{sample:?}");
        assert!((sample.bytes_per_second - 2000.0 / 0.199).abs() < 1e-6, "{sample:?}");
        let later = flow.sample_at(now + RATE_AGE_MAX + Duration::from_millis(1));
        assert_eq!(later, FlowSample { count: 300, ..FlowSample::default() });
    }

    /// V2-130: one message alone has no rate.
    #[test]
    fn a_rate_needs_two_moments() {
        let (flow, begin) = (Flow::default(), Instant::now());
        flow.count_at(&[10, 20], begin);
        assert_eq!(flow.sample_at(begin), FlowSample { count: 2, ..FlowSample::default() });
    }

    /// V2-131.
    #[test]
    fn a_latency_has_mean_deviation_and_bounds() {
        let latency = Latency::default();
        assert!((latency.sample().min_millis - 2_f64.powi(63)).abs() < 1.0);
        for millis in [2, 4, 4, 4, 5, 5, 7, 9] {
            latency.succeeded(1, Duration::from_millis(millis));
        }
        latency.failed();
        let sample = latency.sample();
        assert_eq!((sample.successes, sample.failures), (8, 1));
        for (found, expected) in [
            (sample.current_millis, 9.0),
            (sample.average_millis, 5.0),
            (sample.standard_deviation_millis(), 2.0),
            (sample.min_millis, 2.0),
            (sample.max_millis, 9.0),
        ] {
            assert!((found - expected).abs() < 1e-9, "{sample:?}");
        }
    }
}
