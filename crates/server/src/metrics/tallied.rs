//! A histogram that takes many equal values at the cost of one.

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

    /// So many things took so long each.
    pub(super) fn observe(&self, each: Duration, times: u64) {
        let seconds = each.as_secs_f64();
        let bounds = &self.0.bounds;
        let at = bounds.iter().position(|bound| seconds <= *bound).unwrap_or(bounds.len());
        let nanos = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX).saturating_mul(times);
        self.0.counts[at].fetch_add(times, Ordering::Relaxed);
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
