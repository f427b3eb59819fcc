//! What Put and DeleteRange mean: previous rows, ignore flags, leases of keys.
//!
//! Source: etcd server/etcdserver/txn/{put,delete}.go, server/storage/mvcc/kvstore_txn.go.

use base::{KeyRange, LeaseId};
use bytes::Bytes;
use mvcc::{RangeQuery, Row, Txn, Want};
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;

use crate::lease::Leases;
use crate::view::{Stop, View};
use crate::{Refusal, Steps};

/// One entry's changes of keys, and of the leases they hang on.
#[derive(Debug)]
pub(crate) struct Changes<'t, 'w, 'a> {
    txn: &'t mut Txn<'w, 'a>,
    leases: &'t mut Leases,
    changed: bool,
    /// What was done so far.
    pub(crate) steps: Steps,
}

impl<'t, 'w, 'a> Changes<'t, 'w, 'a> {
    pub(crate) fn new(txn: &'t mut Txn<'w, 'a>, leases: &'t mut Leases) -> Self {
        Self { txn, leases, changed: false, steps: Steps::default() }
    }

    /// What the entry sees of the keys so far.
    pub(crate) fn view(&self) -> &Txn<'w, 'a> {
        self.txn
    }

    /// The store's revision as this entry leaves it if it ends here.
    pub(crate) fn revision(&self) -> i64 {
        if self.changed { self.txn.main() } else { self.txn.main() - 1 }
    }

    /// Sets a key. The request passed [`check_put`].
    pub(crate) fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Stop> {
        self.steps.look_before(request);
        let lease = LeaseId(request.lease);
        let previous = if request.ignore_value || request.ignore_lease {
            // The check saw a row; an earlier operation of the same transaction may have deleted
            // it since. Then there is nothing to keep, and it is too late to refuse.
            let row = previous_row(self.txn, request)?;
            let row = row.map(|row| row.decode());
            let kept = row.clone().unwrap_or_default();
            let value = if request.ignore_value { &kept.value } else { &request.value };
            let lease = if request.ignore_lease { LeaseId(kept.lease) } else { lease };
            self.put_row(request, value, lease, false)?;
            row
        } else {
            self.put_row(request, &request.value, lease, request.prev_kv)?
        };
        Ok(pb::PutResponse {
            header: header(self.revision()),
            prev_kv: previous.filter(|_| request.prev_kv),
        })
    }

    fn put_row(
        &mut self,
        request: &pb::PutRequest,
        value: &Bytes,
        lease: LeaseId,
        want_previous: bool,
    ) -> Result<Option<KeyValue>, Stop> {
        let previous = self.txn.put(request.key.clone(), value, lease, want_previous)?;
        self.changed = true;
        self.steps.puts += 1;
        self.steps.put_bytes += (request.key.len() + value.len()) as u64;
        if !(lease.is_none() && base::probe::mutant("put-stays-on-its-former-lease")) {
            self.leases.attach(&request.key, lease);
        }
        Ok(previous.row.map(|row| row.decode()))
    }

    /// Deletes the keys of a range.
    pub(crate) fn delete(
        &mut self,
        request: &pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Stop> {
        let keys = KeyRange::from_wire(request.key.clone(), request.range_end.clone());
        let mut prev_kvs = Vec::new();
        let deleted = self.delete_keys(&keys, request.prev_kv, &mut |row| {
            prev_kvs.push(row.decode());
        })?;
        Ok(pb::DeleteRangeResponse {
            header: header(self.revision()),
            deleted: i64::try_from(deleted).expect("a count of keys in memory fits"),
            prev_kvs,
        })
    }

    /// Deletes one key if it is live.
    pub(crate) fn delete_key(&mut self, key: Bytes) -> Result<(), Stop> {
        self.delete_keys(&KeyRange::One(key), false, &mut |_| {})?;
        Ok(())
    }

    fn delete_keys(
        &mut self,
        keys: &KeyRange,
        want_previous: bool,
        previous: &mut dyn FnMut(Row),
    ) -> Result<usize, Stop> {
        self.steps.ranges += u64::from(want_previous);
        self.steps.deletes += 1;
        let leases = &mut *self.leases;
        let deleted = self.txn.delete_range(keys, want_previous, &mut |key, row| {
            if !base::probe::mutant("deleted-key-stays-on-its-lease") {
                leases.attach(key, LeaseId::NONE);
            }
            if let Some(row) = row {
                previous(row);
            }
        })?;
        self.changed |= deleted != 0;
        Ok(deleted)
    }
}

/// Whether a put can be done: its lease exists, and there is a row to take from what it ignores.
/// That it looks for one is added to `steps`.
pub(crate) fn check_put(
    view: &impl View,
    leases: &Leases,
    request: &pb::PutRequest,
    steps: &mut Steps,
) -> Result<(), Stop> {
    let lease = LeaseId(request.lease);
    if !lease.is_none() && !leases.contains(lease) {
        return Err(Refusal::LeaseNotFound.into());
    }
    steps.look_before(request);
    if request.ignore_value || request.ignore_lease {
        let count = view.range(&one(&request.key, Want::Count))?.count;
        if count == 0 {
            return Err(Refusal::KeyNotFound.into());
        }
    }
    Ok(())
}

fn previous_row(view: &impl View, request: &pb::PutRequest) -> Result<Option<Row>, Stop> {
    Ok(view.range(&one(&request.key, Want::Rows))?.rows.into_iter().next())
}

fn one(key: &Bytes, want: Want) -> RangeQuery {
    RangeQuery { keys: KeyRange::One(key.clone()), at: None, limit: None, want }
}

/// A header that says only the revision (G-002); the server adds who answers.
#[expect(clippy::unnecessary_wraps, reason = "the message's field is optional")]
pub(crate) fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}
