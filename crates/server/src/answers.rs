//! The way back from the node loop: the answers of a batch cross to the network thread together.
//!
//! Given one by one, the first answer would wake the network thread, and it would write that answer
//! out while the others are still on their way: a system call for each (docs/design/0005).

use member::Answer;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

/// An answer and who waits for it.
pub(crate) type Given = (oneshot::Sender<Answer>, Answer);

/// Batches that may wait for the network thread; the loop waits when it is this far behind.
const QUEUE_LEN: usize = 1024;

/// The node loop's end.
#[derive(Debug)]
pub(crate) struct Answers {
    batches: Sender<Vec<Given>>,
}

/// Makes both ends; the second is for [`deliver`].
pub(crate) fn channel() -> (Answers, Receiver<Vec<Given>>) {
    let (batches, receiver) = mpsc::channel(QUEUE_LEN);
    (Answers { batches }, receiver)
}

impl Answers {
    /// Hands over the answers of one batch.
    pub(crate) fn give(&self, answers: Vec<Given>) {
        if answers.is_empty() {
            return;
        }
        if let Err(gone) = self.batches.blocking_send(answers) {
            hand_out(gone.0);
        }
    }
}

/// Hands answers to their callers, on the thread where these run; ends with the node loop.
pub(crate) async fn deliver(mut batches: Receiver<Vec<Given>>) {
    while let Some(answers) = batches.recv().await {
        hand_out(answers);
    }
}

fn hand_out(answers: Vec<Given>) {
    for (reply, answer) in answers {
        // A caller that gave up needs no answer.
        drop(reply.send(answer));
    }
}
