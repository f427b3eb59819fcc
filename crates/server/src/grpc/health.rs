//! gRPC's own health service (G-016): the server as a whole, under the empty name.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use proto::health::health_check_response::ServingStatus;
use proto::health::health_server::Health as Service;
use proto::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::{Request, Response, Status};

use super::status;

/// The service. Who can be asked, serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health;

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Service for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(status::unknown_health_service());
        }
        Ok(Response::new(answer(ServingStatus::Serving)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// The state now, and then only what changes: nothing does.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.get_ref().service.is_empty();
        let now = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        let states = stream::once(async move { Ok(answer(now)) }).chain(stream::pending());
        Ok(Response::new(Box::pin(states)))
    }
}
