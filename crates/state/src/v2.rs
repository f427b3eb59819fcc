//! Requests of the v2 generation: from the log's form to what the tree is asked to do.
//!
//! What the tree does is in `v2store`; here are the rules of etcd's v2 applier, and that the tree's
//! rows are in the batch of the entry that changed it. Its index also counts what etcd writes of the
//! cluster itself into the same tree, which here are facts of their own.
//!
//! Source: etcd v3.4.23 etcdserver/apply_v2.go; api/membership/store.go (what is counted).

use std::sync::Arc;

use backend::{Batch, Bucket};
use base::Index;
use bytes::Bytes;
use prost::Message as _;
use proto::{raftpb, v2pb};
use v2store::{Change, Expected, Nanos, Store, Write};

use crate::command::{self, Command};
use crate::members::Change as MemberChange;
use crate::schema::Rows;
use crate::{OpenError, Operation, Payload, Reply, schema};

/// A decoded request.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Write(Write),
    /// A read that went through the log, as etcd's do.
    Read {
        path: String,
        recursive: bool,
        now: Nanos,
    },
    /// What ends by then goes.
    Expire(Nanos),
    /// A method that no release has; it does nothing.
    Unknown,
}

/// The change that a request asks for; `None` for one that changes no node.
#[must_use]
pub fn change_of(request: &v2pb::Request) -> Option<Write> {
    match Request::decode(request) {
        Request::Write(write) => Some(write),
        Request::Read { .. } | Request::Expire(_) | Request::Unknown => None,
    }
}

/// Whether it is a `PUT` without conditions, as what a member says of the cluster is.
pub(crate) fn is_plain_put(request: &v2pb::Request) -> bool {
    let conditional = request.prev_index() > 0 || !request.prev_value().is_empty();
    request.method() == "PUT" && request.prev_exist.is_none() && !conditional
}

impl Request {
    pub(crate) fn decode(request: &v2pb::Request) -> Self {
        let path = text(request.path());
        // Writers of Go leave the time out.
        let at = Some(request.time()).filter(|at| *at != 0);
        let change = match request.method() {
            "POST" => {
                Change::Create { dir: request.dir(), value: text(request.val()), in_order: true }
            }
            "PUT" => put(request),
            "DELETE" => delete(request),
            "QGET" => {
                let now = at.unwrap_or_default();
                return Self::Read { path, recursive: request.recursive(), now };
            }
            "SYNC" => return Self::Expire(request.time()),
            _ => return Self::Unknown,
        };
        let expires = Some(request.expiration()).filter(|expires| *expires != 0);
        Self::Write(Write { path, change, expires, refresh: request.refresh(), at })
    }

    /// Under which name it is counted.
    pub(crate) fn operation(&self) -> Option<Operation> {
        Some(match self {
            Self::Write(Write { change: Change::Create { in_order: true, .. }, .. }) => {
                Operation::V2Post
            }
            Self::Write(Write {
                change: Change::Delete { .. } | Change::CompareAndDelete(_),
                ..
            }) => Operation::V2Delete,
            Self::Write(_) => Operation::V2Put,
            Self::Read { .. } => Operation::V2Get,
            Self::Expire(_) => Operation::V2Sync,
            Self::Unknown => return None,
        })
    }

    /// Does it; rows that change are put into the batch.
    pub(crate) fn apply(self, store: &mut Store, batch: &mut Batch) -> Reply {
        let reply = self.run(store);
        save(store, batch);
        reply
    }

    fn run(self, store: &mut Store) -> Reply {
        match self {
            Self::Write(write) => Reply::V2(store.write(write)),
            Self::Expire(cutoff) => {
                store.expire(cutoff);
                Reply::V2Expired
            }
            Self::Read { path, recursive, now } => {
                Reply::V2(store.reader().get(&path, recursive, now).map(Arc::new))
            }
            Self::Unknown => Reply::V2Expired,
        }
    }
}

fn put(request: &v2pb::Request) -> Change {
    let value = text(request.val());
    let expected = expected(request);
    match (request.prev_exist, expected) {
        (Some(false), _) => Change::Create { dir: request.dir(), value, in_order: false },
        (Some(true), None) => Change::Update { value },
        (Some(true) | None, Some(expected)) => Change::CompareAndSwap { expected, value },
        (None, None) => Change::Set { dir: request.dir(), value },
    }
}

fn delete(request: &v2pb::Request) -> Change {
    match expected(request) {
        Some(expected) => Change::CompareAndDelete(expected),
        None => Change::Delete { dir: request.dir(), recursive: request.recursive() },
    }
}

fn expected(request: &v2pb::Request) -> Option<Expected> {
    let expected = Expected { value: text(request.prev_value()), index: request.prev_index() };
    (expected != Expected::default()).then_some(expected)
}

/// Go takes any bytes for a text.
fn text(bytes: &[u8]) -> String {
    v2store::text::of_bytes(bytes)
}

/// Counts writes of the cluster's own part.
pub(crate) fn advance(writes: usize, store: &mut Store, batch: &mut Batch) {
    for _ in 0..writes {
        store.advance();
    }
    save(store, batch);
}

/// How often etcd writes to the tree for a change of the members.
pub(crate) fn writes_for(change: &MemberChange) -> usize {
    match change {
        MemberChange::Add { .. } | MemberChange::Promote(_) | MemberChange::Update(_) => 1,
        // The member goes, and a note of it comes.
        MemberChange::Remove(_) => 2,
    }
}

fn save(store: &mut Store, batch: &mut Batch) {
    for row in store.take_rows() {
        match row.value {
            Some(value) => batch.put(Bucket::V2Store, &row.key, value),
            None => batch.delete(Bucket::V2Store, &row.key),
        }
    }
}

/// Does to the tree alone what an entry did that the rest of the state already has.
pub(crate) fn replay(store: &mut Store, payload: &Payload) {
    let writes = match payload {
        Payload::Nothing => 0,
        Payload::Request(bytes) => match command::Request::decode(bytes).map(|it| it.command) {
            Some(Command::V2(request)) => {
                request.run(store);
                0
            }
            Some(Command::SetClusterVersion(_) | Command::SetMemberAttributes { .. }) => 1,
            Some(_) | None => 0,
        },
        Payload::MemberChange(bytes) => {
            let message = raftpb::ConfChange::decode(bytes.clone()).ok();
            let change = message.and_then(|message| MemberChange::decode(&message));
            change.as_ref().map_or(0, writes_for)
        }
    };
    for _ in 0..writes {
        store.advance();
    }
}

/// The rows of a tree in the place of those of another one.
pub(crate) fn replace_rows(before: &Store, store: &Store, applied: Index) -> Batch {
    let mut batch = Batch::upkeep();
    for row in before.all_rows() {
        batch.delete(Bucket::V2Store, &row.key);
    }
    for row in store.all_rows() {
        let value = row.value.expect("rows of what is there have values");
        batch.put(Bucket::V2Store, &row.key, value);
    }
    put_applied(applied, &mut batch);
    batch
}

/// In the tree's bucket: how far the log is applied to it. etcd, which knows nothing of this bucket,
/// may move the database's own mark ahead of it.
const APPLIED: &[u8] = b"applied";

/// Notes that the tree has every effect up to here.
pub(crate) fn put_applied(applied: Index, batch: &mut Batch) {
    let value = Bytes::copy_from_slice(&applied.0.to_be_bytes());
    batch.put(Bucket::V2Store, APPLIED, value);
}

/// The tree that a database holds, and up to where the log is applied to it; an empty one if it
/// never had one.
pub(crate) fn load(rows: &dyn Rows) -> Result<(Store, Index), OpenError> {
    let mut found = Vec::new();
    let mut applied = Some(Index(0));
    let scanned = rows.visit(Bucket::V2Store, &mut |key, value| {
        if key == APPLIED {
            applied = value.try_into().ok().map(|bytes| Index(u64::from_be_bytes(bytes)));
        } else {
            found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
        std::ops::ControlFlow::Continue(())
    });
    scanned.map_err(OpenError::Backend)?;
    let applied = applied.ok_or_else(|| schema::damaged(Bucket::V2Store, APPLIED))?;
    let store = Store::restore(found);
    let store = store.map_err(|row| schema::damaged(Bucket::V2Store, row.key.as_bytes()))?;
    Ok((store, applied))
}
