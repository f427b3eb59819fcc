//! Answers to reads, kept until something in their range is written through this proxy.
//!
//! What others write is not seen here: an answer may be as old as it is kept, which is why only
//! reads that ask for no more are answered from it.
//!
//! Invariants:
//! - At most [`ENTRIES_MAX`] answers and [`BYTES_MAX`] bytes; the one unused for longest goes first.
//! - An answer is for the token it was given to.
//! - An answer that was under way while something in its range was written is not kept.
//! - No answer is given for longer than [`AGE_MAX`], nor after a change of rights through this
//!   proxy: it may be more than its token's user may see by now.
//! - What is kept holds on to no message: prost's bytes are parts of the whole that arrived.
//!
//! Source: etcd server/proxy/grpcproxy/cache/store.go. Different from it: the token and all
//! invariants after it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use proto::etcdserverpb::{RangeRequest, RangeResponse};
use proto::mvccpb::KeyValue;
use tokio::time::Instant;

/// As etcd's.
const ENTRIES_MAX: usize = 2048;

/// Together. Answers are as large as clients ask for.
const BYTES_MAX: usize = 64 << 20;

/// One answer.
const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Rights that change elsewhere are not heard of here.
const AGE_MAX: Duration = Duration::from_mins(1);

/// Writes that are remembered for answers under way.
const RECENT_LEN: usize = 256;

/// The memory.
#[derive(Debug)]
pub(super) struct Cache {
    kept: Mutex<Kept>,
}

/// What the memory says to a question.
#[derive(Debug)]
pub(super) enum Found {
    Answer(RangeResponse),
    Compacted,
    Nothing,
}

/// A moment, for an answer that is asked for now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started(u64);

/// A question of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    token: Option<String>,
    request: Bytes,
}

#[derive(Debug)]
struct Entry {
    question: Question,
    answer: RangeResponse,
    key: Bytes,
    range_end: Bytes,
    bytes: usize,
    used: u64,
    until: Instant,
}

#[derive(Debug, Default)]
struct Kept {
    numbers: HashMap<Question, u64>,
    entries: HashMap<u64, Entry>,
    /// Tick of the last use to number.
    by_use: BTreeMap<u64, u64>,
    /// Numbers of answers about one key.
    points: BTreeSet<(Bytes, u64)>,
    /// Numbers of answers about more.
    ranges: BTreeSet<u64>,
    bytes: usize,
    tick: u64,
    compact_revision: i64,
    /// Writes so far.
    writes: u64,
    /// The last of them.
    recent: VecDeque<(Bytes, Bytes)>,
    /// Answers that began before so many writes are for rights of before.
    forgotten: u64,
}

impl Cache {
    pub(super) fn new() -> Self {
        let kept = Kept { compact_revision: -1, ..Kept::default() };
        Self { kept: Mutex::new(kept) }
    }

    /// What was answered before.
    pub(super) fn get(&self, token: Option<&str>, request: &RangeRequest) -> Found {
        let question = Question::new(token, request.clone());
        let mut kept = self.kept.lock();
        if 0 < request.revision && request.revision < kept.compact_revision {
            if let Some(number) = kept.numbers.get(&question).copied() {
                kept.remove(number);
            }
            return Found::Compacted;
        }
        let Some(number) = kept.numbers.get(&question).copied() else { return Found::Nothing };
        if kept.entries[&number].until <= Instant::now() {
            kept.remove(number);
            return Found::Nothing;
        }
        kept.use_now(number);
        Found::Answer(kept.entries[&number].answer.clone())
    }

    /// For an answer that is about to be asked for.
    pub(super) fn start(&self) -> Started {
        Started(self.kept.lock().writes)
    }

    /// Keeps an answer, if nothing in its range was written meanwhile.
    pub(super) fn add(
        &self,
        token: Option<&str>,
        started: Started,
        request: RangeRequest,
        answer: &RangeResponse,
    ) {
        let bytes = bytes_of(token, &request, answer);
        if ENTRY_BYTES_MAX < bytes {
            return;
        }
        let Some(answer) = detached(answer) else { return };
        let key = Bytes::copy_from_slice(&request.key);
        let range_end = Bytes::copy_from_slice(&request.range_end);
        let revision = request.revision;
        let question = Question::new(token, request);
        let mut kept = self.kept.lock();
        if started.0 < kept.forgotten {
            return;
        }
        let is_fixed = revision != 0;
        if revision <= kept.compact_revision && is_fixed {
            return;
        }
        if !is_fixed && kept.is_written(started, &key, &range_end) {
            return;
        }
        if let Some(number) = kept.numbers.get(&question).copied() {
            kept.remove(number);
        }
        kept.tick += 1;
        let number = kept.tick;
        kept.numbers.insert(question.clone(), number);
        kept.by_use.insert(number, number);
        if !is_fixed {
            if range_end.is_empty() {
                kept.points.insert((key.clone(), number));
            } else {
                kept.ranges.insert(number);
            }
        }
        kept.bytes += bytes;
        let until = Instant::now() + AGE_MAX;
        let entry = Entry { question, answer, key, range_end, bytes, used: number, until };
        kept.entries.insert(number, entry);
        while ENTRIES_MAX < kept.entries.len() || BYTES_MAX < kept.bytes {
            let (_, oldest) = kept.by_use.pop_first().expect("every entry was used once");
            kept.remove(oldest);
        }
    }

    /// Forgets every answer with a key in the range.
    pub(super) fn invalidate(&self, key: &[u8], range_end: &[u8]) {
        let key = &Bytes::copy_from_slice(key);
        let mut kept = self.kept.lock();
        kept.writes += 1;
        if kept.recent.len() == RECENT_LEN {
            kept.recent.pop_front();
        }
        let range_end = Bytes::copy_from_slice(range_end);
        kept.recent.push_back((key.clone(), range_end.clone()));
        let from = (key.clone(), 0);
        let points = kept.points.range(from..);
        let points = points.take_while(|(point, _)| is_inside(point, key, &range_end));
        let mut gone: Vec<_> = points.map(|(_, number)| *number).collect();
        gone.extend(kept.ranges.iter().copied().filter(|number| {
            let entry = &kept.entries[number];
            meet((&entry.key, &entry.range_end), (key, &range_end))
        }));
        for number in gone {
            kept.remove(number);
        }
    }

    /// Forgets every answer, those under way too.
    pub(super) fn forget_all(&self) {
        let mut kept = self.kept.lock();
        let (compact_revision, tick, writes) = (kept.compact_revision, kept.tick, kept.writes + 1);
        *kept = Kept { compact_revision, tick, writes, forgotten: writes, ..Kept::default() };
    }

    /// Answers about older revisions are no longer given.
    pub(super) fn compact(&self, revision: i64) {
        let mut kept = self.kept.lock();
        kept.compact_revision = kept.compact_revision.max(revision);
    }

    /// How many answers are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.lock().entries.len()
    }
}

impl Question {
    /// The same question whether or not the answer may be old.
    fn new(token: Option<&str>, request: RangeRequest) -> Self {
        let request = RangeRequest { serializable: true, ..request };
        Self { token: token.map(ToOwned::to_owned), request: request.encode_to_vec().into() }
    }
}

impl Kept {
    fn use_now(&mut self, number: u64) {
        self.tick += 1;
        let entry = self.entries.get_mut(&number).expect("a known number has an entry");
        self.by_use.remove(&entry.used);
        entry.used = self.tick;
        self.by_use.insert(self.tick, number);
    }

    fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.numbers.remove(&entry.question);
        self.by_use.remove(&entry.used);
        self.points.remove(&(entry.key, number));
        self.ranges.remove(&number);
        self.bytes -= entry.bytes;
    }

    /// Whether something in the range was written since.
    fn is_written(&self, Started(writes): Started, key: &Bytes, range_end: &Bytes) -> bool {
        let since = usize::try_from(self.writes - writes).unwrap_or(usize::MAX);
        if self.recent.len() < since {
            return true;
        }
        let mut since = self.recent.iter().rev().take(since);
        since.any(|(other, other_end)| meet((key, range_end), (other, other_end)))
    }
}

/// What keeping an answer costs, about.
fn bytes_of(token: Option<&str>, request: &RangeRequest, answer: &RangeResponse) -> usize {
    // A question is both in its entry and on the way to it.
    let token_bytes = 2 * token.map_or(0, str::len);
    // Its ends are beside it once more.
    let request_bytes = request.encoded_len() + request.key.len() + request.range_end.len();
    let pairs_bytes = answer.kvs.len() * size_of::<KeyValue>();
    answer.encoded_len() + pairs_bytes + request_bytes + token_bytes
}

/// The same answer in memory of its own, without the rest of the message that it came in.
pub(super) fn detached(answer: &RangeResponse) -> Option<RangeResponse> {
    RangeResponse::decode(Bytes::from(answer.encode_to_vec())).ok()
}

/// Whether a key lies in a range.
pub(super) fn is_inside(point: &[u8], key: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => point == key,
        [0] => key <= point,
        end => key <= point && point < end,
    }
}

/// Whether two ranges have a key in common. Costs a little too much rather than too little.
fn meet((key, end): (&[u8], &[u8]), (other, other_end): (&[u8], &[u8])) -> bool {
    is_inside(other, key, end) || is_inside(key, other, other_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &'static str, range_end: &'static str) -> RangeRequest {
        RangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(range_end.as_bytes()),
            ..RangeRequest::default()
        }
    }

    fn answer(count: i64) -> RangeResponse {
        RangeResponse { count, ..RangeResponse::default() }
    }

    fn add(cache: &Cache, token: Option<&str>, request: RangeRequest, count: i64) {
        cache.add(token, cache.start(), request, &answer(count));
    }

    fn count(cache: &Cache, token: Option<&str>, request: &RangeRequest) -> Option<i64> {
        match cache.get(token, request) {
            Found::Answer(answer) => Some(answer.count),
            Found::Compacted | Found::Nothing => None,
        }
    }

    /// SRV-179.
    #[test]
    fn a_write_forgets_what_it_may_have_changed() {
        for (question, write, is_forgotten) in [
            (read("b", ""), ("b", ""), true),
            (read("b", ""), ("c", ""), false),
            (read("b", "d"), ("c", ""), true),
            (read("b", "d"), ("d", ""), false),
            (read("b", "d"), ("a", "c"), true),
            (read("b", "d"), ("a", "b"), false),
            (read("b", "\0"), ("x", ""), true),
            (read("b", ""), ("a", "\0"), true),
            (read("b", "c"), ("a", "z"), true),
        ] {
            let cache = Cache::new();
            add(&cache, None, question.clone(), 1);
            cache.invalidate(&Bytes::from_static(write.0.as_bytes()), write.1.as_bytes());
            assert_eq!(count(&cache, None, &question).is_none(), is_forgotten, "{write:?}");
        }
    }

    /// Reliability 6.1: an answer is for who was given it.
    #[test]
    fn nobody_is_given_the_answer_of_another() {
        let cache = Cache::new();
        add(&cache, Some("one"), read("a", ""), 1);
        assert_eq!(count(&cache, Some("one"), &read("a", "")), Some(1));
        assert_eq!(count(&cache, Some("two"), &read("a", "")), None);
        assert_eq!(count(&cache, None, &read("a", "")), None);
    }

    #[test]
    fn an_answer_overtaken_by_a_write_is_not_kept() {
        let cache = Cache::new();
        let started = cache.start();
        cache.invalidate(&Bytes::from_static(b"a"), b"");
        cache.add(None, started, read("a", "c"), &answer(1));
        assert_eq!(count(&cache, None, &read("a", "c")), None);
        cache.add(None, started, read("x", ""), &answer(1));
        assert_eq!(count(&cache, None, &read("x", "")), Some(1));
        for _ in 0..=RECENT_LEN {
            cache.invalidate(&Bytes::from_static(b"q"), b"");
        }
        cache.add(None, started, read("y", ""), &answer(1));
        assert_eq!(count(&cache, None, &read("y", "")), None);
    }

    /// SRV-179: revisions that are gone.
    #[test]
    fn compacted_revisions_are_not_answered() {
        let cache = Cache::new();
        let old = RangeRequest { revision: 4, ..read("a", "") };
        add(&cache, None, old.clone(), 1);
        cache.invalidate(&Bytes::from_static(b"a"), b"");
        assert_eq!(count(&cache, None, &old), Some(1));
        cache.compact(5);
        assert!(matches!(cache.get(None, &old), Found::Compacted));
        assert_eq!(cache.len(), 0);
        add(&cache, None, old, 1);
        assert_eq!(cache.len(), 0);
    }

    /// Bounded memory: a few bytes do not keep a large message.
    #[test]
    fn what_is_kept_holds_on_to_no_message() {
        let message = Bytes::from(vec![b'm'; 1 << 16]);
        let cache = Cache::new();
        let request = RangeRequest {
            key: message.slice(..1),
            range_end: message.slice(..2),
            ..RangeRequest::default()
        };
        let pair = KeyValue { key: message.slice(..1), ..KeyValue::default() };
        let answer = RangeResponse { kvs: vec![pair], ..RangeResponse::default() };
        cache.invalidate(&message.slice(..4), b"");
        cache.add(None, cache.start(), request, &answer);
        assert_eq!(cache.len(), 1);
        drop(answer);
        assert!(message.is_unique());
    }

    /// Bounded memory: everything that is kept is counted, and given back.
    #[test]
    fn tokens_and_pairs_count() {
        let cache = Cache::new();
        let token = "t".repeat(1000);
        add(&cache, Some(&token), read("a", ""), 1);
        assert!(2000 < cache.kept.lock().bytes);
        cache.invalidate(b"a", b"");
        assert_eq!(cache.kept.lock().bytes, 0);
        let kvs = vec![KeyValue::default(); ENTRY_BYTES_MAX / size_of::<KeyValue>()];
        let answer = RangeResponse { kvs, ..RangeResponse::default() };
        cache.add(None, cache.start(), read("a", ""), &answer);
        assert_eq!(cache.len(), 0);
        add(&cache, Some(&"t".repeat(ENTRY_BYTES_MAX / 2)), read("a", ""), 1);
        assert_eq!(cache.len(), 0);
    }

    /// Reliability 6.1: an answer is not given for longer than its rights are known.
    #[test]
    fn nothing_outlives_a_change_of_rights() {
        let cache = Cache::new();
        let fixed = RangeRequest { revision: 4, ..read("a", "") };
        add(&cache, Some("one"), read("a", ""), 1);
        let started = cache.start();
        cache.forget_all();
        assert_eq!((cache.len(), cache.kept.lock().bytes), (0, 0));
        cache.add(Some("one"), started, read("a", ""), &answer(1));
        cache.add(Some("one"), started, fixed.clone(), &answer(1));
        assert_eq!(cache.len(), 0);
        add(&cache, Some("one"), fixed.clone(), 1);
        assert_eq!(count(&cache, Some("one"), &fixed), Some(1));
        cache.kept.lock().entries.values_mut().for_each(|entry| entry.until = Instant::now());
        assert_eq!(count(&cache, Some("one"), &fixed), None);
        assert_eq!(cache.len(), 0);
    }

    /// SRV-179: no more answers than etcd keeps, and no more bytes than is good.
    #[test]
    fn the_unused_make_room() {
        let cache = Cache::new();
        for number in 0..=ENTRIES_MAX {
            let key = Bytes::from(number.to_string());
            let request = RangeRequest { key, ..RangeRequest::default() };
            cache.add(None, cache.start(), request, &answer(1));
            // The first is used all the time.
            assert_eq!(count(&cache, None, &read("0", "")), Some(1));
        }
        assert_eq!(cache.len(), ENTRIES_MAX);
        assert_eq!(count(&cache, None, &read("1", "")), None);
        assert_eq!(count(&cache, None, &read("2", "")), Some(1));
    }
}
