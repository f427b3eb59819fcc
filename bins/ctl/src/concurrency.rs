//! Locks and elections made of keys with a lease.
//!
//! Whoever wants the lock writes a key under its name; the oldest key holds it, and the others wait
//! for those before them to go. The layout is etcd's, so that its clients and its lock service
//! exclude each other with these.
//!
//! etcd: `client/v3/concurrency`.

use bytes::Bytes;
use cli::exit::Failure;
use client::{Client, WatchOptions, prefix_end};
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, ResponseOp, TxnRequest, TxnResponse, response_op,
};
use proto::mvccpb::event::EventType;
use tokio::sync::oneshot;

/// A lease that is kept alive as long as this exists.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    lease: i64,
    lost: oneshot::Receiver<()>,
}

impl Session {
    /// Grants the lease and starts to renew it.
    pub(crate) async fn open(client: &Client, ttl_seconds: i64) -> Result<Self, Failure> {
        let request = LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        let lease = client.lease_grant(request).await.map_err(Failure::error)?.id;
        let mut renewals = client.lease_keep_alive(lease);
        let (alive, lost) = oneshot::channel();
        tokio::spawn(async move {
            while renewals.next().await.is_some() {}
            // Nobody may be waiting any more.
            drop(alive);
        });
        Ok(Self { client: client.clone(), lease, lost })
    }

    /// Waits until the lease is lost.
    pub(crate) async fn lost(&mut self) {
        // The sender only ever goes away.
        (&mut self.lost).await.ok();
    }

    /// Writes this session's key under `name`, unless it is there, and waits until all older ones
    /// are gone.
    pub(crate) async fn acquire(&self, name: &[u8], value: &[u8]) -> Result<Held, Failure> {
        let prefix = [name, b"/"].concat();
        let key = Bytes::from([&prefix[..], format!("{:x}", self.lease).as_bytes()].concat());
        let response = self.write_unless_there(&key, value, &prefix).await?;
        let revision = response.header.map_or(0, |header| header.revision);
        let existing = pairs(response.responses.first()).and_then(|range| range.kvs.first());
        let created = existing.map_or(revision, |pair| pair.create_revision);
        let owner = pairs(response.responses.get(1)).and_then(|range| range.kvs.first());
        let held = Held { key, created, revision };
        if owner.is_none_or(|owner| owner.create_revision == created) {
            return Ok(held);
        }
        self.wait_for_older(&prefix, created - 1).await?;
        let now = self.client.get(one(held.key.clone())).await.map_err(Failure::error)?;
        if now.kvs.is_empty() {
            return Err(Failure::error("mutex: session is expired"));
        }
        Ok(Held { revision: now.header.map_or(0, |header| header.revision), ..held })
    }

    async fn write_unless_there(
        &self,
        key: &Bytes,
        value: &[u8],
        prefix: &[u8],
    ) -> Result<TxnResponse, Failure> {
        let put = PutRequest {
            key: key.clone(),
            value: Bytes::copy_from_slice(value),
            lease: self.lease,
            ..PutRequest::default()
        };
        let owner = operation(Request::RequestRange(oldest(prefix)));
        let request = TxnRequest {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![operation(Request::RequestPut(put)), owner.clone()],
            failure: vec![operation(Request::RequestRange(one(key.clone()))), owner],
        };
        self.client.txn(request).await.map_err(Failure::error)
    }

    async fn wait_for_older(&self, prefix: &[u8], created_max: i64) -> Result<(), Failure> {
        loop {
            let request = RangeRequest {
                max_create_revision: created_max,
                sort_order: SortOrder::Descend.into(),
                ..oldest(prefix)
            };
            let response = self.client.get(request).await.map_err(Failure::error)?;
            let Some(pair) = response.kvs.first() else {
                return Ok(());
            };
            let revision = response.header.map_or(0, |header| header.revision);
            wait_for_deletion(&self.client, pair.key.clone(), revision).await?;
        }
    }

    /// Deletes the key, if it is still the one that was written.
    pub(crate) async fn release(&self, held: &Held) -> Result<(), Failure> {
        let delete = DeleteRangeRequest { key: held.key.clone(), ..DeleteRangeRequest::default() };
        let request = TxnRequest {
            compare: vec![created_at(held.key.clone(), held.created)],
            success: vec![operation(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        self.client.txn(request).await.map_err(Failure::error).map(drop)
    }
}

/// A key that holds a lock or leads an election.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// The key.
    pub key: Bytes,
    /// The revision at which it was written.
    created: i64,
    /// The revision at which it was known to be the oldest.
    pub revision: i64,
}

/// A read of one key.
pub(crate) fn one(key: Bytes) -> RangeRequest {
    RangeRequest { key, ..RangeRequest::default() }
}

/// A read of the key under `prefix` that was created first.
pub(crate) fn oldest(prefix: &[u8]) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: Bytes::from(prefix_end(prefix)),
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

async fn wait_for_deletion(client: &Client, key: Bytes, revision: i64) -> Result<(), Failure> {
    let options = WatchOptions { key, start_revision: revision, ..WatchOptions::default() };
    let mut watcher = client.watch(options);
    while let Some(response) = watcher.next().await {
        let response = response.map_err(Failure::error)?;
        if response.canceled {
            return Err(Failure::error(response.cancel_reason));
        }
        if response.events.iter().any(|event| event.r#type() == EventType::Delete) {
            return Ok(());
        }
    }
    Err(Failure::error("lost watcher waiting for delete"))
}

fn created_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn pairs(operation: Option<&ResponseOp>) -> Option<&RangeResponse> {
    match &operation?.response {
        Some(response_op::Response::ResponseRange(range)) => Some(range),
        Some(
            response_op::Response::ResponsePut(_)
            | response_op::Response::ResponseDeleteRange(_)
            | response_op::Response::ResponseTxn(_),
        )
        | None => None,
    }
}

/// Waits for a request to end from the terminal or the supervisor.
pub(crate) async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        // Without handlers the signals end the process themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
