//! Clients: one call after the other at some member.
//!
//! A call whose member went away has an unknown outcome; nothing is sent twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use history::Call;
use member::Ticket;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use state::Identity;

use crate::random::Random;
use crate::recorder::Asked;

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) at: usize,
    pub(crate) call: Option<Pending>,
    /// Leases it keeps alive, and when it asks next.
    pub(crate) leases: BTreeMap<i64, u64>,
    /// A lease of which it heard that it is gone: nothing can hang on it any more.
    pub(crate) dead: i64,
    /// What it last knew of keys, to guess for transactions.
    pub(crate) known: BTreeMap<Bytes, i64>,
}

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) ticket: Ticket,
    pub(crate) call: Call,
    pub(crate) asked_millis: u64,
    /// What clients had been told when it was asked.
    pub(crate) floor: i64,
    /// The newest entry whose answer anybody was told then.
    pub(crate) floor_entry: u64,
    pub(crate) asked: Asked,
    /// Who makes it, if it was let in before it is evaluated.
    pub(crate) who: Identity,
}

/// What a client needs to choose what it does next.
#[derive(Debug)]
pub(crate) struct Circumstances<'a> {
    pub(crate) random: &'a mut Random,
    /// How many keys there are.
    pub(crate) keys: u64,
    /// New each time.
    pub(crate) number: u64,
    pub(crate) now_millis: u64,
    /// The newest revision that any client knows.
    pub(crate) revision: i64,
    /// Bytes of a value, at most.
    pub(crate) value_bytes: usize,
    /// Whether leases are renewed as often as can be.
    pub(crate) renewing: bool,
}

impl Circumstances<'_> {
    fn key(&mut self) -> Bytes {
        Bytes::from(format!("key-{:02}", self.random.below(self.keys)))
    }

    /// Up to which key a range goes.
    fn end(&mut self) -> Bytes {
        match self.random.below(3) {
            0 => Bytes::from_static(b"\0"),
            1 => Bytes::from_static(b"key."),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        Bytes::from(format!("{}:{}", self.number, "x".repeat(self.random.index(self.value_bytes))))
    }
}

impl Client {
    pub(crate) fn new(at: usize) -> Self {
        Self { at, call: None, leases: BTreeMap::new(), dead: 0, known: BTreeMap::new() }
    }

    /// What it does next.
    pub(crate) fn wish(&mut self, around: &mut Circumstances<'_>) -> Call {
        let now = around.now_millis;
        if let Some((&id, due)) = self.leases.iter_mut().find(|(_, due)| **due <= now) {
            *due = now + around.random.between(300, if around.renewing { 301 } else { 2500 });
            return Call::KeepAlive(pb::LeaseKeepAliveRequest { id });
        }
        let lease = *self.leases.keys().next().unwrap_or(&0);
        match around.random.below(100) {
            0..=31 => Call::Put(self.put(around, lease)),
            32..=41 => Call::Delete(delete(around)),
            42..=61 => Call::Txn(self.txn(around)),
            62..=88 => Call::Range(range(around)),
            89..=90 if lease != 0 => {
                let keys = around.random.one_in(2);
                Call::TimeToLive(pb::LeaseTimeToLiveRequest { id: lease, keys })
            }
            91 if 5 < around.revision => {
                let back = i64::try_from(around.random.below(12)).expect("small");
                let revision = (around.revision - back).max(1);
                Call::Compact(pb::CompactionRequest { revision, physical: false })
            }
            93..=96 => {
                let id = i64::try_from(around.number).expect("few calls are made");
                let ttl = i64::try_from(around.random.between(2, 5)).expect("small");
                Call::Grant(pb::LeaseGrantRequest { ttl, id })
            }
            97.. if lease != 0 => {
                self.leases.remove(&lease);
                // Whether it is revoked or left to end by itself.
                if around.random.one_in(2) {
                    Call::Revoke(pb::LeaseRevokeRequest { id: lease })
                } else {
                    Call::Range(range(around))
                }
            }
            _ => Call::Range(range(around)),
        }
    }

    fn put(&self, around: &mut Circumstances<'_>, lease: i64) -> pb::PutRequest {
        let mut put = pb::PutRequest {
            key: around.key(),
            value: around.value(),
            lease: match around.random.below(9) {
                0 | 1 => lease,
                2 => self.dead,
                _ => 0,
            },
            prev_kv: around.random.one_in(4),
            ..Default::default()
        };
        match around.random.below(20) {
            0 => {
                put.ignore_value = true;
                put.value = Bytes::new();
            }
            1 => {
                put.ignore_lease = true;
                put.lease = 0;
            }
            _ => {}
        }
        put
    }

    /// Mostly the one that everybody uses: if a key was changed last at a revision, put, else get.
    fn txn(&self, around: &mut Circumstances<'_>) -> pb::TxnRequest {
        let (key, value) = (around.key(), around.value());
        let wanted = self.known.get(&key).copied().unwrap_or(0);
        let get =
            op(Request::RequestRange(pb::RangeRequest { key: key.clone(), ..Default::default() }));
        let put = op(Request::RequestPut(pb::PutRequest {
            key: key.clone(),
            value,
            prev_kv: around.random.one_in(4),
            ..Default::default()
        }));
        let mut txn = pb::TxnRequest {
            compare: vec![compare(around, key, wanted)],
            success: vec![put],
            failure: vec![get.clone()],
        };
        match around.random.below(8) {
            0 => txn.success = vec![get, op(Request::RequestRange(range_now(around)))],
            1 => txn.success.insert(0, op(Request::RequestRange(range_now(around)))),
            2 => txn.failure.push(op(Request::RequestDeleteRange(delete(around)))),
            3 => {
                let inner = self.inner(around);
                txn.failure.push(op(Request::RequestTxn(inner)));
            }
            4 => {
                let (key, value) = (around.key(), around.value());
                let more = pb::PutRequest { key, value, ..Default::default() };
                txn.success.push(op(Request::RequestPut(more)));
            }
            _ => {}
        }
        // The server refuses it before anybody else sees it.
        if state::check_txn(&txn, 128).is_err() {
            txn.success.truncate(1);
        }
        txn
    }

    fn inner(&self, around: &mut Circumstances<'_>) -> pb::TxnRequest {
        let key = around.key();
        let wanted = self.known.get(&key).copied().unwrap_or(0);
        pb::TxnRequest {
            compare: vec![compare(around, key, wanted)],
            success: vec![op(Request::RequestDeleteRange(delete(around)))],
            failure: vec![op(Request::RequestRange(range_now(around)))],
        }
    }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn compare(around: &mut Circumstances<'_>, key: Bytes, wanted: i64) -> pb::Compare {
    let (target, union) = match around.random.below(12) {
        0 => (CompareTarget::Version, TargetUnion::Version(1)),
        1 => (CompareTarget::Create, TargetUnion::CreateRevision(wanted)),
        2 => (CompareTarget::Lease, TargetUnion::Lease(0)),
        3 => (CompareTarget::Value, TargetUnion::Value(Bytes::from_static(b"5"))),
        _ => (CompareTarget::Mod, TargetUnion::ModRevision(wanted)),
    };
    let result = match around.random.below(8) {
        0 => CompareResult::Greater,
        1 => CompareResult::Less,
        2 => CompareResult::NotEqual,
        _ => CompareResult::Equal,
    };
    let range_end = if around.random.one_in(12) { around.end() } else { Bytes::new() };
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key,
        range_end,
        target_union: Some(union),
    }
}

fn delete(around: &mut Circumstances<'_>) -> pb::DeleteRangeRequest {
    let key = around.key();
    let range_end = if around.random.one_in(4) { around.end() } else { Bytes::new() };
    pb::DeleteRangeRequest { key, range_end, prev_kv: around.random.one_in(4) }
}

fn range_now(around: &mut Circumstances<'_>) -> pb::RangeRequest {
    let key = around.key();
    let range_end = if around.random.one_in(2) { around.end() } else { Bytes::new() };
    pb::RangeRequest { key, range_end, ..Default::default() }
}

fn range(around: &mut Circumstances<'_>) -> pb::RangeRequest {
    let mut range = range_now(around);
    range.serializable = around.random.one_in(4);
    if around.random.one_in(6) {
        let back = i64::try_from(around.random.below(10)).expect("small") - 1;
        range.revision = (around.revision - back).max(0);
    }
    if around.random.one_in(4) {
        range.limit = i64::try_from(around.random.below(4)).expect("small");
    }
    match around.random.below(12) {
        0 => range.keys_only = true,
        1 => range.count_only = true,
        2 => {
            range.sort_order = SortOrder::Descend as i32;
            range.sort_target = SortTarget::Mod as i32;
        }
        3 => range.min_mod_revision = around.revision / 2,
        _ => {}
    }
    range
}
