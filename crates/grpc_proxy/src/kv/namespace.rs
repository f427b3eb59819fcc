//! A part of the keys as if that were all: a prefix goes before every key on the way to a member and
//! away again on the way back.
//!
//! Source: etcd client/v3/namespace.

use bytes::{Bytes, BytesMut};
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::response_op::Response as Outcome;
use proto::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use proto::mvccpb::{Event, KeyValue};
use tonic::Status;

/// What goes before every key; empty for nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespace {
    prefix: Bytes,
}

impl Namespace {
    pub(crate) fn new(prefix: Bytes) -> Self {
        Self { prefix }
    }

    fn is_all(&self) -> bool {
        self.prefix.is_empty()
    }

    /// With a prefix an empty key would be one.
    ///
    /// # Errors
    ///
    /// What a member says to an empty key.
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(), Status> {
        if key.is_empty() && !self.is_all() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        Ok(())
    }

    /// The range as members know it.
    pub(crate) fn enter(&self, key: &mut Bytes, range_end: &mut Bytes) {
        if self.is_all() {
            return;
        }
        *key = self.join(key);
        *range_end = match range_end.as_ref() {
            [] => Bytes::new(),
            [0] => client::prefix_end(&self.prefix).into(),
            end => self.join(end),
        };
    }

    fn join(&self, key: &[u8]) -> Bytes {
        let mut joined = BytesMut::with_capacity(self.prefix.len() + key.len());
        joined.extend_from_slice(&self.prefix);
        joined.extend_from_slice(key);
        joined.freeze()
    }

    /// A transaction as members know it, however deep.
    pub(crate) fn enter_txn(&self, txn: &mut TxnRequest) {
        for compare in &mut txn.compare {
            self.enter(&mut compare.key, &mut compare.range_end);
        }
        for operation in txn.success.iter_mut().chain(&mut txn.failure) {
            self.enter_operation(operation);
        }
    }

    fn enter_operation(&self, operation: &mut RequestOp) {
        match &mut operation.request {
            Some(Operation::RequestRange(range)) => {
                self.enter(&mut range.key, &mut range.range_end);
            }
            Some(Operation::RequestPut(put)) => self.enter(&mut put.key, &mut Bytes::new()),
            Some(Operation::RequestDeleteRange(delete)) => {
                self.enter(&mut delete.key, &mut delete.range_end);
            }
            Some(Operation::RequestTxn(txn)) => self.enter_txn(txn),
            None => {}
        }
    }

    /// A key as clients know it; `None` if it is not theirs.
    pub(crate) fn leave_key(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.prefix).then(|| key.slice(self.prefix.len()..))
    }

    fn leave<'a>(&self, pairs: impl IntoIterator<Item = &'a mut KeyValue>) {
        if self.is_all() {
            return;
        }
        for pair in pairs {
            pair.key = self.leave_key(&pair.key).unwrap_or_default();
        }
    }

    pub(crate) fn leave_range(&self, response: &mut RangeResponse) {
        self.leave(&mut response.kvs);
    }

    pub(crate) fn leave_put(&self, response: &mut PutResponse) {
        self.leave(&mut response.prev_kv);
    }

    pub(crate) fn leave_delete(&self, response: &mut DeleteRangeResponse) {
        self.leave(&mut response.prev_kvs);
    }

    pub(crate) fn leave_txn(&self, response: &mut TxnResponse) {
        for outcome in &mut response.responses {
            match &mut outcome.response {
                Some(Outcome::ResponseRange(range)) => self.leave_range(range),
                Some(Outcome::ResponsePut(put)) => self.leave_put(put),
                Some(Outcome::ResponseDeleteRange(delete)) => self.leave_delete(delete),
                Some(Outcome::ResponseTxn(txn)) => self.leave_txn(txn),
                None => {}
            }
        }
    }

    pub(crate) fn leave_events(&self, events: &mut [Event]) {
        for event in events {
            self.leave(event.kv.iter_mut().chain(&mut event.prev_kv));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(prefix: &'static [u8], key: &'static [u8], end: &'static [u8]) -> (Bytes, Bytes) {
        let (mut key, mut end) = (Bytes::from_static(key), Bytes::from_static(end));
        Namespace::new(Bytes::from_static(prefix)).enter(&mut key, &mut end);
        (key, end)
    }

    /// SRV-179.
    #[test]
    fn ranges_stay_inside() {
        for (prefix, key, end, inside) in [
            (&b"p/"[..], &b"a"[..], &b""[..], (&b"p/a"[..], &b""[..])),
            (b"p/", b"a", b"c", (b"p/a", b"p/c")),
            (b"p/", b"a", b"\0", (b"p/a", b"p0")),
            (b"p\xff", b"", b"\0", (b"p\xff", b"q")),
            (b"\xff\xff", b"\0", b"\0", (b"\xff\xff\0", b"\0")),
            (b"", b"\0", b"\0", (b"\0", b"\0")),
        ] {
            let (key, end) = entered(prefix, key, end);
            assert_eq!((&key[..], &end[..]), inside);
        }
    }

    /// SRV-179: deep transactions.
    #[test]
    fn transactions_go_there_and_back() {
        let namespace = Namespace::new(Bytes::from_static(b"p/"));
        let put = proto::etcdserverpb::PutRequest { key: "k".into(), ..Default::default() };
        let put = RequestOp { request: Some(Operation::RequestPut(put)) };
        let inner = TxnRequest { failure: vec![put], ..TxnRequest::default() };
        let inner = RequestOp { request: Some(Operation::RequestTxn(inner)) };
        let compare = proto::etcdserverpb::Compare { key: "c".into(), ..Default::default() };
        let mut txn =
            TxnRequest { compare: vec![compare], success: vec![inner], ..TxnRequest::default() };
        namespace.enter_txn(&mut txn);
        assert_eq!(txn.compare[0].key, "p/c");
        let Some(Operation::RequestTxn(inner)) = &txn.success[0].request else { panic!() };
        let Some(Operation::RequestPut(put)) = &inner.failure[0].request else { panic!() };
        assert_eq!(put.key, "p/k");
        let pair = KeyValue { key: "p/k".into(), ..KeyValue::default() };
        let mut response = PutResponse { prev_kv: Some(pair), ..PutResponse::default() };
        namespace.leave_put(&mut response);
        assert_eq!(response.prev_kv.unwrap().key, "k");
        assert_eq!(namespace.leave_key(&"q/k".into()), None);
    }
}
