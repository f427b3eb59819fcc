//! One profile: values by name, and the message that Go's tools read.
//!
//! Every name is a function of its own with one place, since there are no stacks.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The system counts time on the processor in these units, on every machine this runs on.
const TICK: Duration = Duration::from_millis(10);

/// What one thread has used: its name and its time.
pub(super) type ProcessorTime = BTreeMap<u64, (String, Duration)>;

/// Values by name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Profile {
    /// What is counted, and in what.
    kinds: Vec<(&'static str, &'static str)>,
    /// For each name a value of each kind.
    samples: BTreeMap<String, Vec<i64>>,
    duration: Duration,
}

impl Profile {
    pub(super) fn empty(kind: &'static str, unit: &'static str) -> Self {
        Self { kinds: vec![(kind, unit)], samples: BTreeMap::new(), duration: Duration::ZERO }
    }

    fn add(&mut self, name: String, values: &[i64]) {
        let sums = self.samples.entry(name).or_insert_with(|| vec![0; values.len()]);
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.saturating_add(*value);
        }
    }

    /// How many threads there are of each name.
    pub(super) fn threads() -> Self {
        let mut profile = Self::empty("threads", "count");
        for (name, _) in Self::processor_time().into_values() {
            profile.add(name, &[1]);
        }
        profile
    }

    /// The memory of the process, as far as the system tells.
    pub(super) fn memory() -> Self {
        let mut profile = Self::empty("inuse_space", "bytes");
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (key, name) in [("RssAnon:", "private"), ("RssFile:", "files"), ("RssShmem:", "shared")]
        {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            if let Some(kilobytes) = kilobytes.and_then(|text| text.trim().parse::<i64>().ok()) {
                profile.add(name.to_owned(), &[kilobytes.saturating_mul(1024)]);
            }
        }
        profile
    }

    /// What every thread has used up to now, by the thread's number.
    pub(super) fn processor_time() -> ProcessorTime {
        let Ok(threads) = fs::read_dir("/proc/self/task") else { return BTreeMap::new() };
        threads
            .filter_map(|thread| {
                let path = thread.ok()?.path();
                let id = path.file_name()?.to_str()?.parse().ok()?;
                // It may end while it is looked at.
                Some((id, of_thread(&fs::read_to_string(path.join("stat")).ok()?)?))
            })
            .collect()
    }

    /// What threads used between two looks.
    pub(super) fn of_processor(
        before: &ProcessorTime,
        after: &ProcessorTime,
        duration: Duration,
    ) -> Self {
        let kinds = vec![("samples", "count"), ("cpu", "nanoseconds")];
        let mut profile = Self { kinds, samples: BTreeMap::new(), duration };
        for (id, (name, time)) in after {
            let earlier = before.get(id).map_or(Duration::ZERO, |(_, time)| *time);
            let used = time.saturating_sub(earlier);
            if !used.is_zero() {
                let ticks = used.as_nanos() / TICK.as_nanos();
                profile.add(name.clone(), &[number(ticks), number(used.as_nanos())]);
            }
        }
        profile
    }

    /// As Go's pages with `?debug=1`.
    pub(super) fn as_text(&self, name: &str) -> String {
        let total: i64 = self.samples.values().filter_map(|values| values.first()).sum();
        let mut text = format!("{name} profile: total {total}\n");
        for (name, values) in &self.samples {
            let value = values.first().copied().unwrap_or_default();
            text.push_str(&format!("{value} {name}\n"));
        }
        text
    }

    /// The message.
    pub(super) fn message(&self) -> Message {
        let mut texts = Texts::default();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut message = Message {
            time_nanos: number(wall.as_nanos()),
            duration_nanos: number(self.duration.as_nanos()),
            ..Message::default()
        };
        for (kind, unit) in &self.kinds {
            let kind = ValueType { kind: texts.place(kind), unit: texts.place(unit) };
            message.sample_type.push(kind);
        }
        if self.kinds.len() > 1 {
            message.period_type =
                Some(ValueType { kind: texts.place("cpu"), unit: texts.place("nanoseconds") });
            message.period = number(TICK.as_nanos());
        }
        for (id, (name, values)) in (1..).zip(&self.samples) {
            let line = vec![Line { function_id: id, line: 0 }];
            message.location.push(Location { id, line });
            message.function.push(Function { id, name: texts.place(name) });
            message.sample.push(Sample { location_id: vec![id], value: values.clone() });
        }
        message.string_table = texts.all;
        message
    }
}

/// Name and time of a line of `/proc/self/task/N/stat`: the name stands in brackets and may hold
/// anything; the times are the 12th and 13th number behind it.
fn of_thread(line: &str) -> Option<(String, Duration)> {
    let (_, rest) = line.split_once('(')?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    let used = ticks()?.saturating_add(ticks()?);
    Some((name.to_owned(), TICK * used))
}

fn number(value: u128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The texts of a message by their places; the first is empty.
struct Texts {
    all: Vec<String>,
    places: HashMap<String, i64>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { all: vec![String::new()], places: HashMap::from([(String::new(), 0)]) }
    }
}

impl Texts {
    fn place(&mut self, text: &str) -> i64 {
        let next = i64::try_from(self.all.len()).unwrap_or(i64::MAX);
        *self.places.entry(text.to_owned()).or_insert_with(|| {
            self.all.push(text.to_owned());
            next
        })
    }
}

/// `perftools.profiles.Profile`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HTTP-18.
    #[test]
    fn a_thread_is_its_name_and_its_time() {
        let line = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 25 17 0 0 20 0 1 0 99";
        let expected = ("a) b".to_owned(), Duration::from_millis(420));
        assert_eq!(of_thread(line), Some(expected));
        assert_eq!(of_thread("7 (a"), None);
    }

    /// HTTP-18: what the threads used between two looks, summed by name.
    #[test]
    fn a_profile_tells_what_threads_used_meanwhile() {
        let time = |millis| Duration::from_millis(millis);
        let before = BTreeMap::from([(1, ("node".to_owned(), time(100)))]);
        let after = BTreeMap::from([
            (1, ("node".to_owned(), time(150))),
            (2, ("node".to_owned(), time(20))),
            (3, ("idle".to_owned(), time(0))),
        ]);
        let profile = Profile::of_processor(&before, &after, time(1000));
        let message = profile.message();
        assert_eq!(message.string_table[0], "");
        assert_eq!(message.sample.len(), 1);
        assert_eq!(message.sample[0].value, [7, 70_000_000]);
        let name = usize::try_from(message.function[0].name).unwrap();
        assert_eq!(message.string_table[name], "node");
        assert_eq!((message.period, message.duration_nanos), (10_000_000, 1_000_000_000));
    }
}
