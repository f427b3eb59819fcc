//! Clients of the v2 generation: changes through the log as the server proposes them, reads of what
//! a member has, clients that wait, and the leader that says what time it is, so that keys end.
//!
//! Every answer is judged with the log ([`crate::model`]); here is judged what only a client sees:
//! that its changes follow those it knew of, and that who waits is told of everything.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use base::probe::reached;
use history::{V2Event, V2Node, V2Refusal, V2Said, V2Wait};
use member::{Answer, Input, Proposal, Ticket};
use prost::Message as _;
use proto::v2pb;
use raft::RoleKind;
use state::{Applied, Reply};

use crate::judge::Verdict;
use crate::random::Random;
use crate::world::{Event, World};

/// Nodes that clients speak of, with the namespace.
const PATHS: [&str; 10] = [
    "/1/a", "/1/b", "/1/d", "/1/d/x", "/1/d/y", "/1/d/_h", "/1/_h/x", "/1/d/e/z", "/1/q", "/1/a/b",
];

/// Nodes that clients wait for.
const WAITED_FOR: [&str; 7] = ["/1", "/1", "/1/a", "/1/d", "/1/d/x", "/1/d/_h", "/1/q"];

/// A caller gives up after so long.
const CALL_MILLIS: u64 = 5000;

/// How often a leader says what time it is.
const CLOCK_MILLIS: u64 = 500;

/// Changes that nobody waits for: together more than members remember.
const BURSTS: u64 = 9;
const BURST_LEN: usize = 150;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// The clients of the v2 generation.
#[derive(Debug)]
pub(crate) struct Second {
    clients: Vec<SecondClient>,
    waits: Vec<Waiting>,
    /// Who waits for an answer.
    asked: BTreeMap<(usize, Ticket), usize>,
    /// The newest index that any client was told of.
    told: u64,
    number: u64,
    /// Bursts that are left, in a life whose members shall forget the first changes.
    bursts: u64,
}

#[derive(Debug, Default)]
struct SecondClient {
    call: Option<SecondCall>,
    /// What it last knew of a node, to compare.
    known: (String, u64),
}

#[derive(Debug)]
struct SecondCall {
    at: usize,
    ticket: Ticket,
    since_millis: u64,
    /// What clients had been told when it was asked.
    floor: u64,
}

/// One that waits for changes.
#[derive(Debug, Default)]
struct Waiting {
    at: usize,
    epoch: u64,
    open: Option<(v2store::Watcher, V2Wait)>,
}

impl Second {
    pub(crate) fn new(forgets: bool, random: &mut Random) -> Self {
        let clients = (0..random.between(1, 3)).map(|_| SecondClient::default()).collect();
        let waits = (0..random.between(1, 4)).map(|_| Waiting::default()).collect();
        let bursts = if forgets { BURSTS } else { 0 };
        Self { clients, waits, asked: BTreeMap::new(), told: 0, number: 0, bursts }
    }

    /// How many clients and how many that wait.
    pub(crate) fn numbers(&self) -> (usize, usize) {
        (self.clients.len(), self.waits.len())
    }

    /// A member is gone with what was asked there.
    pub(crate) fn forget_member(&mut self, at: usize) {
        self.asked.retain(|(other, _), _| *other != at);
        for client in &mut self.clients {
            client.call.take_if(|call| call.at == at);
        }
        for waiting in &mut self.waits {
            waiting.open.take_if(|_| waiting.at == at);
        }
    }

    /// A snapshot brought a member's tree to an index.
    pub(crate) fn on_restored(&mut self, at: usize, index: u64) {
        for waiting in self.waits.iter_mut().filter(|waiting| waiting.at == at) {
            if let Some((_, wait)) = &mut waiting.open {
                wait.on_jump(index);
            }
        }
    }

    /// Whether somebody waits at a member.
    pub(crate) fn waits_at(&self, at: usize) -> bool {
        self.waits.iter().any(|waiting| waiting.at == at && waiting.open.is_some())
    }
}

impl World {
    fn second(&mut self) -> &mut Second {
        self.second.as_mut().expect("there are clients of the v2 generation")
    }

    /// A snapshot took the place of a member's tree.
    pub(crate) fn on_second_restored(&mut self, at: usize) {
        if self.second.is_some() {
            let index = self.process(at).member.state().reads().v2().index();
            self.second().on_restored(at, index);
        }
    }

    /// What a member's wall clock shows, in nanoseconds.
    pub(crate) fn wall_nanos(&self, at: usize) -> i64 {
        let millis = self.now + self.machines[at].wall_ahead_millis;
        i64::try_from(millis).expect("a clock shows a date") * NANOS_PER_MILLI
    }

    pub(crate) fn on_second(&mut self, number: usize) -> Verdict {
        if !self.faulty {
            return Ok(());
        }
        let pause = self.side.between(1, 2 * self.config.think_millis);
        self.after(pause, Event::Second { number });
        let now = self.now;
        let client = &mut self.second().clients[number];
        if client.call.as_ref().is_some_and(|call| now < call.since_millis + CALL_MILLIS) {
            return Ok(());
        }
        if let Some(SecondCall { at, ticket, .. }) = client.call.take() {
            self.second().asked.remove(&(at, ticket));
        }
        let at = self.side.index(self.machines.len());
        if !self.machines[at].is_running() {
            return Ok(());
        }
        if self.side.one_in(6) {
            return self.read_second(at);
        }
        let bursts = self.second().bursts;
        let is_burst = bursts != 0 && self.side.one_in(5);
        if is_burst {
            self.second().bursts -= 1;
        }
        for _ in 0..if is_burst { BURST_LEN } else { 1 } {
            if self.machines[at].is_running() {
                self.ask_second(number, at, is_burst)?;
            }
        }
        Ok(())
    }

    /// Asks for some change; in a burst for one that nobody refuses.
    fn ask_second(&mut self, number: usize, at: usize, is_burst: bool) -> Verdict {
        let (clock, now) = (self.wall_nanos(at), self.now);
        let second = self.second.as_mut().expect("there are clients of the v2 generation");
        second.number += 1;
        let (nth, floor) = (second.number, second.told);
        let mut request = match is_burst {
            true => put("/1/s", nth),
            false => wish(&mut self.side, nth, &second.clients[number].known),
        };
        request.time = Some(clock);
        if let Some(ttl) = request.expiration {
            request.expiration = Some(clock + ttl);
        }
        let ticket = Ticket(self.process(at).ids.next_id());
        request.id = Some(ticket.0);
        let second = self.second();
        let call = SecondCall { at, ticket, since_millis: now, floor };
        if let Some(before) = second.clients[number].call.replace(call) {
            second.asked.remove(&(before.at, before.ticket));
        }
        second.asked.insert((at, ticket), number);
        self.propose_second(at, ticket, &request)
    }

    fn propose_second(&mut self, at: usize, ticket: Ticket, request: &v2pb::Request) -> Verdict {
        let request = request.encode_to_vec().into();
        let epoch = self.machines[at].epoch;
        self.on_call(at, epoch, Input::Propose(vec![Proposal { ticket, request }]))
    }

    /// A client of the v2 generation is answered, if this is one of its calls.
    pub(crate) fn on_second_answer(
        &mut self,
        at: usize,
        ticket: Ticket,
        answer: &Answer,
    ) -> Verdict {
        let Some(second) = &mut self.second else { return Ok(()) };
        let Some(number) = second.asked.remove(&(at, ticket)) else { return Ok(()) };
        let Some(call) = second.clients[number].call.take() else { return Ok(()) };
        let Answer::Applied(applied) = answer else { return Ok(()) };
        self.judge.on_told(ticket.0);
        let Applied::Done(Reply::V2(said)) = applied else { return Ok(()) };
        let index = match said {
            Ok(event) => event.index,
            Err(refusal) => refusal.index,
        };
        let is_behind = if said.is_ok() { index <= call.floor } else { index < call.floor };
        if is_behind {
            return Err(format!("a v2 change at {index} after {} was told", call.floor));
        }
        mark_said(said);
        let second = self.second();
        second.told = second.told.max(index);
        if let Ok(event) = said {
            let value = event.node.value.as_deref().unwrap_or_default().to_owned();
            second.clients[number].known = (value, event.node.modified);
        }
        Ok(())
    }

    /// A client reads what a member has. What that should be is only known of the newest.
    fn read_second(&mut self, at: usize) -> Verdict {
        let reader = self.process(at).member.state().reads().v2().clone();
        let path = self.side.choose(&PATHS);
        if reader.index() != self.judge.model.second.index() {
            return Ok(());
        }
        let found = reader.get(path, false, 0);
        self.judge_found(path, &found)
    }

    fn judge_found(&self, path: &str, found: &Result<v2store::Event, v2store::Error>) -> Verdict {
        let model = &self.judge.model.second;
        let (said, expected) = (said_of(found.as_ref()), model.get(path));
        if said != expected {
            return Err(format!("the v2 node {path} is {expected:?}, not {said:?}"));
        }
        if let Ok(event) = found
            && event.node.dir
        {
            let names = event.below.iter().map(|(_, node)| node.key.rsplit('/').next());
            let names: Vec<String> = names.map(|it| it.unwrap_or_default().to_owned()).collect();
            let expected = model.names(path);
            if names != expected {
                return Err(format!("{path} lists {names:?} instead of {expected:?}"));
            }
        }
        Ok(())
    }

    /// One that waits looks what it was told of.
    pub(crate) fn on_second_wait(&mut self, number: usize) -> Verdict {
        if !self.faulty {
            return Ok(());
        }
        let pause = self.side.between(5, 300);
        self.after(pause, Event::SecondWait { number });
        let waiting = &self.second().waits[number];
        let (at, epoch) = (waiting.at, waiting.epoch);
        if waiting.open.is_none() {
            let at = self.side.index(self.machines.len());
            return if self.machines[at].is_running() { self.wait(number, at) } else { Ok(()) };
        }
        if !self.is_current(at, epoch) || self.machines[at].paused {
            return Ok(());
        }
        let index = self.process(at).member.state().reads().v2().index();
        let model = &self.judge.model.second;
        let second = self.second.as_mut().expect("there are clients of the v2 generation");
        let open = &mut second.waits[number].open;
        let Some((watcher, wait)) = open else { return Ok(()) };
        let mut ended = false;
        loop {
            match watcher.poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(event)) => {
                    reached("sim: a v2 client that waits is told");
                    wait.on_event(model, &event_of(&event))?;
                }
                // It was not read for too long, or has what it wanted.
                Poll::Ready(None) => {
                    ended = true;
                    break;
                }
                Poll::Pending => {
                    wait.on_quiet(model, index)?;
                    break;
                }
            }
        }
        if ended || self.side.one_in(40) {
            *open = None;
        }
        Ok(())
    }

    fn wait(&mut self, number: usize, at: usize) -> Verdict {
        let reader = self.process(at).member.state().reads().v2().clone();
        let index = reader.index();
        let path = self.side.choose(&WAITED_FOR);
        let (recursive, stream) = (!self.side.one_in(3), self.side.one_in(2));
        let since = match self.side.below(5) {
            0 => 1,
            1 => index + self.side.below(4),
            2 => index.saturating_sub(self.side.below(20)),
            _ => 0,
        };
        let watch = v2store::Watch { path: path.to_owned(), recursive, stream, since };
        let opened = reader.watch(watch);
        let refused = opened.as_ref().err().map(refusal_of);
        if refused.is_some() {
            reached("sim: a v2 client waits for what is forgotten");
        }
        let said = refused.as_ref().map_or(Ok(()), Err);
        let wait = V2Wait::begin(index, path, (recursive, stream), since, said)?;
        let epoch = self.machines[at].epoch;
        let open = opened.ok().zip(wait);
        self.second().waits[number] = Waiting { at, epoch, open };
        Ok(())
    }

    /// Whoever leads says what time it is, if there is anything that ends. Behind the faults only
    /// while something is overdue: nobody must be kept busy for ever by what ends in some years.
    pub(crate) fn on_second_clock(&mut self) -> Verdict {
        self.after(CLOCK_MILLIS, Event::SecondClock);
        for at in 0..self.machines.len() {
            if !self.machines[at].is_running() {
                continue;
            }
            let clock = self.wall_nanos(at);
            let is_due = self.faulty || self.is_second_overdue(clock);
            let process = self.process(at);
            let leads = process.member.status().role == RoleKind::Leader;
            if !leads || !is_due || !process.member.state().reads().v2().has_expiring() {
                continue;
            }
            let ticket = Ticket(process.ids.next_id());
            let request = v2pb::Request {
                id: Some(ticket.0),
                method: Some("SYNC".to_owned()),
                time: Some(clock),
                ..v2pb::Request::default()
            };
            self.propose_second(at, ticket, &request)?;
        }
        Ok(())
    }

    /// Whether there is a v2 key that should have ended.
    pub(crate) fn is_second_overdue(&self, clock: i64) -> bool {
        self.judge.model.second.next_end().is_some_and(|end| end <= clock)
    }

    /// A member's tree at the end is the model's.
    pub(crate) fn compare_second(&mut self, at: usize, rows: usize) -> Verdict {
        let reader = self.process(at).member.state().reads().v2().clone();
        let model = &self.judge.model.second;
        if reader.index() != model.index() {
            return Err(format!("v2 index {} instead of {}", reader.index(), model.index()));
        }
        let paths: Vec<String> = model.nodes().map(|(path, _)| path.clone()).collect();
        for path in paths.iter().map(String::as_str).chain(["/1"]) {
            self.judge_found(path, &reader.get(path, false, 0))?;
        }
        // Nodes, events, the index, and how far the log is applied.
        let events = usize::try_from(model.index().min(history::EVENTS_REMEMBERED));
        let expected = paths.len() + events.expect("a thousand") + 2;
        if model.index() != 0 && rows != expected {
            return Err(format!("{rows} v2 rows instead of {expected}"));
        }
        Ok(())
    }
}

fn put(path: &'static str, number: u64) -> v2pb::Request {
    v2pb::Request {
        method: Some("PUT".to_owned()),
        path: Some(path.into()),
        val: Some(number.to_string().into()),
        dir: Some(false),
        refresh: Some(false),
        ..v2pb::Request::default()
    }
}

/// What a client does next; its time to live is still one.
fn wish(random: &mut Random, number: u64, (value, index): &(String, u64)) -> v2pb::Request {
    let mut request = put(random.choose(&PATHS), number);
    let seconds = i64::try_from(random.between(1, 5)).expect("few");
    let ttl = Some(seconds * 1000 * NANOS_PER_MILLI);
    match random.below(20) {
        0..=4 => request.expiration = ttl.filter(|_| random.one_in(3)),
        5 => {
            (request.dir, request.val) = (Some(true), None);
            request.expiration = ttl.filter(|_| random.one_in(2));
        }
        6 | 7 => {
            (request.refresh, request.val, request.expiration) = (Some(true), None, ttl);
            request.prev_exist = random.choose(&[None, Some(true)]);
        }
        8 | 9 => {
            request.prev_exist = Some(false);
            request.expiration = ttl.filter(|_| random.one_in(2));
        }
        10 | 11 => {
            request.prev_exist = Some(true);
            request.expiration = ttl.filter(|_| random.one_in(3));
        }
        12..=14 => {
            request.prev_value = Some(value.clone().into()).filter(|_| random.one_in(2));
            request.prev_index = Some(*index).filter(|_| random.one_in(2));
            if random.one_in(3) {
                (request.method, request.val) = (Some("DELETE".to_owned()), None);
            }
        }
        15..=17 => {
            (request.method, request.val) = (Some("DELETE".to_owned()), None);
            request.dir = Some(random.one_in(2));
            request.recursive = Some(random.one_in(2));
        }
        _ => {
            request.method = Some("POST".to_owned());
            request.dir = Some(random.one_in(5));
            request.expiration = ttl.filter(|_| random.one_in(2));
        }
    }
    request
}

/// What a member said, as the model says it.
pub(crate) fn said_of(said: Result<&v2store::Event, &v2store::Error>) -> V2Said {
    match said {
        Ok(event) => Ok(event_of(event)),
        Err(error) => Err(refusal_of(error)),
    }
}

fn event_of(event: &v2store::Event) -> V2Event {
    V2Event {
        action: event.action.name().to_owned(),
        key: event.node.key.clone(),
        node: node_of(&event.node),
        before: event.prev_node.as_ref().map(node_of),
        index: event.index,
        refresh: event.refresh,
    }
}

fn node_of(node: &v2store::NodeView) -> V2Node {
    V2Node {
        value: node.value.as_deref().map(ToOwned::to_owned),
        dir: node.dir,
        expires: node.expires,
        modified: node.modified,
        created: node.created,
    }
}

fn refusal_of(error: &v2store::Error) -> V2Refusal {
    V2Refusal { code: error.code.number(), cause: error.cause.clone(), index: error.index }
}

fn mark_said(said: &Result<std::sync::Arc<v2store::Event>, v2store::Error>) {
    match said {
        Ok(event) if event.refresh => reached("sim: a v2 key is given more time"),
        Ok(event) if event.action == v2store::Action::CompareAndSwap => {
            reached("sim: a v2 key is swapped");
        }
        Ok(_) => {}
        Err(error) if error.code == v2store::Code::CompareFailed => {
            reached("sim: a v2 key is not as expected");
        }
        Err(_) => reached("sim: a v2 request is refused"),
    }
}
