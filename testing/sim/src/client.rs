//! Clients: one call after the other at some member, and watches that are opened anew where they
//! ended.
//!
//! A call whose member went away has an unknown outcome; nothing is sent twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{KeyRange, MemberId};
use bytes::Bytes;
use member::Ticket;
use mvcc::{Wake, WatchSpec, WatchStream};
use proto::etcdserverpb::{self as pb, compare};

use crate::random::Random;

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) at: usize,
    pub(crate) call: Option<Call>,
    /// Leases it keeps alive, and when it asks next.
    pub(crate) leases: BTreeMap<i64, u64>,
    /// What it last knew of keys, to guess for transactions.
    pub(crate) known: BTreeMap<Bytes, i64>,
}

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) ticket: Ticket,
    pub(crate) wish: Wish,
    pub(crate) asked_millis: u64,
    /// What clients had been told when it was asked.
    pub(crate) floor: i64,
}

/// What a client wants.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Put { key: Bytes, value: Bytes, lease: i64 },
    Delete { key: Bytes },
    Txn { key: Bytes, value: Bytes, wanted: i64 },
    Read { key: Bytes },
    Grant { id: i64, ttl: i64 },
    KeepAlive { id: i64 },
    Revoke { id: i64 },
}

impl Client {
    pub(crate) fn new(at: usize) -> Self {
        Self { at, call: None, leases: BTreeMap::new(), known: BTreeMap::new() }
    }

    /// What it does next; `number` is new each time.
    pub(crate) fn wish(&mut self, random: &mut Random, keys: u64, number: u64, now: u64) -> Wish {
        if let Some((&id, due)) = self.leases.iter_mut().find(|(_, due)| **due <= now) {
            *due = now + random.between(300, 2500);
            return Wish::KeepAlive { id };
        }
        let key = Bytes::from(format!("key-{}", random.below(keys)));
        let value = Bytes::from(format!("{number}:{}", "x".repeat(random.index(60))));
        let lease = *self.leases.keys().next().unwrap_or(&0);
        match random.below(100) {
            0..=34 => {
                let lease = if random.one_in(3) { lease } else { 0 };
                Wish::Put { key, value, lease }
            }
            35..=44 => Wish::Delete { key },
            45..=64 => {
                let wanted = self.known.get(&key).copied().unwrap_or(0);
                Wish::Txn { key, value, wanted }
            }
            65..=92 => Wish::Read { key },
            93..=96 => {
                let id = i64::try_from(number).expect("few calls are made");
                Wish::Grant { id, ttl: i64::try_from(random.between(2, 5)).expect("small") }
            }
            _ if lease != 0 => {
                self.leases.remove(&lease);
                // Whether it is revoked or left to end by itself.
                if random.one_in(2) { Wish::Revoke { id: lease } } else { Wish::Read { key } }
            }
            _ => Wish::Read { key },
        }
    }
}

impl Wish {
    /// The request for the log; `None` for what needs none.
    pub(crate) fn request(&self) -> Option<pb::InternalRaftRequest> {
        let mut request = pb::InternalRaftRequest::default();
        match self.clone() {
            Self::Put { key, value, lease } => {
                request.put = Some(pb::PutRequest { key, value, lease, ..Default::default() });
            }
            Self::Delete { key } => {
                request.delete_range = Some(pb::DeleteRangeRequest { key, ..Default::default() });
            }
            Self::Txn { key, value, wanted } => request.txn = Some(txn(key, value, wanted)),
            Self::Grant { id, ttl } => {
                request.lease_grant = Some(pb::LeaseGrantRequest { ttl, id });
            }
            Self::Revoke { id } => request.lease_revoke = Some(pb::LeaseRevokeRequest { id }),
            Self::Read { .. } | Self::KeepAlive { .. } => return None,
        }
        Some(request)
    }
}

fn txn(key: Bytes, value: Bytes, wanted: i64) -> pb::TxnRequest {
    use pb::request_op::Request::{RequestPut, RequestRange};
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = pb::PutRequest { key: key.clone(), value, ..Default::default() };
    let range = pb::RangeRequest { key: key.clone(), ..Default::default() };
    pb::TxnRequest {
        compare: vec![pb::Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Mod as i32,
            key,
            target_union: Some(compare::TargetUnion::ModRevision(wanted)),
            ..Default::default()
        }],
        success: vec![op(RequestPut(put))],
        failure: vec![op(RequestRange(range))],
    }
}

/// A client that watches everything.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) at: usize,
    pub(crate) stream: Option<WatchStream>,
    /// The first revision it has not got.
    pub(crate) next: i64,
    /// The epoch of the process it is connected to.
    pub(crate) epoch: u64,
    pub(crate) member: MemberId,
    pub(crate) delivered: u64,
}

#[derive(Debug)]
pub(crate) struct Deaf;

impl Wake for Deaf {
    fn wake(&self) {}
}

impl Watcher {
    pub(crate) fn new(at: usize) -> Self {
        Self { at, stream: None, next: 1, epoch: 0, member: MemberId::NONE, delivered: 0 }
    }

    pub(crate) fn open(&mut self, hub: &mvcc::WatchHub) {
        let mut stream = hub.stream(Arc::new(Deaf));
        stream
            .create(WatchSpec {
                keys: KeyRange::From(Bytes::new()),
                start: self.next,
                filters: mvcc::Filters::default(),
                want_previous: false,
                id: 0,
                fragment: false,
            })
            .expect("everything can be watched");
        self.stream = Some(stream);
    }
}
