//! The Watch service: many watches of clients on few watches of members.
//!
//! A [`Topic`] is one range for one identity: whoever watches the same range with the same token
//! shares it. Watches of different tokens are not joined, so that what a member no longer shows
//! one user is not shown to it by way of another.
//!
//! Before a watch is joined with others, its caller reads nothing from the range: what a member
//! says to that is what it would say to the watch, and it tells the revision that is "now".
//!
//! Source: etcd server/proxy/grpcproxy/watch*.go.

mod group;
mod hub;
mod link;
mod queue;
mod stream;
mod topic;
mod watcher;

use std::sync::Arc;

use proto::etcdserverpb::WatchRequest;
use proto::etcdserverpb::watch_server::Watch;
use tonic::{Request, Response, Status, Streaming};

use crate::caller::Caller;
use crate::kv::Store;
use crate::metrics::Metrics;

use hub::Hub;
use queue::{Queue, Responses};
use stream::ClientStream;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct WatchProxy {
    store: Store,
    hub: Arc<Hub>,
}

impl WatchProxy {
    pub(crate) fn new(store: Store, metrics: Arc<Metrics>) -> Self {
        let hub = Hub::new(store.upstream().clone(), store.namespace().clone(), metrics);
        Self { store, hub }
    }
}

#[tonic::async_trait]
impl Watch for WatchProxy {
    type WatchStream = Responses;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(request.metadata());
        let (queue, responses) = Queue::new();
        let stream = ClientStream::new(self.store.clone(), self.hub.clone(), caller, queue);
        tokio::spawn(stream.run(request.into_inner()));
        Ok(Response::new(responses))
    }
}
