//! Calls that a single member answers about itself.
//!
//! A client made for several endpoints asks whichever it is connected to; make one per endpoint to
//! choose.
//!
//! etcd: `client/v3/maintenance.go`.

use bytes::Bytes;
use proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, MoveLeaderRequest, MoveLeaderResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};

use crate::call::{Policy, calls};
use crate::client::Client;
use crate::error::Error;

calls! { maintenance_stub;
    /// Lists, raises or clears alarms.
    Once alarm(AlarmRequest) -> AlarmResponse = alarm;
    /// Reads the member's state.
    Repeatable status(StatusRequest) -> StatusResponse = status;
    /// Gives the backend's free pages back to the file system.
    Once defragment(DefragmentRequest) -> DefragmentResponse = defragment;
    /// Hashes the key space up to a revision.
    Repeatable hash_kv(HashKvRequest) -> HashKvResponse = hash_kv;
    /// Hands leadership to another voter. Only the leader accepts it.
    Once move_leader(MoveLeaderRequest) -> MoveLeaderResponse = move_leader;
    /// Checks, starts or cancels a downgrade.
    Once downgrade(DowngradeRequest) -> DowngradeResponse = downgrade;
}

impl Client {
    /// Opens a stream of the member's backend, followed by its SHA-256.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn snapshot(&self) -> Result<SnapshotStream, Error> {
        let pieces = self
            .unary(Policy::Repeatable, SnapshotRequest {}, |channel, request| {
                let mut stub = self.maintenance_stub(channel);
                async move { stub.snapshot(request).await }
            })
            .await?;
        Ok(SnapshotStream { pieces, version: String::new(), remaining_bytes: 0 })
    }
}

/// The pieces of a snapshot, in order.
#[derive(Debug)]
pub struct SnapshotStream {
    pieces: tonic::Streaming<SnapshotResponse>,
    version: String,
    remaining_bytes: u64,
}

impl SnapshotStream {
    /// The next piece, `None` behind the last.
    ///
    /// # Errors
    ///
    /// The stream broke; what was read is incomplete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let piece = self.pieces.message().await.map_err(|status| Error::from_status(&status))?;
        let Some(piece) = piece else {
            return Ok(None);
        };
        if self.version.is_empty() {
            self.version = piece.version;
        }
        self.remaining_bytes = piece.remaining_bytes;
        Ok(Some(piece.blob))
    }

    /// The release of the member that made the snapshot; empty before the first piece, and with
    /// members before 3.6.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Bytes that follow the last piece read, the hash not counted.
    #[must_use]
    pub fn remaining_bytes(&self) -> u64 {
        self.remaining_bytes
    }
}
