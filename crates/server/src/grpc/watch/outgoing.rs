//! A large answer on its way out, in pieces as the client takes them (G21).
//!
//! The events in it are those that other streams and the ring of recent events have, too, and not
//! copies. When the streams together keep too many ([`Kept`]), a new one does without, and one that
//! takes nothing gives up its own: it knows how to make them anew, and does when its client goes on
//! reading and there is room.
//!
//! Invariants: pieces are copies, so that none keeps an event in memory; an answer goes on with the
//! byte behind the last that was handed out, or not at all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use mvcc::Reader;
use parking_lot::Mutex;
use tonic::Status;

use super::super::status;
use super::kept::Kept;
use super::recipe::{EventRecipe, Remake};

/// Events and other parts of an answer below this length are not counted, and stay.
pub(super) const COUNTED_BYTES_MIN: usize = 1 << 10;

/// What stays in any case, if the rest of an answer can be made anew.
const UNCOUNTED_BYTES_MAX: usize = 64 << 10;

/// Looks without a piece taken after which what cannot be made anew is given up, too: 30 seconds
/// in which others wait.
const STILL_LOOKS_MAX: u32 = 600;

/// An answer under way.
#[derive(Debug)]
pub(super) struct Outgoing {
    kept: Arc<Kept>,
    parts: Mutex<VecDeque<Part>>,
    /// A piece was taken since the last look.
    moved: AtomicBool,
    /// Looks since then.
    still_looks: AtomicU32,
}

/// A part, and how many bytes of it are handed out.
#[derive(Debug)]
struct Part {
    content: Content,
    at: usize,
}

#[derive(Debug)]
enum Content {
    /// Of this stream alone.
    Own(Bytes),
    /// An event.
    Event(Bytes),
    /// Something that can be made anew.
    Known(Bytes, Arc<dyn Remake>),
    /// The same, given up.
    GivenUp(Arc<dyn Remake>),
    /// Given up, and cannot be made anew.
    Lost,
}

impl Content {
    /// The bytes that count.
    fn counted(&self) -> Option<&Bytes> {
        match self {
            Self::Own(bytes) | Self::Event(bytes) | Self::Known(bytes, _) => {
                (COUNTED_BYTES_MIN <= bytes.len()).then_some(bytes)
            }
            Self::GivenUp(_) | Self::Lost => None,
        }
    }

    /// What remains of it when it is given up; it may be lost only if that is said.
    fn given_up(&self, may_be_lost: bool) -> Option<Self> {
        match self {
            Self::Event(event) if COUNTED_BYTES_MIN <= event.len() => {
                Some(match EventRecipe::of(event) {
                    Some(recipe) => Self::GivenUp(Arc::new(recipe)),
                    None if may_be_lost && UNCOUNTED_BYTES_MAX < event.len() => Self::Lost,
                    None => return None,
                })
            }
            Self::Known(_, recipe) => Some(Self::GivenUp(recipe.clone())),
            Self::Own(bytes) if may_be_lost && UNCOUNTED_BYTES_MAX < bytes.len() => {
                Some(Self::Lost)
            }
            Self::Own(_) | Self::Event(_) | Self::GivenUp(_) | Self::Lost => None,
        }
    }
}

/// The parts of an answer that is being put together.
#[derive(Debug, Default)]
pub(super) struct Parts(VecDeque<Part>);

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends what this stream alone has.
    pub(super) fn push_own(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.push(Content::Own(bytes.into()));
        }
    }

    /// Appends what can be made anew.
    pub(super) fn push_known(&mut self, bytes: Bytes, recipe: Arc<dyn Remake>) {
        self.push(Content::Known(bytes, recipe));
    }

    /// Appends an event.
    pub(super) fn push_event(&mut self, event: Bytes) {
        self.push(Content::Event(event));
    }

    fn push(&mut self, content: Content) {
        self.0.push_back(Part { content, at: 0 });
    }

    /// Begins to hand them out.
    pub(super) fn send(self, kept: Arc<Kept>) -> Arc<Outgoing> {
        let counted = self.0.iter().filter_map(|part| part.content.counted());
        kept.add(counted);
        let (parts, moved, still_looks) =
            (Mutex::new(self.0), AtomicBool::new(true), AtomicU32::new(0));
        let outgoing = Arc::new(Outgoing { kept: kept.clone(), parts, moved, still_looks });
        kept.note(&outgoing);
        if kept.is_full() {
            outgoing.give_up(false);
        }
        outgoing
    }
}

impl Outgoing {
    /// The next bytes, at most so many; `None` at the end. Wakes the task when there is room for
    /// what must be made anew.
    ///
    /// # Errors
    ///
    /// The answer cannot go on.
    pub(super) fn poll_piece(
        &self,
        bytes_max: usize,
        reader: &Reader,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Vec<u8>, Status>>> {
        let (mut piece, mut done) = (Vec::new(), Vec::new());
        let mut parts = self.parts.lock();
        while piece.len() < bytes_max
            && let Some(part) = parts.front_mut()
        {
            match &part.content {
                Content::Own(bytes) | Content::Event(bytes) | Content::Known(bytes, _) => {
                    let rest = &bytes[part.at..];
                    let taken = rest.len().min(bytes_max - piece.len());
                    piece.extend_from_slice(&rest[..taken]);
                    part.at += taken;
                    if taken == rest.len() {
                        done.extend(parts.pop_front());
                    }
                }
                // What is at hand goes first.
                Content::GivenUp(_) | Content::Lost if !piece.is_empty() => break,
                Content::GivenUp(recipe) => {
                    if !self.kept.has_room(context) {
                        return Poll::Pending;
                    }
                    let made = recipe.make(reader);
                    let known = |bytes| Content::Known(bytes, recipe.clone());
                    part.content = made.map_or(Content::Lost, known);
                    self.kept.add(part.content.counted().into_iter());
                }
                Content::Lost => return Poll::Ready(Some(Err(status::watch_reply_given_up()))),
            }
        }
        drop(parts);
        self.moved.store(true, Ordering::Relaxed);
        self.kept.remove(done.iter().filter_map(|part| part.content.counted()));
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }

    /// Gives up what it can if nothing was taken since the last look.
    pub(super) fn look(&self) {
        if self.moved.swap(false, Ordering::Relaxed) {
            self.still_looks.store(0, Ordering::Relaxed);
            return;
        }
        let looks = self.still_looks.fetch_add(1, Ordering::Relaxed) + 1;
        self.give_up(STILL_LOOKS_MAX <= looks);
    }

    fn give_up(&self, may_be_lost: bool) {
        let mut given_up = Vec::new();
        {
            // One that is being taken from does not stand still.
            let Some(mut parts) = self.parts.try_lock() else { return };
            for part in parts.iter_mut() {
                if let Some(rest) = part.content.given_up(may_be_lost) {
                    given_up.push(std::mem::replace(&mut part.content, rest));
                }
            }
        }
        self.kept.remove(given_up.iter().filter_map(Content::counted));
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let parts = self.parts.get_mut();
        self.kept.remove(parts.iter().filter_map(|part| part.content.counted()));
    }
}

#[cfg(test)]
mod tests {
    use backend::Backend;
    use base::{KeyRange, LeaseId, LogPosition, Term};
    use futures_util::task::noop_waker;
    use mvcc::{CompactStep, RangeQuery, Store, Want};
    use prost::Message as _;
    use proto::mvccpb::{Event, KeyValue};
    use tonic::Code;
    use vfs::memory::MemoryDir;

    use super::*;

    const EVENTS: i64 = 30;

    fn position(backend: &Backend) -> LogPosition {
        LogPosition { index: backend.applied().index.next(), term: Term(1) }
    }

    /// A store in which a key had many large values.
    fn store() -> (Backend, Store) {
        let backend =
            Backend::open(&MemoryDir::new().shared(), "db", &backend::Options::default()).unwrap();
        let mut store = Store::open(&backend, &mvcc::Options::default()).unwrap();
        for number in 0..=u8::try_from(EVENTS).unwrap() {
            let mut writer = store.write(position(&backend));
            let value = vec![number; 1 << 20].into();
            writer.txn().put("a".into(), &value, LeaseId::NONE, false).unwrap();
            writer.finish(position(&backend));
        }
        (backend, store)
    }

    /// Events with the values before, of which half are given up to keep the others.
    fn events(reader: &Reader) -> Vec<Bytes> {
        let row = |at| {
            let keys = KeyRange::One("a".into());
            let query = RangeQuery { keys, at: Some(at), limit: None, want: Want::Rows };
            KeyValue::decode(reader.range(&query).unwrap().rows[0].0.clone()).unwrap()
        };
        let event =
            |at| Event { kv: Some(row(at)), prev_kv: Some(row(at - 1)), ..Event::default() };
        (3..3 + EVENTS).map(|at| event(at).encode_to_vec().into()).collect()
    }

    fn send(kept: &Arc<Kept>, event: &Bytes) -> (Arc<Outgoing>, Vec<u8>) {
        let mut parts = Parts::default();
        parts.push_own(vec![1; 10]);
        parts.push_event(event.clone());
        parts.push_own(vec![2; 2000]);
        let expected = [&[1; 10], &event[..], &[2; 2000]].concat();
        (parts.send(kept.clone()), expected)
    }

    fn piece(
        outgoing: &Outgoing,
        bytes_max: usize,
        reader: &Reader,
    ) -> Option<Result<Vec<u8>, Status>> {
        let waker = noop_waker();
        let polled = outgoing.poll_piece(bytes_max, reader, &mut Context::from_waker(&waker));
        let Poll::Ready(piece) = polled else { panic!("there is room") };
        piece
    }

    fn take(outgoing: &Arc<Outgoing>, reader: &Reader) -> Result<Vec<u8>, Status> {
        let mut taken = Vec::new();
        while let Some(piece) = piece(outgoing, 10_007, reader) {
            taken.extend(piece?);
        }
        Ok(taken)
    }

    /// G21.
    #[test]
    fn an_event_of_many_counts_once() {
        let kept = Arc::<Kept>::default();
        let event = Bytes::from(vec![0; 1 << 20]);
        let outgoing: Vec<_> = (0..100).map(|_| send(&kept, &event)).collect();
        assert_eq!(kept.bytes(), event.len() + 100 * 2000);
        drop(outgoing);
        assert_eq!(kept.bytes(), 0);
    }

    /// G21: what is given up is made anew, and the answer goes on where it was.
    #[test]
    fn an_answer_goes_on_with_events_from_the_store() {
        let (_backend, store) = store();
        let (kept, reader) = (Arc::<Kept>::default(), store.reader());
        let mut begun = Vec::new();
        for event in events(&reader) {
            let (outgoing, expected) = send(&kept, &event);
            let first = piece(&outgoing, 65_536, &reader).unwrap().unwrap();
            drop(event);
            begun.push((outgoing, first, expected));
        }
        assert!(kept.bytes() < 20 << 20, "{} bytes", kept.bytes());
        for (outgoing, first, expected) in begun {
            assert_eq!([first, take(&outgoing, &reader).unwrap()].concat(), expected);
        }
        assert_eq!(kept.bytes(), 0);
    }

    /// G21: who takes nothing makes room for those who wait to go on.
    #[tokio::test]
    async fn who_stands_still_gives_up_what_others_need() {
        let (_backend, store) = store();
        let (kept, reader) = (Arc::<Kept>::default(), store.reader());
        let mut begun: Vec<_> = events(&reader).iter().map(|event| send(&kept, event)).collect();
        let (last, expected) = begun.pop().unwrap();
        let mut taken = Vec::new();
        while let Some(piece) =
            std::future::poll_fn(|context| last.poll_piece(100_000, &reader, context)).await
        {
            taken.extend(piece.unwrap());
        }
        assert_eq!(taken, expected);
        for (outgoing, expected) in begun {
            assert_eq!(take(&outgoing, &reader).unwrap(), expected);
        }
    }

    /// G21: what cannot be given up does not stop the others.
    #[tokio::test]
    async fn an_answer_goes_on_beside_what_nobody_can_give_up() {
        let (_backend, store) = store();
        let (kept, reader) = (Arc::<Kept>::default(), store.reader());
        let mut kept_for_good = Vec::new();
        while !kept.is_full() {
            let mut parts = Parts::default();
            parts.push_own(vec![0; UNCOUNTED_BYTES_MAX]);
            kept_for_good.push(parts.send(kept.clone()));
        }
        for event in &events(&reader)[..3] {
            let (outgoing, expected) = send(&kept, event);
            let mut taken = Vec::new();
            while let Some(piece) =
                std::future::poll_fn(|context| outgoing.poll_piece(100_000, &reader, context)).await
            {
                taken.extend(piece.unwrap());
            }
            assert_eq!(taken, expected);
        }
    }

    /// G21: an event that cannot be made anew ends the stream, and nothing else comes instead.
    #[test]
    fn an_answer_ends_where_the_store_has_forgotten_its_event() {
        let (backend, mut store) = store();
        let (kept, reader) = (Arc::<Kept>::default(), store.reader());
        let begun: Vec<_> = events(&reader).iter().map(|event| send(&kept, event)).collect();
        let mut writer = store.write(position(&backend));
        writer.compact(reader.revision()).unwrap();
        writer.finish(position(&backend));
        while store.compact_step().unwrap() != CompactStep::Idle {}
        let mut lost = 0;
        for (outgoing, expected) in begun {
            match take(&outgoing, &reader) {
                Ok(taken) => assert_eq!(taken, expected),
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable);
                    lost += 1;
                }
            }
        }
        assert!((10..EVENTS).contains(&lost), "{lost} were lost");
        assert_eq!(kept.bytes(), 0);
    }
}
