//! The gRPC services: a call finds its method by its path, without a general router.

mod cluster;
mod codec;
mod kv;
mod lease;
mod maintenance;
mod status;
mod watch;

use proto::etcdserverpb::cluster_server::ClusterServer;
use proto::etcdserverpb::lease_server::LeaseServer;
use proto::etcdserverpb::maintenance_server::MaintenanceServer;
use tonic::Status;
use tower_service::Service as _;

use crate::handle::Handle;
use kv::Kv;
pub(crate) use kv::{HttpReply, ReplyFuture};
use watch::Watch;

/// Every service of a member; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    kv: Kv,
    watch: Watch,
    lease: LeaseServer<lease::Leases>,
    cluster: ClusterServer<cluster::Cluster>,
    maintenance: MaintenanceServer<maintenance::Maintenance>,
}

impl Services {
    pub(crate) fn new(handle: &Handle) -> Self {
        Self {
            kv: Kv::new(handle.clone()),
            watch: Watch::new(handle.clone()),
            lease: LeaseServer::new(lease::Leases::new(handle.clone())),
            cluster: ClusterServer::new(cluster::Cluster::new(handle.clone())),
            maintenance: MaintenanceServer::new(maintenance::Maintenance::new(handle.clone())),
        }
    }

    /// Answers one call.
    pub(crate) fn call<B>(&mut self, request: http::Request<B>) -> ReplyFuture
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let path = request.uri().path().to_owned();
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/'))
        else {
            return unimplemented_method(&path);
        };
        match service {
            "etcdserverpb.KV" => {
                self.kv.call(method, request).unwrap_or_else(|| unimplemented_method(&path))
            }
            "etcdserverpb.Watch" => self.watch.call(request),
            "etcdserverpb.Lease" => Box::pin(self.lease.call(request)),
            "etcdserverpb.Cluster" => Box::pin(self.cluster.call(request)),
            "etcdserverpb.Maintenance" => Box::pin(self.maintenance.call(request)),
            _ => unimplemented_method(&path),
        }
    }
}

fn unimplemented_method(path: &str) -> ReplyFuture {
    let status = Status::unimplemented(format!("unknown method {path}"));
    Box::pin(async move { Ok(status.into_http()) })
}
