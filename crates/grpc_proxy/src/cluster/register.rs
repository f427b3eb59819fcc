//! Proxies that make themselves known to each other: one key each, kept by a lease.
//!
//! The form of the values is that of etcd's clients, which find endpoints by them.
//!
//! Source: etcd server/proxy/grpcproxy/register.go, client/v3/naming/endpoints.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use client::WatchOptions;
use parking_lot::Mutex;
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use proto::mvccpb::event::EventType;
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::kv::Store;
use crate::settings::Registration;
use crate::upstream::Upstream;

/// Between two attempts. The same as etcd's.
const PAUSE: Duration = Duration::from_secs(1);

/// The value of a key.
#[derive(Debug, Serialize, Deserialize)]
struct Update {
    /// 0: it was added.
    #[serde(rename = "Op", default)]
    operation: u8,
    #[serde(rename = "Addr", default)]
    address: String,
    /// JSON inside of JSON.
    #[serde(rename = "Metadata", default)]
    metadata: serde_json::Value,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// The name of this machine.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Registers under an address, for ever; ends never.
pub(crate) async fn register(store: Store, registration: Registration, address: String) {
    loop {
        match session(&store, &registration, &address).await {
            Ok(()) => {
                tracing::warn!("session expired; possible network partition or server restart");
                tracing::warn!("creating a new session to rejoin");
            }
            Err(error) => tracing::warn!(error = %error, "failed to create a session"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Registers, and returns when the lease is lost.
async fn session(
    store: &Store,
    registration: &Registration,
    address: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let ttl = registration.ttl_seconds;
    let client = store.upstream().client();
    let grant = LeaseGrantRequest { ttl, ..LeaseGrantRequest::default() };
    let lease = client.lease_grant(grant).await?.id;
    let metadata = serde_json::to_string(&Metadata { name: host_name() })?;
    let update = Update { operation: 0, address: address.to_owned(), metadata: metadata.into() };
    let put = PutRequest {
        key: format!("{}/{address}", registration.prefix).into(),
        value: serde_json::to_vec(&update)?.into(),
        lease,
        ..PutRequest::default()
    };
    let put = RequestOp { request: Some(Operation::RequestPut(put)) };
    let txn = TxnRequest { success: vec![put], ..TxnRequest::default() };
    if let Err(status) = store.txn(&Upstream::own(), txn).await {
        // Another one follows in a moment; they must not pile up.
        client.lease_revoke(LeaseRevokeRequest { id: lease }).await.ok();
        return Err(status.into());
    }
    tracing::info!(addr = address, "lease-ttl" = ttl, "registered session with lease");
    let mut renewals = client.lease_keep_alive(lease);
    while renewals.next().await.is_some() {}
    Ok(())
}

/// Who is registered.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    /// Name and address by key.
    known: Mutex<BTreeMap<Bytes, (String, String)>>,
}

impl Proxies {
    /// Names and addresses.
    pub(super) fn list(&self) -> Vec<(String, String)> {
        self.known.lock().values().cloned().collect()
    }

    /// Follows what is registered, for ever.
    pub(crate) async fn follow(&self, store: Store, prefix: String) {
        let prefix = Bytes::from(format!("{prefix}/"));
        loop {
            if let Err(status) = self.follow_once(&store, &prefix).await {
                tracing::warn!(
                    prefix = %String::from_utf8_lossy(&prefix),
                    error = status.message(),
                    "failed to establish endpoint watch"
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow_once(&self, store: &Store, prefix: &Bytes) -> Result<(), Status> {
        let range_end = Bytes::from(client::prefix_end(prefix));
        let read = RangeRequest {
            key: prefix.clone(),
            range_end: range_end.clone(),
            ..RangeRequest::default()
        };
        let found = store.range(&Upstream::own(), read).await?;
        let revision = found.header.map_or(0, |header| header.revision);
        let all =
            found.kvs.iter().filter_map(|pair| Some((pair.key.clone(), read_value(&pair.value)?)));
        *self.known.lock() = all.collect();
        let mut options = WatchOptions {
            key: prefix.clone(),
            range_end,
            start_revision: revision + 1,
            ..WatchOptions::default()
        };
        store.namespace().enter(&mut options.key, &mut options.range_end);
        let mut watcher = store.upstream().client().watch(options);
        while let Some(response) = watcher.next().await {
            let response = response.map_err(|error| Status::unknown(error.to_string()))?;
            if response.canceled {
                return Err(Status::unknown(response.cancel_reason));
            }
            let mut events = response.events;
            store.namespace().leave_events(&mut events);
            let mut known = self.known.lock();
            for event in events {
                let kind = event.r#type();
                let Some(pair) = event.kv else { continue };
                match (kind, read_value(&pair.value)) {
                    (EventType::Put, Some(proxy)) => drop(known.insert(pair.key, proxy)),
                    (EventType::Delete, _) => drop(known.remove(&pair.key)),
                    (EventType::Put, None) => {}
                }
            }
        }
        Ok(())
    }
}

/// Name and address; `None` if it is nothing of ours.
fn read_value(value: &[u8]) -> Option<(String, String)> {
    let update: Update = serde_json::from_slice(value).ok()?;
    let metadata = match update.metadata.as_str() {
        Some(text) => serde_json::from_str::<Metadata>(text).ok()?,
        None => serde_json::from_value(update.metadata).unwrap_or_default(),
    };
    Some((metadata.name, update.address))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-179: as etcd's proxies write it.
    #[test]
    fn values_are_etcds() {
        let metadata = serde_json::to_string(&Metadata { name: "m".to_owned() }).unwrap();
        let update = Update { operation: 0, address: "a:1".to_owned(), metadata: metadata.into() };
        let text = serde_json::to_string(&update).unwrap();
        assert_eq!(text, r#"{"Op":0,"Addr":"a:1","Metadata":"{\"name\":\"m\"}"}"#);
        assert_eq!(read_value(text.as_bytes()), Some(("m".to_owned(), "a:1".to_owned())));
        assert_eq!(read_value(b"x"), None);
    }
}
