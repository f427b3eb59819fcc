//! gRPC's own health service (G-016): the server as a whole, under the empty name.
//!
//! Who can be asked, serves; except that with the gate `StopGRPCServiceOnDefrag` a member says that
//! it does not while it defragments, so that load balancers go elsewhere. Calls are answered all
//! the same (etcd: server/etcdserver/api/v3rpc/health.go).

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use proto::health::health_check_response::ServingStatus;
use proto::health::health_server::Health as Service;
use proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::status;

/// Whether the server says that it serves; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    /// Defragmentations under way.
    pauses: Arc<watch::Sender<u32>>,
    stops_on_defrag: bool,
}

/// While it lives, the server may say that it does not serve.
#[derive(Debug)]
pub(crate) struct Pause(Option<Arc<watch::Sender<u32>>>);

impl Serving {
    /// It serves. `stops_on_defrag` is the gate's state.
    pub(crate) fn new(stops_on_defrag: bool) -> Self {
        Self { pauses: Arc::new(watch::Sender::new(0)), stops_on_defrag }
    }

    /// A defragmentation begins, which lasts as long as the result lives.
    pub(crate) fn begin_defrag(&self) -> Pause {
        if !self.stops_on_defrag {
            return Pause(None);
        }
        tracing::warn!(
            service = "",
            status = ServingStatus::NotServing.as_str_name(),
            reason = "defrag is active",
            "grpc service status changed"
        );
        self.pauses.send_modify(|pauses| *pauses += 1);
        Pause(Some(self.pauses.clone()))
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let Some(pauses) = &self.0 else { return };
        pauses.send_modify(|pauses| *pauses -= 1);
        tracing::info!(
            service = "",
            status = ServingStatus::Serving.as_str_name(),
            "grpc service status changed"
        );
    }
}

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    serving: Serving,
}

impl Health {
    pub(crate) fn new(serving: Serving) -> Self {
        Self { serving }
    }
}

fn status_of(pauses: u32) -> ServingStatus {
    if pauses == 0 { ServingStatus::Serving } else { ServingStatus::NotServing }
}

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
        Ok(Response::new(answer(status_of(*self.serving.pauses.borrow()))))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let whole = answer(status_of(*self.serving.pauses.borrow()));
        let statuses = std::iter::once((String::new(), whole)).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// The state now, and then only what changes.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !request.get_ref().service.is_empty() {
            let unknown = answer(ServingStatus::ServiceUnknown);
            let states = stream::once(async move { Ok(unknown) }).chain(stream::pending());
            return Ok(Response::new(Box::pin(states)));
        }
        let mut told = None;
        let states = WatchStream::new(self.serving.pauses.subscribe()).filter_map(move |pauses| {
            let status = status_of(pauses);
            let changed = told.replace(status) != Some(status);
            std::future::ready(changed.then(|| Ok(answer(status))))
        });
        // The sender lives as long as the server: the stream has no end of its own.
        Ok(Response::new(Box::pin(states)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(health: &Health) -> ServingStatus {
        let request = Request::new(HealthCheckRequest::default());
        health.check(request).await.unwrap().into_inner().status()
    }

    /// G-016, SRV-140.
    #[tokio::test]
    async fn a_member_that_defragments_does_not_serve_if_the_gate_says_so() {
        let serving = Serving::new(true);
        let health = Health::new(serving.clone());
        let request = Request::new(HealthCheckRequest::default());
        let mut states = health.watch(request).await.unwrap().into_inner();
        let mut next = async || states.next().await.unwrap().unwrap().status();
        assert_eq!(
            (check(&health).await, next().await),
            (ServingStatus::Serving, ServingStatus::Serving)
        );
        let (first, second) = (serving.begin_defrag(), serving.begin_defrag());
        assert_eq!(check(&health).await, ServingStatus::NotServing);
        assert_eq!(next().await, ServingStatus::NotServing);
        drop(first);
        assert_eq!(check(&health).await, ServingStatus::NotServing);
        drop(second);
        assert_eq!(
            (check(&health).await, next().await),
            (ServingStatus::Serving, ServingStatus::Serving)
        );
    }

    /// G-016.
    #[tokio::test]
    async fn without_the_gate_it_always_serves() {
        let serving = Serving::new(false);
        let _pause = serving.begin_defrag();
        assert_eq!(check(&Health::new(serving)).await, ServingStatus::Serving);
    }
}
