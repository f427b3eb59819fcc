//! A histogram that takes many equal values at the cost of one. Who reads it while it counts may see
//! a value in its bucket that is not yet in the sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::register::Buckets;

/// Seconds, by the bucket that they fall into. Clones count together.
#[derive(Clone, Debug)]
pub(super) struct Tallied(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    desc: Desc,
    bounds: Vec<f64>,
    /// One for each bound, and one for what is above.
    counts: Vec<AtomicU64>,
    nanos: AtomicU64,
}

impl Tallied {
    pub(super) fn new(name: &str, help: &str, buckets: Buckets) -> prometheus::Result<Self> {
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), Default::default())?;
        let bounds = buckets.bounds();
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Ok(Self(Arc::new(Inner { desc, bounds, counts, nanos: AtomicU64::new(0) })))
    }

    /// So many things took so long together, each the same.
    pub(super) fn observe(&self, together: Duration, times: u32) {
        if times == 0 {
            return;
        }
        let seconds = together.as_secs_f64() / f64::from(times);
        let bounds = &self.0.bounds;
        let at = bounds.iter().position(|bound| seconds <= *bound).unwrap_or(bounds.len());
        let nanos = u64::try_from(together.as_nanos()).unwrap_or(u64::MAX);
        self.0.counts[at].fetch_add(times.into(), Ordering::Relaxed);
        self.0.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Collector for Tallied {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let Inner { desc, bounds, counts, nanos } = &*self.0;
        let mut sum = 0;
        let mut buckets = Vec::with_capacity(bounds.len());
        for (bound, count) in bounds.iter().zip(counts) {
            sum += count.load(Ordering::Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(sum);
            buckets.push(bucket);
        }
        let above = counts.last().map_or(0, |count| count.load(Ordering::Relaxed));
        let seconds = Duration::from_nanos(nanos.load(Ordering::Relaxed)).as_secs_f64();
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_count(sum + above);
        histogram.set_sample_sum(seconds);
        histogram.set_bucket(buckets);
        let mut metric = proto::Metric::default();
        metric.set_histogram(histogram);
        let mut family = proto::MetricFamily::default();
        family.set_name(desc.fq_name.clone());
        family.set_help(desc.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram, HistogramOpts};

    use super::*;

    fn told(number: &impl Collector) -> (u64, Vec<(f64, u64)>, u64) {
        let families = number.collect();
        let histogram = families[0].get_metric()[0].get_histogram();
        let buckets = histogram.get_bucket().iter();
        let buckets = buckets.map(|one| (one.upper_bound(), one.cumulative_count())).collect();
        let nanos = Duration::from_secs_f64(histogram.get_sample_sum()).as_nanos();
        (histogram.get_sample_count(), buckets, u64::try_from(nanos).unwrap())
    }

    /// On a bound, between two, below the first and above the last.
    #[test]
    fn counts_as_a_usual_histogram_does() {
        let buckets = Buckets { start: 0.25, count: 3 };
        let tallied = Tallied::new("a", "b", buckets).unwrap();
        let options = HistogramOpts::new("a", "b").buckets(buckets.bounds());
        let usual = Histogram::with_opts(options).unwrap();
        for (millis, times) in [(0, 1), (250, 3), (251, 1), (500, 2), (1000, 4), (1001, 5), (9, 0)]
        {
            let each = Duration::from_millis(millis);
            tallied.observe(each * times, times);
            (0..times).for_each(|_| usual.observe(each.as_secs_f64()));
        }
        assert_eq!(told(&tallied), told(&usual));
    }

    /// A share is not a whole number of nanoseconds; the sum is.
    #[test]
    fn no_part_of_what_was_taken_is_lost() {
        let tallied = Tallied::new("a", "b", Buckets { start: 0.25, count: 3 }).unwrap();
        (0..100).for_each(|_| tallied.observe(Duration::from_nanos(1_000), 999));
        assert_eq!(tallied.0.nanos.load(Ordering::Relaxed), 100_000);
    }
}
