//! Clients that watch: each opens a stream somewhere, takes what comes, and goes on elsewhere, where
//! it ended, when its member goes away. What it was given is recorded; the judges read it.

use std::sync::Arc;

use base::KeyRange;
use base::probe::reached;
use bytes::Bytes;
use mvcc::{Filters, Wake, WatchOutput, WatchSpec, WatchStream};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::mvccpb;
use state::Identity;
use state::auth::WatchOwners;
use state::auth::gate::Guarded as _;

use crate::accounts::Accounts;
use crate::gate::Judged;
use crate::judge::Verdict;
use crate::world::{Event, World};

/// Watchers are clients from this number on.
const CLIENTS_FIRST: usize = 1000;

/// A client that watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) at: usize,
    pub(crate) stream: Option<WatchStream>,
    /// Its watch in the history.
    record: usize,
    /// What it wants.
    shape: pb::WatchCreateRequest,
    /// The first revision it has not got.
    next: i64,
    /// The epoch of the process it is connected to.
    epoch: u64,
    /// Whose it is, if its member asked.
    owner: Option<&'static str>,
    /// What the server knows of that.
    owners: WatchOwners,
}

#[derive(Debug)]
struct Deaf;

impl Wake for Deaf {
    fn wake(&self) {}
}

impl Watcher {
    /// The first watcher wants everything, the others what their number says.
    pub(crate) fn new(number: usize, at: usize) -> Self {
        let mut shape = pb::WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..Default::default()
        };
        match number {
            0 => {}
            1 => {
                shape.prev_kv = true;
                shape.fragment = true;
            }
            2 => {
                shape.key = Bytes::from_static(b"key-00");
                shape.range_end = Bytes::new();
                shape.prev_kv = true;
            }
            // Where there are users: all from some key on.
            4 => shape.key = Bytes::from_static(b"key-00"),
            5 => shape.key = Bytes::from_static(b"key-01"),
            _ => {
                shape.key = Bytes::from_static(b"key-0");
                shape.range_end = Bytes::from_static(b"key-02");
                shape.filters = vec![FilterType::Noput as i32];
            }
        }
        Self {
            at,
            stream: None,
            record: 0,
            shape,
            next: 1,
            epoch: 0,
            owner: None,
            owners: WatchOwners::default(),
        }
    }
}

fn spec(request: &pb::WatchCreateRequest) -> WatchSpec {
    let filtered = |filter: FilterType| request.filters.contains(&(filter as i32));
    WatchSpec {
        keys: KeyRange::from_wire(request.key.clone(), request.range_end.clone()),
        start: request.start_revision,
        filters: Filters {
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
        },
        want_previous: request.prev_kv,
        id: 0,
        fragment: request.fragment,
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

impl World {
    /// A watcher takes what there is.
    pub(crate) fn on_watch(&mut self, number: usize) -> Verdict {
        let pause = self.random.between(5, 300);
        self.after(pause, Event::Watch { number });
        let machine = &self.machines[self.watchers[number].at];
        if machine.process.is_none() || machine.epoch != self.watchers[number].epoch {
            self.watchers[number].stream = None;
        }
        if machine.paused {
            return Ok(());
        }
        if self.watchers[number].stream.is_none() {
            let at = self.random.index(self.machines.len());
            if !self.machines[at].is_running() {
                return Ok(());
            }
            self.open_watch(number, at)?;
        }
        self.pull(number)?;
        Ok(())
    }

    /// Opens a stream with a watch, if its owner may have it.
    fn open_watch(&mut self, number: usize, at: usize) -> Verdict {
        let Ok(owner) = self.own_watch(number, at)? else { return Ok(()) };
        let (epoch, now) = (self.machines[at].epoch, self.now);
        let from_now = self.watchers[number].next == 1 && self.random.one_in(3);
        match (self.watchers[number].next, from_now) {
            (1, _) => reached("sim: a watch begins"),
            (next, _) if self.process(at).member.state().reads().keys().revision() < next => {
                reached("sim: a watch goes on at a member that is behind it");
            }
            (_, _) => reached("sim: a watch goes on elsewhere"),
        }
        let hub = self.process(at).member.state().reads().watch().clone();
        let watcher = &mut self.watchers[number];
        let start_revision = if from_now { 0 } else { watcher.next };
        let request = pb::WatchCreateRequest { start_revision, ..watcher.shape.clone() };
        let mut stream = hub.stream(Arc::new(Deaf));
        watcher.record = self.recorder.open(CLIENTS_FIRST + number, at, request.clone(), now);
        let created = stream.create(spec(&request)).expect("the range is not empty");
        let (at_revision, watch_id) = (created.revision, created.id);
        let response = pb::WatchResponse {
            header: header(at_revision),
            watch_id,
            created: true,
            ..Default::default()
        };
        self.recorder.observe(watcher.record, response, now);
        if from_now {
            watcher.next = at_revision + 1;
        }
        (watcher.at, watcher.epoch) = (at, epoch);
        watcher.stream = Some(stream);
        (watcher.owner, watcher.owners) = (owner, WatchOwners::default());
        if let Some(owner) = owner {
            watcher.owners.add(created.id, owner.to_owned(), request);
        }
        Ok(())
    }

    /// Whose a new watch is, if anybody asks, and whether its owner may have it.
    fn own_watch(&mut self, number: usize, at: usize) -> Judged<Option<&'static str>> {
        if self.accounts.is_none() {
            return Ok(Ok(None));
        }
        let reads = self.process(at).member.state().reads();
        if !reads.auth_enabled() {
            return Ok(Ok(None));
        }
        // Behind the faults somebody must hear of everything.
        let owner = if self.faulty { Accounts::owner(number) } else { "root" };
        let who = Identity { user: owner.to_owned(), revision: reads.auth().revision() };
        let request = self.watchers[number].shape.clone();
        let door = reads.auth().check_door(request.guard().door, Some(&who));
        let allowed = door.and_then(|()| reads.authorize(&who, &request).map(drop));
        let expected = self.judge_watch(number, at, owner);
        match (&allowed, expected) {
            (Ok(()), Err(what)) => Err(what),
            (Err(refusal), Ok(())) => Err(format!("{request:?} of {owner} is refused: {refusal}")),
            (Ok(()), Ok(())) | (Err(_), Err(_)) => Ok(allowed.map(|()| Some(owner))),
        }
    }

    /// Whether the owner of a watch may hear of it, as its member has applied the log.
    fn judge_watch(&mut self, number: usize, at: usize, owner: &str) -> Verdict {
        let entry = self.entry(at);
        let shape = &self.watchers[number].shape;
        self.judge.model.auth.on_watched(entry, owner, &shape.key, &shape.range_end)
    }

    /// A watch whose owner may not have it any more ends, as the server sees to it before it looks
    /// what there is to tell; whether it did.
    fn end_denied(&mut self, number: usize) -> bool {
        if self.watchers[number].owner.is_none() {
            return false;
        }
        let at = self.watchers[number].at;
        let reads = self.process(at).member.state().reads();
        let watcher = &mut self.watchers[number];
        let denied = !watcher.owners.denied(&reads).is_empty();
        if denied {
            reached("sim: a watch ends because its owner may not have it any more");
            watcher.stream = None;
        }
        denied
    }

    /// Takes what the stream has; whether there may be more.
    fn pull(&mut self, number: usize) -> Result<bool, String> {
        if self.watchers[number].stream.is_some() && self.end_denied(number) {
            return Ok(true);
        }
        let bytes_max = self.random.choose(&[1, 100, 10_000]);
        let wants_progress = self.random.below(6);
        let watcher = &mut self.watchers[number];
        let Some(stream) = &mut watcher.stream else { return Ok(true) };
        match wants_progress {
            0 => stream.request_progress(),
            1 => stream.notify_idle(0),
            _ => {}
        }
        let mut outputs = Vec::new();
        let Ok(more) = stream.pull(bytes_max, &mut outputs) else {
            // The disk failed; the watch goes on elsewhere.
            watcher.stream = None;
            return Ok(true);
        };
        for output in outputs {
            self.on_watched(number, output)?;
        }
        Ok(more)
    }

    fn on_watched(&mut self, number: usize, output: WatchOutput) -> Verdict {
        if let (WatchOutput::Events { .. }, Some(owner)) = (&output, self.watchers[number].owner) {
            self.judge_watch(number, self.watchers[number].at, owner)?;
        }
        let watcher = &mut self.watchers[number];
        let mut response = pb::WatchResponse::default();
        match output {
            WatchOutput::Events { events, revision, fragment, .. } => {
                response.header = header(revision);
                response.fragment = fragment;
                for event in events.iter().cloned() {
                    let event = mvccpb::Event::decode(event)
                        .map_err(|error| format!("an event does not decode: {error}"))?;
                    let at = event.kv.as_ref().map_or(0, |pair| pair.mod_revision);
                    // A revision that came in part comes again from its beginning.
                    watcher.next = watcher.next.max(if fragment { at } else { at + 1 });
                    response.events.push(event);
                }
                self.counts.watched += response.events.len() as u64;
            }
            WatchOutput::Compacted { compact_revision, .. } => {
                reached("sim: a watch hears that it is compacted");
                response.header = header(0);
                response.canceled = true;
                response.compact_revision = compact_revision;
                watcher.next = compact_revision;
                watcher.stream = None;
            }
            WatchOutput::Progress { revision, .. } => {
                reached("sim: a watch hears of progress");
                response.header = header(revision);
                watcher.next = watcher.next.max(revision + 1);
            }
        }
        self.recorder.observe(watcher.record, response, self.now);
        Ok(())
    }

    /// A watcher gets everything that it has not got.
    pub(crate) fn finish_watch(&mut self, number: usize, members: &[usize]) -> Verdict {
        let newest = self.judge.model.revision();
        for _ in 0..10_000 {
            // One that was removed may hear nothing any more.
            if !members.contains(&self.watchers[number].at) {
                self.watchers[number].stream = None;
            }
            if self.watchers[number].stream.is_none() {
                let at = members[self.random.index(members.len())];
                self.open_watch(number, at)?;
            }
            if !self.pull(number)? && self.watchers[number].stream.is_some() {
                self.recorder.caught_up(self.watchers[number].record, newest);
                return Ok(());
            }
        }
        let next = self.watchers[number].next;
        Err(format!("a watch waits for {next}, the newest is {newest}"))
    }
}
