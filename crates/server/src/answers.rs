//! The way back from the node loop: the answers of a batch cross to a network thread together.
//!
//! Given one by one, the first answer would wake the network thread, and it would write that answer
//! out while the others are still on their way: a system call for each (docs/design/0005).

use std::cell::Cell;

use member::Answer;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

thread_local! {
    /// Which network thread this is; the first one is 0.
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Says which network thread this is.
pub(crate) fn set_shard(number: usize) {
    SHARD.set(number);
}

/// Who waits for an answer, and where.
#[derive(Debug)]
pub(crate) struct Waiter {
    shard: usize,
    reply: oneshot::Sender<Answer>,
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

impl Waiter {
    /// Waits on this thread.
    pub(crate) fn here() -> (Self, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (Self { shard: SHARD.get(), reply }, answer)
    }
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
    if answers.is_empty() {
        return;
    }
    if let Err(gone) = shard.blocking_send(answers) {
        hand_out(gone.0);
    }
}

/// Hands answers to their callers, on the thread where these run; ends with the node loop.
pub(crate) async fn deliver(mut batches: Receiver<Vec<Given>>) {
    while let Some(answers) = batches.recv().await {
        hand_out(answers);
    }
}

fn hand_out(answers: Vec<Given>) {
    for (waiter, answer) in answers {
        // A caller that gave up needs no answer.
        drop(waiter.reply.send(answer));
    }
}
