//! The node loop's queue: what the services, the network and the store thread tell it.
//!
//! The queue is bounded. Who asks is refused when it is full; who only brings news either brings it
//! again or waits for room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use base::{LogPosition, MemberId};
use member::{Input, Proposal, Ticket};
use parking_lot::Mutex;
use raft::Message;
use storage::Arrived;
use tokio::sync::oneshot;

use crate::answers::Waiter;
use crate::handle::ProposeError;
use crate::peers::copies::Copied;

/// Requests that wait for the node loop. Full means overload, and the caller is told so.
const QUEUE_LEN: usize = 16 * 1024;

/// What callers ask of the node loop.
#[derive(Debug)]
pub(crate) enum Question {
    Propose(Proposal),
    Read(Ticket),
    /// What is asked rarely, as the member takes it.
    Other(Input),
}

/// What the loop is told.
#[derive(Debug)]
pub(crate) enum Command {
    Ask {
        question: Question,
        ticket: Ticket,
        reply: Waiter,
    },
    /// Messages of other members.
    Receive(Vec<Message>),
    Rare(Rare),
    Stop,
}

/// The members as a leader sees them at one moment.
#[derive(Debug)]
pub(crate) struct Standings {
    /// Who votes.
    pub(crate) voters: BTreeSet<MemberId>,
    /// How far each other member is; none unless this one leads.
    pub(crate) peers: Vec<(MemberId, raft::PeerStatus)>,
}

/// What the loop is told rarely.
#[derive(Debug)]
pub(crate) enum Rare {
    /// A caller went away without its answer.
    Forget(Ticket),
    /// Who votes, and how far each other member is, is wanted.
    Standings(oneshot::Sender<Standings>),
    /// Whether a learner has nearly everything is wanted.
    LearnerReady(MemberId, oneshot::Sender<Option<bool>>),
    /// A snapshot of the leader: the message, and the database beside it. It is told when both are
    /// taken.
    ReceiveSnapshot(Message, Arrived, oneshot::Sender<()>),
    /// Messages to a member got lost.
    Unreachable(MemberId),
    /// Proposals that certainly never reached the leader.
    Undelivered(Vec<Message>),
    /// A copy of the state for a member, if one could be made.
    Copied(MemberId, Option<Box<Copied>>),
    /// A snapshot was sent, or not.
    SnapshotSent(MemberId, bool),
    /// Another member says that this one was removed.
    Removed,
    /// The state is durable up to here.
    Durable(LogPosition),
    /// The database has no room.
    DiskFull,
    /// So many units of logical time are taken as gone by.
    Advance(u64),
}

/// The loop's end of its queue.
#[derive(Debug)]
pub(crate) struct NodeCommands {
    pub(crate) receiver: Receiver<Command>,
    pub(crate) gone: Gone,
}

/// Callers that went away when the queue had no room to say so, and how often they will still be
/// looked for. No more than callers were in the queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gone(Arc<Mutex<Vec<(Ticket, u8)>>>);

impl Gone {
    /// The question may still be in the queue, which is taken in fewer turns than this.
    const LOOKS: u8 = 32;

    /// Those of whom the loop knows by now; once a tick.
    pub(crate) fn take(&self, is_known: impl Fn(Ticket) -> bool) -> Vec<Ticket> {
        let mut known = Vec::new();
        self.0.lock().retain_mut(|(ticket, looks)| {
            *looks -= 1;
            if is_known(*ticket) {
                known.push(*ticket);
                return false;
            }
            // It was answered before it could be forgotten.
            0 < *looks
        });
        known
    }
}

/// Both ends of a new queue.
pub(crate) fn queue() -> (NodeQueue, NodeCommands) {
    let (sender, commands) = sync_channel(QUEUE_LEN);
    let gone = Gone::default();
    let queue = NodeQueue { commands: sender, gone: gone.clone() };
    (queue, NodeCommands { receiver: commands, gone })
}

/// The callers' end of the node loop's queue.
#[derive(Clone, Debug)]
pub(crate) struct NodeQueue {
    commands: SyncSender<Command>,
    gone: Gone,
}

impl NodeQueue {
    /// Hands a question over; the answer comes through `reply`, or never if the member stops.
    pub(crate) fn send(
        &self,
        question: Question,
        ticket: Ticket,
        reply: Waiter,
    ) -> Result<(), ProposeError> {
        self.try_send(Command::Ask { question, ticket, reply })
    }

    /// Lets the loop forget a caller.
    pub(crate) fn forget(&self, ticket: Ticket) {
        let told = self.commands.try_send(Command::Rare(Rare::Forget(ticket)));
        if matches!(told, Err(TrySendError::Full(_))) {
            self.gone.0.lock().push((ticket, Gone::LOOKS));
        }
    }

    /// Who votes, and how far each other member is.
    pub(crate) async fn standings(&self) -> Result<Standings, ProposeError> {
        self.inquire(Rare::Standings).await
    }

    /// Whether a learner has nearly everything; `None` if this member cannot tell.
    pub(crate) async fn learner_ready(&self, id: MemberId) -> Result<Option<bool>, ProposeError> {
        self.inquire(|reply| Rare::LearnerReady(id, reply)).await
    }

    async fn inquire<T>(
        &self,
        news: impl FnOnce(oneshot::Sender<T>) -> Rare,
    ) -> Result<T, ProposeError> {
        let (reply, answer) = oneshot::channel();
        self.try_send(Command::Rare(news(reply)))?;
        answer.await.map_err(|_| ProposeError::Stopped)
    }

    fn try_send(&self, command: Command) -> Result<(), ProposeError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => ProposeError::Overloaded,
            TrySendError::Disconnected(_) => ProposeError::Stopped,
        })
    }

    /// Hands over messages of other members; how many there was no room for.
    pub(crate) fn receive(&self, messages: Vec<Message>) -> usize {
        let count = messages.len();
        self.commands.try_send(Command::Receive(messages)).map_or(count, |()| 0)
    }

    /// Hands over a snapshot of the leader; returns when it is taken.
    pub(crate) async fn receive_snapshot(
        &self,
        message: Message,
        arrived: Arrived,
    ) -> Result<(), ProposeError> {
        self.inquire(|reply| Rare::ReceiveSnapshot(message, arrived, reply)).await
    }

    /// Tells the loop that messages to a member got lost.
    pub(crate) fn unreachable(&self, peer: MemberId) {
        // The next loss tells it again.
        let _told = self.commands.try_send(Command::Rare(Rare::Unreachable(peer)));
    }

    /// Gives proposals back that certainly never reached the leader.
    pub(crate) fn undelivered(&self, proposals: Vec<Message>) {
        // What finds no room is lost as it would be on the way.
        let _told = self.commands.try_send(Command::Rare(Rare::Undelivered(proposals)));
    }

    /// Hands over a copy of the state for a member; `None` if none could be made. Waits for room.
    pub(crate) fn copied(&self, to: MemberId, copied: Option<Box<Copied>>) {
        let _gone = self.commands.send(Command::Rare(Rare::Copied(to, copied)));
    }

    /// Tells the loop how sending a snapshot ended; `false` if there was no room to.
    pub(crate) fn try_snapshot_sent(&self, to: MemberId, succeeded: bool) -> bool {
        let told = self.commands.try_send(Command::Rare(Rare::SnapshotSent(to, succeeded)));
        !matches!(told, Err(TrySendError::Full(_)))
    }

    /// As [`NodeQueue::try_snapshot_sent`], and waits for room.
    pub(crate) fn snapshot_sent(&self, to: MemberId, succeeded: bool) {
        let _gone = self.commands.send(Command::Rare(Rare::SnapshotSent(to, succeeded)));
    }

    /// Tells the loop that this member was removed.
    pub(crate) fn removed(&self) {
        // It is said again and again.
        let _told = self.commands.try_send(Command::Rare(Rare::Removed));
    }

    /// Tells the loop that the state is durable up to `position`. Waits for room: after a full disk
    /// nothing may be written, and then nobody would tell it again.
    pub(crate) fn durable(&self, position: LogPosition) {
        let _gone = self.commands.send(Command::Rare(Rare::Durable(position)));
    }

    /// Tells the loop that the database has no room; waits for some in the queue.
    pub(crate) fn disk_full(&self) {
        let _gone = self.commands.send(Command::Rare(Rare::DiskFull));
    }

    /// Lets units of logical time go by at once.
    pub(crate) fn advance(&self, ticks: u64) {
        // In a full queue there is no lack of messages of a leader.
        let _told = self.commands.try_send(Command::Rare(Rare::Advance(ticks)));
    }

    /// Asks the loop to end; waits for room in the queue.
    pub(crate) fn stop(&self) {
        let _told = self.commands.send(Command::Stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_that_go_while_the_queue_is_full_are_forgotten() {
        let (queue, commands) = queue();
        let news = || Command::Rare(Rare::Removed);
        while queue.try_send(news()).is_ok() {}
        queue.forget(Ticket(7));
        queue.forget(Ticket(8));
        // The question of one is still in the queue, the other's was answered.
        assert_eq!(commands.gone.take(|_| false), []);
        assert_eq!(commands.gone.take(|ticket| ticket == Ticket(7)), [Ticket(7)]);
        for _ in 0..Gone::LOOKS {
            assert_eq!(commands.gone.take(|_| false), []);
        }
        assert!(commands.gone.0.lock().is_empty());
    }

    #[test]
    fn the_store_thread_waits_until_it_is_heard() {
        let (queue, commands) = queue();
        while queue.try_send(Command::Rare(Rare::Removed)).is_ok() {}
        let teller = std::thread::spawn(move || {
            queue.disk_full();
            queue.durable(LogPosition::default());
        });
        let heard: Vec<Command> = commands.receiver.iter().collect();
        teller.join().unwrap();
        let last = &heard[heard.len() - 2..];
        let expected =
            [Rare::DiskFull, Rare::Durable(LogPosition::default())].map(|news| format!("{news:?}"));
        for (heard, expected) in last.iter().zip(expected) {
            let Command::Rare(news) = heard else { panic!("{heard:?}") };
            assert_eq!(format!("{news:?}"), expected);
        }
    }
}
