//! The Lock service.

use proto::v3lockpb::lock_server::Lock as Service;
use proto::v3lockpb::{self as pb};
use tonic::{Request, Response, Status};

use super::{caller, status};
use crate::recipes::Recipes;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Locks {
    recipes: Recipes,
}

impl Locks {
    pub(crate) fn new(recipes: Recipes) -> Self {
        Self { recipes }
    }
}

#[tonic::async_trait]
impl Service for Locks {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let recipes = self.recipes.by(caller(&request));
        let pb::LockRequest { name, lease } = request.into_inner();
        let held = recipes.lock(&name, lease).await.map_err(|error| status::recipe(&error))?;
        Ok(Response::new(pb::LockResponse { header: Some(held.header), key: held.entry.key }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let recipes = self.recipes.by(caller(&request));
        let key = request.into_inner().key;
        let header = recipes.unlock(key).await.map_err(|error| status::recipe(&error))?;
        Ok(Response::new(pb::UnlockResponse { header: Some(header) }))
    }
}
