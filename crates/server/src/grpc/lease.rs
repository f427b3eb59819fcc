//! The Lease service.

use std::pin::Pin;

use base::LeaseId;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use proto::etcdserverpb::lease_server::Lease as Service;
use proto::etcdserverpb::{self as pb};
use state::{Refusal, Reply};
use tonic::{Request, Response, Status, Streaming};

use super::caller;
use super::status::refused;
use crate::auth::Caller;
use crate::handle::{Handle, ProposeError, RequestKind};
use crate::traces::about;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    handle: Handle,
}

impl Leases {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    fn current_header(&self) -> pb::ResponseHeader {
        self.handle.header(self.handle.reads().keys().revision())
    }

    async fn keep_alive(
        &self,
        request: pb::LeaseKeepAliveRequest,
        caller: Caller,
    ) -> Result<pb::LeaseKeepAliveResponse, Status> {
        let header = Some(self.current_header());
        let caller = caller.within("lease_renew", || about::lease(request.id));
        let who = self.handle.enter(&caller, &request).await?;
        self.handle.authorize(&who, &request).map_err(|refusal| refused(&refusal))?;
        // L-06: an unknown lease is an answer with no time left, not an error.
        let ttl = match self.handle.renew_lease(LeaseId(request.id)).await {
            Ok(ttl) => {
                self.handle.metrics().leases.renewed.inc();
                ttl
            }
            Err(ProposeError::Refused(Refusal::LeaseNotFound)) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(pb::LeaseKeepAliveResponse { header, id: request.id, ttl })
    }
}

#[tonic::async_trait]
impl Service for Leases {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        self.handle.admit_for(&caller, &request, state::quota::LEASE_COST_BYTES).await?;
        if request.id == 0 {
            request.id = self.handle.new_lease_id();
        }
        let caller = caller.within("lease_grant", || about::grant(&request));
        let reply = self.handle.propose_for(&caller, RequestKind::LeaseGrant, &request).await?;
        let Reply::LeaseGrant(mut response) = reply else {
            unreachable!("a grant was answered by {reply:?}")
        };
        self.handle.metrics().leases.on_grant(response.ttl);
        response.header = Some(self.current_header());
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let caller = caller.within("lease_revoke", || about::lease(request.id));
        let reply = self.handle.propose_for(&caller, RequestKind::LeaseRevoke, &request).await?;
        let Reply::LeaseRevoke(_, mut response) = reply else {
            unreachable!("a revoke was answered by {reply:?}")
        };
        self.handle.metrics().leases.revoked.inc();
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        response.header = Some(self.handle.header(revision));
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let leases = self.clone();
        let caller = caller(&request);
        let answers = request.into_inner().then(move |message| {
            let (leases, caller) = (leases.clone(), caller.clone());
            async move { leases.keep_alive(message?, caller).await }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let who = self.handle.enter(&caller, &request).await?;
        self.handle.authorize(&who, &request).map_err(|refusal| refused(&refusal))?;
        let header = Some(self.current_header());
        match self.handle.lease_time_to_live(request).await {
            Ok(response) => {
                // Keys may have been attached while the leader was asked, and this member may not
                // know of it yet.
                self.handle.authorize(&who, &request).map_err(|refusal| refused(&refusal))?;
                let may_read = |key: &Bytes| {
                    let read = pb::RangeRequest { key: key.clone(), ..Default::default() };
                    self.handle.may_still(&who.user, &read)
                };
                if !response.keys.iter().all(may_read) {
                    return Err(refused(&Refusal::PermissionDenied));
                }
                Ok(Response::new(pb::LeaseTimeToLiveResponse { header, ..response }))
            }
            // L-08: an unknown lease is an answer, not an error.
            Err(ProposeError::Refused(Refusal::LeaseNotFound)) => {
                let (id, ttl) = (request.id, -1);
                let response =
                    pb::LeaseTimeToLiveResponse { header, id, ttl, ..Default::default() };
                Ok(Response::new(response))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let who = self.handle.enter(&caller(&request), request.get_ref()).await?;
        self.handle.authorize(&who, request.get_ref()).map_err(|refusal| refused(&refusal))?;
        // Only the leader knows when leases end.
        let ids = match self.handle.leases_by_expiry().await {
            Err(ProposeError::NotLeader) => self.handle.reads().leases(),
            answered => answered?,
        };
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        let header = Some(self.current_header());
        Ok(Response::new(pb::LeaseLeasesResponse { header, leases }))
    }
}
