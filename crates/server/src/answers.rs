//! The way back from the node loop: the answers of a batch cross to a network thread together.
//!
//! Given one by one, the first answer would wake the network thread, and it would write that answer
//! out while the others are still on their way: a system call for each (docs/design/0005).
//!
//! A caller on a network thread waits at a place in a table of that thread, which nobody else
//! touches: no channel, no timer, no lock for each request. The thread looks through its table
//! every [`SWEEP`] for those that waited too long. Other threads, of which there are few, use a
//! channel and a timer.
//!
//! Invariant: a place is given to another caller only after its caller is gone, and then under
//! another number, so that a late answer finds nobody.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use member::{Answer, Ticket};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::wakes::Wakes;

/// Between two looks at who waited too long. A caller waits up to this much longer than it asked.
const SWEEP: Duration = Duration::from_millis(100);

/// Places that an idle thread keeps.
const PLACES_KEPT: usize = 1024;

thread_local! {
    /// Which network thread this is; the first one is 0.
    static SHARD: Cell<usize> = const { Cell::new(0) };
    /// Who waits on this thread.
    static PLACES: RefCell<Places> = const { RefCell::new(Places::new()) };
}

/// Says which network thread this is.
pub(crate) fn set_shard(number: usize) {
    SHARD.set(number);
}

/// Which network thread this is; 0 on threads that are none.
pub(crate) fn shard() -> usize {
    SHARD.get()
}

/// Where an answer goes.
#[derive(Debug)]
pub(crate) struct Waiter {
    shard: usize,
    reply: Reply,
}

#[derive(Debug)]
enum Reply {
    Place(Place),
    Channel(oneshot::Sender<Answer>),
}

/// A place in the table of a thread, for one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    index: usize,
    number: u64,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) struct Waiting(Source);

#[derive(Debug)]
enum Source {
    Place(Place),
    Channel(oneshot::Receiver<Answer>, Pin<Box<Sleep>>),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It did not come in time.
    Late,
    /// The node loop ended.
    Ended,
}

/// The table of a network thread.
#[derive(Debug)]
struct Places {
    places: Vec<Taken>,
    free: Vec<usize>,
    /// Of the next caller.
    number: u64,
    /// Wakes the task that looks through the table; `None` on threads without one.
    attendant: Option<Waker>,
    /// Whether that task knows that somebody waits.
    watched: bool,
}

#[derive(Debug)]
struct Taken {
    number: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    /// Late after so many sweeps.
    Waits {
        caller: Option<Waker>,
        sweeps_left: u32,
    },
    Over(Result<Answer, Missing>),
}

impl Places {
    const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), number: 0, attendant: None, watched: false }
    }

    /// A place for a caller, if somebody looks after the table.
    fn take(&mut self, timeout: Duration) -> Option<Place> {
        let attendant = self.attendant.as_ref()?;
        if !std::mem::replace(&mut self.watched, true) {
            attendant.wake_by_ref();
        }
        let sweeps = timeout.as_millis().div_ceil(SWEEP.as_millis()) + 1;
        let sweeps_left = u32::try_from(sweeps).unwrap_or(u32::MAX);
        self.number += 1;
        let (number, state) = (self.number, State::Waits { caller: None, sweeps_left });
        let taken = Taken { number, state };
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index] = taken;
                index
            }
            None => {
                self.places.push(taken);
                self.places.len() - 1
            }
        };
        Some(Place { index, number })
    }

    /// What stands at a place, unless its caller is gone.
    fn state(&mut self, place: Place) -> Option<&mut State> {
        let taken = self.places.get_mut(place.index)?;
        (taken.number == place.number).then_some(&mut taken.state)
    }

    /// Ends the wait at a place; whom to wake.
    fn end(&mut self, place: Place, result: Result<Answer, Missing>) -> Option<Waker> {
        let state = self.state(place)?;
        match std::mem::replace(state, State::Over(result)) {
            State::Waits { caller, .. } => caller,
            before @ (State::Free | State::Over(_)) => {
                // Nobody gets an answer twice.
                *state = before;
                None
            }
        }
    }

    fn leave(&mut self, place: Place) {
        let Some(state) = self.state(place) else { return };
        *state = State::Free;
        self.places[place.index].number = 0;
        self.free.push(place.index);
        if self.free.len() == self.places.len() && PLACES_KEPT < self.places.len() {
            self.places = Vec::new();
            self.free = Vec::new();
        }
    }

    /// One interval has passed: those that waited too long, to be woken; whether anybody waits on.
    fn sweep(&mut self) -> (Vec<Waker>, bool) {
        let (mut late, mut waits) = (Vec::new(), false);
        for taken in &mut self.places {
            let State::Waits { caller, sweeps_left } = &mut taken.state else { continue };
            *sweeps_left -= 1;
            if *sweeps_left == 0 {
                late.extend(caller.take());
                taken.state = State::Over(Err(Missing::Late));
            } else {
                waits = true;
            }
        }
        self.watched = waits;
        (late, waits)
    }

    /// No answer will come any more: all that wait, to be woken.
    fn close(&mut self) -> Vec<Waker> {
        self.attendant = None;
        let mut waiting = Vec::new();
        for taken in &mut self.places {
            if let State::Waits { caller, .. } = &mut taken.state {
                waiting.extend(caller.take());
                taken.state = State::Over(Err(Missing::Ended));
            }
        }
        waiting
    }
}

impl Waiter {
    /// Waits on this thread, for about so long.
    pub(crate) fn here(timeout: Duration) -> (Self, Waiting) {
        let shard = SHARD.get();
        match PLACES.with_borrow_mut(|places| places.take(timeout)) {
            Some(place) => {
                (Self { shard, reply: Reply::Place(place) }, Waiting(Source::Place(place)))
            }
            None => {
                let (reply, answer) = oneshot::channel();
                let waiting = Source::Channel(answer, Box::pin(sleep(timeout)));
                (Self { shard, reply: Reply::Channel(reply) }, Waiting(waiting))
            }
        }
    }
}

/// Must be polled on the thread where it was made.
impl Future for Waiting {
    type Output = Result<Answer, Missing>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let place = match &mut self.0 {
            Source::Place(place) => *place,
            Source::Channel(answer, late) => {
                if let Poll::Ready(answer) = Pin::new(answer).poll(context) {
                    return Poll::Ready(answer.map_err(|_| Missing::Ended));
                }
                ready!(late.as_mut().poll(context));
                return Poll::Ready(Err(Missing::Late));
            }
        };
        PLACES.with_borrow_mut(|places| {
            let state = places.state(place).expect("the place is kept until its caller is gone");
            match state {
                State::Waits { caller, .. } => {
                    if !caller.as_ref().is_some_and(|caller| caller.will_wake(context.waker())) {
                        *caller = Some(context.waker().clone());
                    }
                    Poll::Pending
                }
                State::Over(_) => {
                    let over = std::mem::replace(state, State::Free);
                    let State::Over(result) = over else { unreachable!("it was just looked at") };
                    Poll::Ready(result)
                }
                State::Free => panic!("an answer is taken once"),
            }
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Source::Place(place) = self.0 {
            // The table may be gone before the last task of a thread that ends.
            let _left = PLACES.try_with(|places| places.borrow_mut().leave(place));
        }
    }
}

/// Who waits for which answer.
pub(crate) type Waiters = HashMap<Ticket, Waiter, BuildHasherDefault<TicketHasher>>;

/// Spreads tickets, which this server numbers itself, so that nobody can choose them.
#[derive(Debug, Default)]
pub(crate) struct TicketHasher(u64);

impl Hasher for TicketHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // An odd factor without pattern moves what tells tickets apart to the upper bits, too.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0 ^ number).wrapping_mul(FACTOR);
        self.0 ^= self.0 >> 32;
    }
}

/// An answer and who waits for it.
pub(crate) type Given = (Waiter, Answer);

/// Batches that may wait for a network thread; the loop waits when it is this far behind.
const QUEUE_LEN: usize = 1024;

/// The node loop's end.
#[derive(Debug)]
pub(crate) struct Answers {
    shards: Vec<Sender<Vec<Given>>>,
}

/// Makes both ends for so many network threads; the second ones are for [`deliver`].
pub(crate) fn channels(shards: usize) -> (Answers, Vec<Receiver<Vec<Given>>>) {
    let (shards, receivers) = (0..shards).map(|_| mpsc::channel(QUEUE_LEN)).unzip();
    (Answers { shards }, receivers)
}

impl Answers {
    /// Hands over the answers of one batch.
    pub(crate) fn give(&self, answers: Vec<Given>) {
        if let [only] = &self.shards[..] {
            return send(only, answers);
        }
        let mut batches: Vec<Vec<Given>> = self.shards.iter().map(|_| Vec::new()).collect();
        for (waiter, answer) in answers {
            batches[waiter.shard].push((waiter, answer));
        }
        for (shard, batch) in self.shards.iter().zip(batches) {
            send(shard, batch);
        }
    }
}

fn send(shard: &Sender<Vec<Given>>, answers: Vec<Given>) {
    if !answers.is_empty() {
        // A thread that is gone has no callers any more.
        drop(shard.blocking_send(answers));
    }
}

/// Looks after the callers of this network thread, and after its [`Wakes`]; ends with the node
/// loop.
pub(crate) async fn deliver(mut batches: Receiver<Vec<Given>>) {
    let wakes = Wakes::here();
    let mut sweep: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(|context| {
        wakes.attend(context);
        let watched = PLACES.with_borrow_mut(|places| {
            if !places.attendant.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                places.attendant = Some(context.waker().clone());
            }
            places.watched
        });
        loop {
            match batches.poll_recv(context) {
                Poll::Ready(Some(answers)) => hand_out(answers),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if watched && sweep.is_none() {
            sweep = Some(Box::pin(sleep(SWEEP)));
        }
        while let Some(pause) = &mut sweep {
            ready!(pause.as_mut().poll(context));
            let (late, waits) = PLACES.with_borrow_mut(Places::sweep);
            late.into_iter().for_each(Waker::wake);
            sweep = waits.then(|| Box::pin(sleep(SWEEP)));
        }
        Poll::Pending
    })
    .await;
    wakes.leave();
    let waiting = PLACES.with_borrow_mut(Places::close);
    waiting.into_iter().for_each(Waker::wake);
}

fn hand_out(answers: Vec<Given>) {
    for (waiter, answer) in answers {
        // A caller that gave up needs no answer.
        let caller = match waiter.reply {
            Reply::Place(place) => PLACES.with_borrow_mut(|places| places.end(place, Ok(answer))),
            Reply::Channel(reply) => {
                drop(reply.send(answer));
                None
            }
        };
        if let Some(caller) = caller {
            caller.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// One thread with both ends.
    async fn attended() -> Answers {
        let (answers, mut receivers) = channels(1);
        tokio::spawn(deliver(receivers.pop().unwrap()));
        yield_now().await;
        answers
    }

    async fn give(answers: &Answers, given: Vec<Given>) {
        answers.shards[0].send(given).await.unwrap();
    }

    #[tokio::test]
    async fn answers_find_their_callers() {
        let answers = attended().await;
        let (waiters, waiting): (Vec<_>, Vec<_>) = (0..50).map(|_| Waiter::here(LONG)).unzip();
        assert!(waiting.iter().all(|waiting| matches!(waiting.0, Source::Place(_))));
        let numbered = waiters.into_iter().zip((0..).map(|n| Answer::Lease(Some(n))));
        let mut given: Vec<Given> = numbered.collect();
        given.reverse();
        give(&answers, given).await;
        for (waiting, expected) in waiting.into_iter().zip(0..) {
            let Ok(Answer::Lease(Some(got))) = waiting.await else { panic!("no answer") };
            assert_eq!(got, expected);
        }
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told() {
        let answers = attended().await;
        let (_kept, patient) = Waiter::here(LONG);
        let (late, waiting) = Waiter::here(SWEEP);
        assert_eq!(waiting.await.unwrap_err(), Missing::Late);
        // Its answer comes all the same, when another one has the place.
        let (next, waiting) = Waiter::here(LONG);
        give(&answers, vec![(late, Answer::Read), (next, Answer::Lease(None))]).await;
        assert!(matches!(waiting.await, Ok(Answer::Lease(None))));
        drop(answers);
        assert_eq!(patient.await.unwrap_err(), Missing::Ended);
    }

    /// Threads that are no network threads, and the time after the node loop ended.
    #[tokio::test]
    async fn without_a_table_a_channel_serves() {
        let (waiter, waiting) = Waiter::here(LONG);
        hand_out(vec![(waiter, Answer::Read)]);
        assert!(matches!(waiting.await, Ok(Answer::Read)));
        let (waiter, waiting) = Waiter::here(SWEEP);
        assert_eq!(waiting.await.unwrap_err(), Missing::Late);
        drop(waiter);
        let (waiter, waiting) = Waiter::here(LONG);
        drop(waiter);
        assert_eq!(waiting.await.unwrap_err(), Missing::Ended);
    }
}
