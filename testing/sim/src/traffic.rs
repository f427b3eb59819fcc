//! What members send each other: messages, and copies of their databases.

use base::MemberId;
use base::probe::reached;

use member::Input;
use raft::{Body, Message};

use crate::ambush::Ambush;
use crate::judge::Verdict;
use crate::machine::Copied;
use crate::network::Network;
use crate::world::{Event, World};

impl World {
    pub(crate) fn on_deliver(
        &mut self,
        from: usize,
        to: usize,
        connection: u64,
        message: Message,
    ) -> Verdict {
        if self.network.connection(from, to) != connection {
            reached("sim: a connection is lost with a message on it");
            self.give_back(from, message)?;
            return self.report_unreachable(from, to);
        }
        if self.network.is_cut(from, to) || self.machines[to].process.is_none() {
            reached("sim: a message is lost on a cut link or to a member that is down");
            self.give_back(from, message)?;
            return self.report_unreachable(from, to);
        }
        if self.is_kept_from(to, &message) {
            return Ok(());
        }
        let Some(Event::Deliver { message, .. }) =
            self.put_off(to, Event::Deliver { from, to, connection, message })
        else {
            return Ok(());
        };
        if self.config.turn_millis == 0 {
            return self.step(to, Input::Receive(vec![message]));
        }
        self.process(to).turn.messages.push(message);
        self.plan_turn(to);
        Ok(())
    }

    /// What came to a member is given to it soon, with what else comes until then.
    pub(crate) fn plan_turn(&mut self, at: usize) {
        let epoch = self.machines[at].epoch;
        let turn = &self.process(at).turn;
        if turn.messages.len() + turn.proposals.len() + turn.reads.len() == 1 {
            let pause = self.random.below(self.config.turn_millis + 1);
            self.after(pause, Event::Turn { at, epoch });
        }
    }

    pub(crate) fn on_turn(&mut self, at: usize, epoch: u64) -> Verdict {
        if !self.is_current(at, epoch) || self.put_off(at, Event::Turn { at, epoch }).is_none() {
            return Ok(());
        }
        let turn = std::mem::take(&mut self.process(at).turn);
        if !turn.messages.is_empty() && !turn.proposals.is_empty() {
            reached("sim: messages and proposals are taken as one");
        }
        self.step(at, Input::Turn(turn))
    }

    /// Whether a message would spoil an ambush, and is lost: of a new term the member shall hear by
    /// entries that it takes.
    fn is_kept_from(&self, to: usize, message: &Message) -> bool {
        let Some(process) = &self.machines[to].process else { return false };
        if self.machines[to].ambush != Some(Ambush::NewTerm) || message.term <= process.term {
            return false;
        }
        let Body::Append(append) = &message.body else { return self.faulty };
        let takes = append.previous.index == process.member.status().last.index
            && !append.entries.is_empty();
        !takes && self.faulty
    }

    /// A proposal that was passed on is certain not to have arrived.
    fn give_back(&mut self, from: usize, message: Message) -> Verdict {
        let is_proposal = matches!(message.body, Body::Propose(_));
        if !is_proposal || !self.config.gives_back || !self.machines[from].is_running() {
            return Ok(());
        }
        self.process(from).undelivered.keep(vec![message]);
        self.propose_undelivered(from)
    }

    /// As the server does when it hears of such proposals, and when another member leads.
    pub(crate) fn propose_undelivered(&mut self, at: usize) -> Verdict {
        let epoch = self.machines[at].epoch;
        if !self.config.gives_back || !self.machines[at].is_running() {
            return Ok(());
        }
        let Self { machines, waiting, .. } = self;
        let process = machines[at].process.as_mut().expect("it runs");
        let leader = process.member.status().leader;
        let waits = |ticket| waiting.contains_key(&(at, ticket));
        for input in process.undelivered.take_due(leader, waits) {
            if !self.is_current(at, epoch) {
                break;
            }
            reached("sim: a proposal that never arrived is made again");
            self.step(at, input)?;
        }
        Ok(())
    }

    pub(crate) fn report_unreachable(&mut self, from: usize, to: usize) -> Verdict {
        let id = self.machines[to].id;
        if self.machines[from].is_running() && self.random.one_in(3) {
            self.step(from, Input::Unreachable(id))?;
        }
        Ok(())
    }

    pub(crate) fn on_deliver_snapshot(
        &mut self,
        from: usize,
        to: usize,
        message: Message,
        connection: u64,
        copied: Copied,
    ) -> Verdict {
        let (epoch, id) = (self.machines[from].epoch, self.machines[to].id);
        let reachable = !self.network.is_cut(from, to)
            && self.network.connection(from, to) == connection
            && self.machines[to].is_running();
        if !reachable {
            reached("sim: a snapshot is lost on its way");
            self.after(10, Event::SnapshotSent { at: from, epoch, to: id, ok: false });
            return Ok(());
        }
        let position = copied.position;
        let stored = match self.process(to).receive_snapshot(&copied) {
            Ok(stored) => stored,
            Err(stop) => {
                reached("sim: the disk fails while a snapshot is stored");
                self.after(10, Event::SnapshotSent { at: from, epoch, to: id, ok: false });
                return self.stop(to, stop);
            }
        };
        if !stored {
            reached("sim: no room for a snapshot that arrives");
        }
        if self.process(to).is_writing {
            reached("sim: a snapshot arrives while the log is written");
        }
        self.after(10, Event::SnapshotSent { at: from, epoch, to: id, ok: stored });
        if stored {
            self.note(|| format!("{id} got the snapshot at {position}"));
            self.step(to, Input::Receive(vec![message]))?;
            if self.machines[to].process.is_some()
                && let Err(stop) = self.process(to).discard_unwanted()
            {
                return self.stop(to, stop);
            }
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, from: usize, messages: Vec<Message>) {
        for message in messages {
            let machine = &mut self.machines[from];
            if let Some(process) = &machine.process {
                machine.vows.on_sent(&message, process);
            }
            let Some(&to) = self.by_id.get(&message.to) else { continue };
            let mut delays = Network::delays(&mut self.random, &self.config, self.faulty);
            if let Body::Propose(_) = message.body {
                // Members talk over connections, which repeat nothing. Only here it would matter:
                // what is proposed twice is applied twice.
                delays.truncate(1);
            }
            match delays.len() {
                0 => reached("sim: a message is lost"),
                1 if self.config.election_millis() < delays[0] => {
                    reached("sim: a message is later than an election");
                }
                1 => {}
                _ => reached("sim: a message comes twice"),
            }
            for delay in delays {
                let message = message.clone();
                let delay = delay + self.network.extra_millis(from, to);
                let connection = self.network.connection(from, to);
                self.after(delay, Event::Deliver { from, to, connection, message });
            }
        }
    }

    pub(crate) fn send_snapshot(&mut self, from: usize, message: Message) {
        let copy = self.process(from).copies.remove(&message.to);
        let copied = copy.expect("a snapshot is sent with its copy");
        let Body::Snapshot(meta) = &message.body else { unreachable!("a snapshot goes with it") };
        assert_eq!(meta.position, copied.position, "message and copy are of one moment");
        let (id, epoch) = (message.to, self.machines[from].epoch);
        let delay = self.random.below(self.config.latency_millis * 5 + 1);
        match self.by_id.get(&id) {
            Some(&to) if !(self.faulty && self.random.one_in(10)) => {
                let connection = self.network.connection(from, to);
                let event = Event::DeliverSnapshot { from, to, message, connection, copied };
                self.after(delay, event);
            }
            _ => self.after(delay, Event::SnapshotSent { at: from, epoch, to: id, ok: false }),
        }
    }

    pub(crate) fn on_copy(&mut self, at: usize, epoch: u64, to: MemberId) -> Verdict {
        if !self.is_current(at, epoch) || self.put_off(at, Event::Copy { at, epoch, to }).is_none()
        {
            return Ok(());
        }
        match self.process(at).begin_copy(to) {
            Ok(true) => {
                // It is read while the database goes on.
                let pause = self.random.below(600);
                self.after(pause, Event::ReadCopy { at, epoch, to });
                Ok(())
            }
            Ok(false) => self.step(at, Input::SnapshotSent(to, false)),
            Err(stop) => self.stop(at, stop),
        }
    }

    pub(crate) fn on_read_copy(&mut self, at: usize, epoch: u64, to: MemberId) -> Verdict {
        if !self.is_current(at, epoch)
            || self.put_off(at, Event::ReadCopy { at, epoch, to }).is_none()
        {
            return Ok(());
        }
        match self.process(at).read_copy(to) {
            Ok(input) => {
                self.step(at, input)?;
                if self.machines[at].process.is_some() {
                    self.process(at).copies.remove(&to);
                }
                Ok(())
            }
            Err(stop) => self.stop(at, stop),
        }
    }
}
