//! The Maintenance service: alarms, status, hashes, snapshots, defragmentation.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Instant;

use base::{MemberId, version};
use bytes::Bytes;
use futures_util::Stream;
use proto::etcdserverpb::maintenance_server::Maintenance as Service;
use proto::etcdserverpb::{self as pb, downgrade_request::DowngradeAction};
use proto::membershippb::DowngradeInfoSetRequest;
use sha2::{Digest as _, Sha256};
use state::Reply;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::health::Serving;
use super::{caller, status};
use crate::handle::{Handle, ProposeError, RequestKind};
use crate::peers::versions::Release;

/// Bytes of the database in one message of a snapshot (M-07).
const SNAPSHOT_BLOB_BYTES: usize = 32 << 10;

/// Messages of a snapshot that may wait for a slow client.
const SNAPSHOT_QUEUE_LEN: usize = 2;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Maintenance {
    handle: Handle,
    serving: Serving,
}

impl Maintenance {
    pub(crate) fn new(handle: Handle, serving: Serving) -> Self {
        Self { handle, serving }
    }

    fn current_header(&self) -> pb::ResponseHeader {
        self.handle.header(self.handle.reads().keys().revision())
    }

    fn downgrade_info(&self) -> pb::DowngradeInfo {
        let downgrade = self.handle.reads().downgrade();
        pb::DowngradeInfo { enabled: downgrade.enabled, target_version: downgrade.target_version }
    }

    /// What is wrong with the member, in etcd's words (M-03).
    fn errors(&self) -> Vec<String> {
        let leader = self.handle.status().leader;
        let no_leader = leader.is_none().then(|| "etcdserver: no leader".to_owned());
        let alarms = self.handle.reads().alarms();
        let raised = alarms.iter().map(|alarm| {
            format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())
        });
        no_leader.into_iter().chain(raised).collect()
    }
}

/// Runs work that reads the disk where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ProposeError::Stopped.into()))
}

#[tonic::async_trait]
impl Service for Maintenance {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let reply = self.handle.propose_for(&caller, RequestKind::Alarm, &request).await?;
        let Reply::Alarm(mut response) = reply else {
            unreachable!("an alarm request was answered by {reply:?}")
        };
        response.header = Some(self.current_header());
        Ok(Response::new(response))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let node = self.handle.status();
        let sizes = self.handle.backend().sizes();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.current_header()),
            version: version::COMPATIBLE.to_owned(),
            db_size: bytes(sizes.total),
            leader: node.leader.0,
            raft_index: node.committed,
            raft_term: node.term,
            raft_applied_index: node.applied,
            errors: self.errors(),
            db_size_in_use: bytes(sizes.in_use),
            is_learner: node.learner,
            storage_version: self.handle.reads().storage_version().unwrap_or_default(),
            db_size_quota: self.handle.limits().quota.bytes().map_or(0, bytes),
            downgrade_info: Some(self.downgrade_info()),
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let backend = self.handle.backend().clone();
        let disk = &self.handle.metrics().disk;
        let (began, inflight) = (Instant::now(), disk.begin_defrag());
        let pause = self.serving.begin_defrag();
        blocking(move || {
            // Ends with the work, even if nobody waits for it any more.
            let _pause = pause;
            tracing::info!("starting defragmentation");
            let before = backend.sizes();
            while backend.shrink_step().map_err(|error| status::backend(&error))? {}
            let after = backend.sizes();
            tracing::info!(
                current_db_size_bytes_diff = i64::try_from(after.total).unwrap_or(i64::MAX)
                    - i64::try_from(before.total).unwrap_or(i64::MAX),
                current_db_size_bytes = after.total,
                "finished defragmentation"
            );
            Ok(())
        })
        .await?;
        drop(inflight);
        disk.defrag.observe(began.elapsed().as_secs_f64());
        // G-003: no header.
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let backend = self.handle.backend().clone();
        let began = Instant::now();
        let hash = blocking(move || {
            let copy = backend.copy().map_err(|error| status::backend(&error))?;
            let (mut hash, mut bucket_seen) = (0, String::new());
            copy.scan(&mut |bucket, key, value| {
                if bucket_seen != bucket {
                    bucket.clone_into(&mut bucket_seen);
                    hash = crc32c::crc32c_append(hash, bucket.as_bytes());
                }
                hash = crc32c::crc32c_append(hash, key);
                hash = crc32c::crc32c_append(hash, value);
                ControlFlow::Continue(())
            })
            .map_err(|error| status::backend(&error))?;
            Ok(hash)
        })
        .await?;
        self.handle.metrics().store.hash.observe(began.elapsed().as_secs_f64());
        Ok(Response::new(pb::HashResponse { header: Some(self.current_header()), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let revision = request.into_inner().revision;
        let keys = self.handle.reads().keys().clone();
        let began = Instant::now();
        let hash =
            blocking(move || keys.hash(revision).map_err(|error| status::hash(&error))).await?;
        self.handle.metrics().store.hash_revision.observe(began.elapsed().as_secs_f64());
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.handle.header(hash.current)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let (messages, stream) = mpsc::channel(SNAPSHOT_QUEUE_LEN);
        let maintenance = self.clone();
        tokio::task::spawn_blocking(move || {
            let sent = maintenance.send_snapshot(&messages);
            if let Err(Some(failure)) = sent {
                // A client that is gone needs no error.
                let _told = messages.blocking_send(Err(failure));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        if !self.handle.leads() {
            return Err(ProposeError::NotLeader.into());
        }
        let target = MemberId(request.into_inner().target_id);
        let members = self.handle.reads().members();
        if !members.iter().any(|member| member.id == target.0 && !member.is_learner) {
            return Err(ProposeError::BadTransferee.into());
        }
        // The leader leads already.
        if target != self.handle.member_id() {
            self.handle.move_leader(target).await?;
        }
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    /// M-09.
    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.handle.enter(&caller(&request), request.get_ref()).await?;
        let request = request.into_inner();
        let action = DowngradeAction::try_from(request.action);
        let action = action.map_err(|_| status::unknown_downgrade_action())?;
        let reads = self.handle.reads();
        let mut change = None;
        if action == DowngradeAction::Cancel {
            self.handle.linearize().await?;
            // As etcd since 3.6: there is nothing to cancel, and so it is cancelled.
            if reads.downgrade().enabled {
                change = Some(DowngradeInfoSetRequest::default());
            } else {
                tracing::warn!(error = "no inflight downgrade", "failed to cancel downgrade");
            }
        } else {
            let target = Release::parse(&request.version).ok_or_else(status::downgrade_format)?;
            if reads.cluster_version().is_none() {
                return Err(status::no_cluster_version());
            }
            self.handle.linearize().await?;
            let current = reads.cluster_version().as_deref().and_then(Release::parse);
            // Members before 3.5 do not know the request, and end at it.
            let is_known = current.is_some_and(|current| Release::V3_5 <= current);
            if !is_known || current.and_then(Release::before) != Some(target) {
                return Err(status::downgrade_target());
            }
            if reads.downgrade().enabled {
                return Err(status::downgrade_in_progress());
            }
            if action == DowngradeAction::Enable {
                let ver = target.to_cluster_version();
                change = Some(DowngradeInfoSetRequest { enabled: true, ver });
            }
        }
        if let Some(change) = change {
            self.handle.propose(RequestKind::DowngradeInfoSet, &change).await?;
        }
        let current = reads.cluster_version().as_deref().and_then(Release::parse);
        Ok(Response::new(pb::DowngradeResponse {
            header: Some(self.current_header()),
            version: current.map_or_else(String::new, |current| current.to_string()),
        }))
    }
}

impl Maintenance {
    /// Sends the database and its digest; `Err(None)` if the client went away.
    fn send_snapshot(
        &self,
        messages: &mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
    ) -> Result<(), Option<Status>> {
        let failed = |status: Status| Some(status);
        let began = Instant::now();
        let mut copy = self.handle.backend().copy().map_err(|e| failed(status::backend(&e)))?;
        let storage_version = self.handle.reads().storage_version().unwrap_or_default();
        let mut remaining_bytes = copy.len();
        tracing::info!(total_bytes = remaining_bytes, "sending database snapshot to client");
        let mut digest = Sha256::new();
        loop {
            let blob = copy.read(SNAPSHOT_BLOB_BYTES).map_err(|e| failed(status::backend(&e)))?;
            if blob.is_empty() {
                break;
            }
            digest.update(&blob);
            remaining_bytes -= blob.len() as u64;
            let message = pb::SnapshotResponse {
                header: None,
                remaining_bytes,
                blob,
                version: storage_version.clone(),
            };
            messages.blocking_send(Ok(message)).map_err(|_| None)?;
        }
        let blob = Bytes::copy_from_slice(&digest.finalize());
        let last = pb::SnapshotResponse {
            header: None,
            remaining_bytes: 0,
            blob,
            version: storage_version,
        };
        messages.blocking_send(Ok(last)).map_err(|_| None)?;
        self.handle.metrics().disk.backend_snapshot.observe(began.elapsed().as_secs_f64());
        tracing::info!("successfully sent database snapshot to client");
        Ok(())
    }
}
