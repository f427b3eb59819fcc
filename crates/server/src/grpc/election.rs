//! The Election service.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use proto::v3electionpb::election_server::Election as Service;
use proto::v3electionpb::{self as pb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{caller, status};
use crate::recipes::{Entry, Recipes};

/// Leaders that are kept for an observer that does not take them.
const OBSERVED_MAX: usize = 8;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Elections {
    recipes: Recipes,
}

impl Elections {
    pub(crate) fn new(recipes: Recipes) -> Self {
        Self { recipes }
    }
}

/// The key that a client says it leads with.
fn entry(leader: Option<pb::LeaderKey>) -> Result<Entry, Status> {
    let pb::LeaderKey { name: _, key, rev, lease } =
        leader.ok_or_else(status::leader_key_missing)?;
    Ok(Entry { key, created: rev, lease })
}

#[tonic::async_trait]
impl Service for Elections {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let recipes = self.recipes.by(caller(&request));
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let held = recipes.campaign(&name, lease, value).await;
        let held = held.map_err(|error| status::recipe(&error))?;
        let Entry { key, created, lease } = held.entry;
        let leader = Some(pb::LeaderKey { name, key, rev: created, lease });
        Ok(Response::new(pb::CampaignResponse { header: Some(held.header), leader }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let recipes = self.recipes.by(caller(&request));
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let header = recipes.proclaim(&entry(leader)?, value).await;
        let header = header.map_err(|error| status::recipe(&error))?;
        Ok(Response::new(pb::ProclaimResponse { header: Some(header) }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let recipes = self.recipes.by(caller(&request));
        let leader = recipes.leader(&request.into_inner().name).await;
        let (row, header) = leader.map_err(|error| status::recipe(&error))?;
        Ok(Response::new(pb::LeaderResponse { header: Some(header), kv: Some(row) }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (sender, told) = mpsc::channel(OBSERVED_MAX);
        let recipes = self.recipes.by(caller(&request));
        tokio::spawn(recipes.observe(request.into_inner().name, sender));
        let leaders = ReceiverStream::new(told)
            .map(|(row, header)| Ok(pb::LeaderResponse { header: Some(header), kv: Some(row) }));
        Ok(Response::new(Box::pin(leaders)))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let recipes = self.recipes.by(caller(&request));
        let entry = entry(request.into_inner().leader)?;
        let header = recipes.resign(&entry).await.map_err(|error| status::recipe(&error))?;
        Ok(Response::new(pb::ResignResponse { header: Some(header) }))
    }
}
