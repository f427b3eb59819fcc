//! The keys of the second generation in the store of the third, below a prefix
//! (`--experimental-enable-v2v3 PREFIX`, V2-180), where clients of both see them.
//!
//! A change looks at the rows it depends on, all of one revision, and is one transaction that holds
//! only if they are still so; else it looks again. Errors and answers are those of the tree of the
//! second generation, but indexes are revisions less one, a key keeps the index at which it was
//! first made, and times to live are refused, all as in etcd's emulation. Where that lists
//! neighbours whose names begin alike, shows hidden keys or ends the server at a row it did not
//! write, this does what the second generation does. Users, members and statistics stay where they
//! are without the flag.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2v3/store.go.

mod layout;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::mvccpb::KeyValue;
use state::{Identity, Refusal, Reply};
use v2store::{Action, Change, Code, Error, Event, Expected, NodeView, Write};

use self::layout::{Layout, index_of};
use super::keys::internal;
use crate::auth::Caller;
use crate::handle::{Handle, ProposeError, RequestKind};

/// Levels of a path; a whole directory goes with one operation for each.
const LEVELS_MAX: usize = 63;

/// What etcd's emulation says of every time to live.
const NO_TTL: &str = "TTLs are unsupported";

/// The emulation; clones share the member.
#[derive(Clone, Debug)]
pub(super) struct OverV3 {
    handle: Handle,
    layout: Arc<Layout>,
}

/// What some ranges held at one revision.
#[derive(Debug)]
struct Seen {
    revision: i64,
    ranges: Vec<Vec<KeyValue>>,
}

impl Seen {
    /// The first row of a range.
    fn row(&self, range: usize) -> Option<&KeyValue> {
        self.ranges[range].first()
    }

    fn index(&self) -> u64 {
        index_of(self.revision)
    }

    fn error(&self, code: Code, cause: impl Into<String>) -> Error {
        Error { code, cause: cause.into(), index: self.index() }
    }
}

/// A change that is possible: under which conditions, how, and what to tell of it.
#[derive(Debug)]
struct Plan {
    compares: Vec<pb::Compare>,
    operations: Vec<pb::RequestOp>,
    action: Action,
    node: NodeView,
    before: Option<NodeView>,
}

impl Plan {
    fn done(self, revision: i64) -> Event {
        let index = index_of(revision);
        let created = self.before.as_ref().map_or(index, |before| before.created);
        let node = NodeView { modified: index, created, ..self.node };
        let (action, prev_node) = (self.action, self.before);
        Event { action, node, prev_node, below: Vec::new(), index, at: None, refresh: false }
    }
}

impl OverV3 {
    pub(super) fn new(handle: &Handle, prefix: &str) -> Self {
        Self { handle: handle.clone(), layout: Arc::new(Layout::new(prefix)) }
    }

    /// What is at a path.
    pub(super) fn get(&self, path: &str, recursive: bool) -> Result<Event, Error> {
        loop {
            match self.try_get(path, recursive) {
                // A compaction overtook what was read first.
                Err(Refused::By(Refusal::Compacted)) => {}
                Err(Refused::By(refusal)) => return Err(internal(&refusal.into())),
                Err(Refused::With(error)) => return Err(error),
                Ok(event) => return Ok(event),
            }
        }
    }

    fn try_get(&self, path: &str, recursive: bool) -> Result<Event, Refused> {
        let layout = &self.layout;
        let seen = self.look(&[one(layout.file(path)), one(layout.dir(path))], 0)?;
        let event = |node, below| Event {
            action: Action::Get,
            node,
            prev_node: None,
            below,
            index: seen.index(),
            at: None,
            refresh: false,
        };
        let dir = seen.row(1).map(|row| layout.view(row));
        let root = || NodeView { key: path.to_owned(), dir: true, ..NodeView::default() };
        let dir = dir.or_else(|| layout::is_fixed(path).then(root));
        let Some(dir) = dir else {
            return match seen.row(0) {
                Some(row) => Ok(event(layout.view(row), Vec::new())),
                None => Err(Refused::With(self.missing(path, &seen)?)),
            };
        };
        let mut nodes = Vec::new();
        let levels_max = if recursive { LEVELS_MAX } else { 1 };
        for depth in 1..=levels_max {
            let rows = self.look(&[layout.level(path, depth)], seen.revision)?;
            if rows.ranges[0].is_empty() {
                break;
            }
            nodes.extend(rows.ranges[0].iter().map(|row| (depth, layout.view(row))));
        }
        nodes.retain(|(_, node)| !layout::is_hidden_from(path, &node.key));
        // Each directory before what is in it.
        nodes.sort_by(|(_, one), (_, other)| one.key.split('/').cmp(other.key.split('/')));
        Ok(event(dir, nodes))
    }

    /// Why nothing is at a path.
    fn missing(&self, path: &str, seen: &Seen) -> Result<Error, Refused> {
        let above: Vec<&str> = layout::above(path).collect();
        let files: Vec<_> = above.iter().map(|path| one(self.layout.file(path))).collect();
        let files = self.look(&files, seen.revision)?;
        let file = above.iter().zip(&files.ranges).find(|(_, rows)| !rows.is_empty());
        Ok(match file {
            Some((file, _)) => seen.error(Code::NotDirectory, *file),
            None => seen.error(Code::KeyNotFound, path),
        })
    }

    /// Does a change.
    pub(super) async fn write(&self, write: &Write) -> Result<Event, Error> {
        if write.refresh || write.expires.is_some() {
            return Err(Error::of_request(Code::RaftInternal, NO_TTL));
        }
        let deadline = self.handle.deadline();
        loop {
            self.handle.linearize().await.map_err(|error| internal(&error))?;
            let plan = match self.plan(write) {
                Ok(plan) => plan,
                Err(Refused::By(Refusal::Compacted)) => continue,
                Err(Refused::By(refusal)) => return Err(internal(&refusal.into())),
                Err(Refused::With(error)) => return Err(error),
            };
            let response = self.propose(&plan).await.map_err(|error| internal(&error))?;
            if response.succeeded {
                return Ok(plan.done(response.header.map_or(0, |header| header.revision)));
            }
            if deadline <= Instant::now() {
                return Err(internal(&ProposeError::TimedOut));
            }
        }
    }

    async fn propose(&self, plan: &Plan) -> Result<pb::TxnResponse, ProposeError> {
        let mut operations = plan.operations.clone();
        let action = Bytes::from_static(plan.action.name().as_bytes());
        operations.push(put(self.layout.action(), action));
        let request = pb::TxnRequest {
            compare: plan.compares.clone(),
            success: operations,
            failure: Vec::new(),
        };
        let caller = Caller::default();
        let cost_bytes = state::quota::txn_cost_bytes(&request);
        self.handle.admit_for(&caller, &request, cost_bytes).await?;
        let reply = self.handle.propose_for(&caller, RequestKind::Txn, &request).await?;
        let Reply::Txn(response) = reply else { unreachable!("a txn was answered by {reply:?}") };
        Ok(response)
    }

    /// What a change needs; it may turn out to have changed when it is done.
    fn plan(&self, write: &Write) -> Result<Plan, Refused> {
        let mut path = write.path.clone();
        if let Change::Create { in_order: true, .. } = write.change {
            // The index that the change will have if nobody is faster; else it is tried again.
            let next = index_of(self.handle.reads().keys().revision() + 1);
            path = format!("{path}/{next:020}");
        }
        if layout::is_fixed(&path) {
            return Err(Refused::With(Error::of_request(Code::RootReadOnly, "/")));
        }
        let above: Vec<&str> = layout::above(&path).collect();
        if LEVELS_MAX <= above.len() {
            let cause = format!("a key has at most {LEVELS_MAX} levels");
            return Err(Refused::With(Error::of_request(Code::InvalidField, cause)));
        }
        let layout = &self.layout;
        let mut looked = vec![layout.file(&path), layout.dir(&path)];
        looked.extend(above.iter().flat_map(|path| [layout.file(path), layout.dir(path)]));
        let ranges: Vec<_> = looked.iter().cloned().map(one).collect();
        let seen = self.look(&ranges, 0)?;
        let compares = looked.iter().zip(&seen.ranges).map(|(key, rows)| {
            unchanged(key.clone(), rows.first().map_or(0, |row| row.mod_revision))
        });
        let compares = compares.collect();
        let at = Place { path: &path, above: &above, seen: &seen, compares };
        match &write.change {
            Change::Set { dir, value } => self.set(at, *dir, value),
            Change::Create { dir, value, .. } => self.create(at, *dir, value),
            Change::Update { value } => self.update(at, value),
            Change::CompareAndSwap { expected, value } => self.swap(at, expected, value),
            Change::CompareAndDelete(expected) => self.compare_and_delete(at, expected),
            Change::Delete { dir, recursive } => self.delete(at, *dir, *recursive),
        }
    }

    fn set(&self, at: Place<'_>, dir: bool, value: &str) -> Result<Plan, Refused> {
        if at.dir().is_some() {
            return Err(at.error(Code::NotFile));
        }
        let mut operations = self.parents(&at)?;
        let before = at.file().map(|row| self.layout.view(row));
        if dir && before.is_some() {
            operations.push(delete(one(self.layout.file(at.path))));
        }
        operations.push(self.put_node(at.path, dir, value));
        Ok(at.plan(operations, Action::Set, dir, Some(value), before))
    }

    fn create(&self, at: Place<'_>, dir: bool, value: &str) -> Result<Plan, Refused> {
        let mut operations = self.parents(&at)?;
        if at.dir().is_some() || at.file().is_some() {
            return Err(at.error(Code::KeyExists));
        }
        operations.push(self.put_node(at.path, dir, value));
        Ok(at.plan(operations, Action::Create, dir, Some(value), None))
    }

    fn update(&self, at: Place<'_>, value: &str) -> Result<Plan, Refused> {
        let dir = at.dir().is_some();
        if dir && !value.is_empty() {
            return Err(at.error(Code::NotFile));
        }
        let before = at.dir().or_else(|| at.file()).map(|row| self.layout.view(row));
        let before = before.ok_or_else(|| at.missing())?;
        let operations = vec![self.put_node(at.path, dir, value)];
        Ok(at.plan(operations, Action::Update, dir, Some(value), Some(before)))
    }

    /// The file, if it is as expected.
    fn expected(&self, at: &Place<'_>, expected: &Expected) -> Result<NodeView, Refused> {
        if at.dir().is_some() {
            return Err(at.error(Code::NotFile));
        }
        let file = self.layout.view(at.file().ok_or_else(|| at.missing())?);
        let value = file.value.as_deref().unwrap_or_default();
        match expected.difference(value, file.modified) {
            Some(cause) => Err(Refused::With(at.seen.error(Code::CompareFailed, cause))),
            None => Ok(file),
        }
    }

    fn swap(&self, at: Place<'_>, expected: &Expected, value: &str) -> Result<Plan, Refused> {
        let before = self.expected(&at, expected)?;
        let operations = vec![self.put_node(at.path, false, value)];
        Ok(at.plan(operations, Action::CompareAndSwap, false, Some(value), Some(before)))
    }

    fn compare_and_delete(&self, at: Place<'_>, expected: &Expected) -> Result<Plan, Refused> {
        let before = self.expected(&at, expected)?;
        let operations = vec![delete(one(self.layout.file(at.path)))];
        Ok(at.plan(operations, Action::CompareAndDelete, false, None, Some(before)))
    }

    fn delete(&self, mut at: Place<'_>, dir: bool, recursive: bool) -> Result<Plan, Refused> {
        let layout = &self.layout;
        let Some(directory) = at.dir() else {
            let before = layout.view(at.file().ok_or_else(|| at.missing())?);
            let operations = vec![delete(one(layout.file(at.path)))];
            return Ok(at.plan(operations, Action::Delete, false, None, Some(before)));
        };
        if !dir && !recursive {
            return Err(at.error(Code::NotFile));
        }
        let before = layout.view(directory);
        let mut operations = vec![delete(one(layout.dir(at.path)))];
        for depth in 1..=LEVELS_MAX {
            let level = layout.level(at.path, depth);
            let some = pb::RangeRequest { limit: 1, ..level.clone() };
            if self.look(&[some], at.seen.revision)?.ranges[0].is_empty() {
                at.compares.push(empty(level));
                break;
            }
            if !recursive {
                return Err(at.error(Code::DirectoryNotEmpty));
            }
            operations.push(delete(level));
        }
        Ok(at.plan(operations, Action::Delete, true, None, Some(before)))
    }

    /// Makes the directories above.
    fn parents(&self, at: &Place<'_>) -> Result<Vec<pb::RequestOp>, Refused> {
        let mut operations = Vec::new();
        for (number, path) in at.above.iter().enumerate() {
            let range = 2 + 2 * number;
            if at.seen.row(range).is_some() {
                return Err(Refused::With(at.seen.error(Code::NotDirectory, *path)));
            }
            if at.seen.row(range + 1).is_none() {
                operations.push(self.put_node(path, true, ""));
            }
        }
        Ok(operations)
    }

    fn put_node(&self, path: &str, dir: bool, value: &str) -> pb::RequestOp {
        match dir {
            true => put(self.layout.dir(path), Bytes::new()),
            false => {
                put(self.layout.file(path), v2store::text::to_bytes(value).into_owned().into())
            }
        }
    }

    /// Reads ranges at one revision, the newest for 0.
    fn look(&self, ranges: &[pb::RangeRequest], revision: i64) -> Result<Seen, Refusal> {
        let reads = ranges.iter().map(|range| pb::RequestOp {
            request: Some(Request::RequestRange(pb::RangeRequest { revision, ..range.clone() })),
        });
        let request = pb::TxnRequest { success: reads.collect(), ..pb::TxnRequest::default() };
        // With users of the third generation nobody may: who asks has no name there.
        let nobody = Identity::nobody();
        let authorized = self.handle.authorize(&nobody, &request)?;
        let (steps, answer) = self.handle.reads().counted_txn(authorized);
        self.handle.metrics().store.on_read_txn(steps);
        let answer = answer?;
        self.handle.check_still(&nobody, &request)?;
        let newest = answer.header.map_or(0, |header| header.revision);
        let rows = |response: pb::ResponseOp| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs,
            other => unreachable!("a range was answered by {other:?}"),
        };
        let ranges = answer.responses.into_iter().map(rows).collect();
        Ok(Seen { revision: if revision == 0 { newest } else { revision }, ranges })
    }
}

/// Where a change is to be made, and what was seen there.
#[derive(Debug)]
struct Place<'a> {
    path: &'a str,
    /// The directories above, from the nearest.
    above: &'a [&'a str],
    seen: &'a Seen,
    compares: Vec<pb::Compare>,
}

impl Place<'_> {
    fn file(&self) -> Option<&KeyValue> {
        self.seen.row(0)
    }

    fn dir(&self) -> Option<&KeyValue> {
        self.seen.row(1)
    }

    fn error(&self, code: Code) -> Refused {
        Refused::With(self.seen.error(code, self.path))
    }

    /// Nothing is there; maybe since a file is above.
    fn missing(&self) -> Refused {
        let mut above = self.above.iter().enumerate();
        let file = above.find(|(number, _)| self.seen.row(2 + 2 * number).is_some());
        match file {
            Some((_, file)) => Refused::With(self.seen.error(Code::NotDirectory, *file)),
            None => self.error(Code::KeyNotFound),
        }
    }

    fn plan(
        self,
        operations: Vec<pb::RequestOp>,
        action: Action,
        dir: bool,
        value: Option<&str>,
        before: Option<NodeView>,
    ) -> Plan {
        let value = value.filter(|_| !dir).map(Arc::from);
        let node = NodeView { key: self.path.to_owned(), value, dir, ..NodeView::default() };
        Plan { compares: self.compares, operations, action, node, before }
    }
}

/// Why something cannot be read or done.
#[derive(Debug)]
enum Refused {
    /// The third generation's store.
    By(Refusal),
    /// An answer of the second generation.
    With(Error),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::By(refusal)
    }
}

fn one(key: Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key, ..pb::RangeRequest::default() }
}

fn put(key: Bytes, value: Bytes) -> pb::RequestOp {
    let put = pb::PutRequest { key, value, ..pb::PutRequest::default() };
    pb::RequestOp { request: Some(Request::RequestPut(put)) }
}

fn delete(range: pb::RangeRequest) -> pb::RequestOp {
    let pb::RangeRequest { key, range_end, .. } = range;
    let delete = pb::DeleteRangeRequest { key, range_end, ..pb::DeleteRangeRequest::default() };
    pb::RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

/// Whether a row is still as it was; 0 for one that is not there.
fn unchanged(key: Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..pb::Compare::default()
    }
}

/// Whether a range has no row still.
fn empty(range: pb::RangeRequest) -> pb::Compare {
    let pb::RangeRequest { key, range_end, .. } = range;
    pb::Compare { range_end, ..unchanged(key, 0) }
}
