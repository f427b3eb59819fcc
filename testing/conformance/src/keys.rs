//! A client with the few calls that tests of faults need.

use bytes::Bytes;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{self as pb, alarm_request::AlarmAction};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Keys and alarms of one server.
#[derive(Clone, Debug)]
pub struct Keys {
    kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl Keys {
    /// A client that connects with its first call, and again after the server was away.
    ///
    /// # Errors
    ///
    /// The endpoint is no URL.
    pub fn of(endpoint: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect_lazy();
        Ok(Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            maintenance: MaintenanceClient::new(channel),
        })
    }

    /// Puts; the revision.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<i64, Status> {
        let request = pb::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.into(),
            ..Default::default()
        };
        let response = self.kv.clone().put(request).await?.into_inner();
        Ok(response.header.map_or(0, |header| header.revision))
    }

    /// The value, if there is the key.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, Status> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let request = pb::RangeRequest { key, ..Default::default() };
        let response = self.kv.clone().range(request).await?.into_inner();
        Ok(response.kvs.into_iter().next().map(|kv| kv.value))
    }

    /// Deletes; how many keys there were.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn delete(&self, key: &str) -> Result<i64, Status> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let request = pb::DeleteRangeRequest { key, ..Default::default() };
        Ok(self.kv.clone().delete_range(request).await?.into_inner().deleted)
    }

    /// Forgets history up to a revision, rows included.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = pb::CompactionRequest { revision, physical: true };
        self.kv.clone().compact(request).await.map(|_| ())
    }

    /// Whether any member has raised NOSPACE.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn no_space(&self) -> Result<bool, Status> {
        let request = pb::AlarmRequest { action: AlarmAction::Get as i32, ..Default::default() };
        let response = self.maintenance.clone().alarm(request).await?.into_inner();
        Ok(response.alarms.iter().any(|alarm| alarm.alarm == pb::AlarmType::Nospace as i32))
    }
}
