//! The gRPC services: a call finds its method by its path, without a general router, and passes
//! one place that does for all of them what etcd's interceptors do.

mod auth;
mod auth_log;
mod budget;
mod call;
mod cluster;
mod codec;
mod election;
mod health;
mod kv;
mod large;
mod lease;
mod load;
mod lock;
mod maintenance;
mod messages;
mod methods;
mod partials;
mod range_stream;
mod reply_body;
mod request_body;
mod slow;
mod status;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb::auth_server::AuthServer;
use proto::etcdserverpb::cluster_server::ClusterServer;
use proto::etcdserverpb::lease_server::LeaseServer;
use proto::etcdserverpb::maintenance_server::MaintenanceServer;
use proto::health::health_server::HealthServer;
use proto::v3electionpb::election_server::ElectionServer;
use proto::v3lockpb::lock_server::LockServer;
use tokio::sync::watch as channel;
use tonic::codec::CompressionEncoding;
use tower_service::Service as _;

use crate::auth::Caller;
use crate::handle::Handle;
use crate::metrics::ConnectionMetrics;
use crate::recipes::Recipes;
use crate::traces::Tracer;
pub(crate) use call::Call;
use call::{Arriving, Reply};
pub(crate) use health::Serving;
pub(crate) use kv::ReplyFuture;
use kv::{Kv, KvMethod};
use load::Load;
use messages::Messages;
pub(crate) use methods::{CallKind, METHODS, Method, MethodIndex};
use partials::Counted;
pub(crate) use reply_body::ReplyBody;
use request_body::RequestBody;
pub(crate) use slow::{Remote, SlowCalls};
pub(crate) use watch::Lines as WatchLines;
use watch::Watch;

/// What a message may be longer than a request: the framing of what surrounds it (G-007).
const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;

/// Bytes one message of a client may have.
fn message_bytes_max(handle: &Handle) -> usize {
    handle.limits().request_bytes_max.saturating_add(MESSAGE_OVERHEAD_BYTES)
}

/// Who makes a call.
fn caller<T>(request: &tonic::Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or_default()
}

/// Every service of a member; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    handle: Handle,
    metrics: ConnectionMetrics,
    slow: SlowCalls,
    tracer: Option<Tracer>,
    message_bytes_max: usize,
    /// Changes while no leader has been seen for three elections.
    leader_lost: channel::Receiver<u64>,
    kv: Arc<Kv>,
    /// Of the connection.
    load: Arc<Load>,
    watch: Watch,
    lease: LeaseServer<lease::Leases>,
    cluster: ClusterServer<cluster::Cluster>,
    maintenance: MaintenanceServer<maintenance::Maintenance>,
    auth: AuthServer<auth::Auth>,
    lock: LockServer<lock::Locks>,
    election: ElectionServer<election::Elections>,
    health: HealthServer<health::Health>,
}

impl Services {
    /// Must be called within the runtime that will serve.
    pub(crate) fn new(
        handle: &Handle,
        slow: SlowCalls,
        serving: Serving,
        tracer: Option<Tracer>,
    ) -> Self {
        let max = message_bytes_max(handle);
        let (lost, leader_lost) = channel::channel(0);
        tokio::spawn(watch_leader(handle.clone(), lost));
        macro_rules! service {
            ($server:ident, $service:expr) => {
                $server::new($service)
                    .accept_compressed(CompressionEncoding::Gzip)
                    .max_decoding_message_size(max)
            };
        }
        let load = Load::new();
        let recipes = Recipes::new(handle.clone());
        let shared = Shared {
            slow,
            tracer,
            message_bytes_max: max,
            leader_lost,
            kv: Arc::new(Kv::new(handle.clone(), slow, load.clone())),
            load,
            metrics: Arc::new(handle.metrics().clone()),
            watch: Watch::new(handle.clone()),
            lease: service!(LeaseServer, lease::Leases::new(handle.clone())),
            cluster: service!(ClusterServer, cluster::Cluster::new(handle.clone())),
            auth: service!(AuthServer, auth::Auth::new(handle.clone())),
            lock: service!(LockServer, lock::Locks::new(recipes.clone())),
            election: service!(ElectionServer, election::Elections::new(recipes)),
            health: service!(HealthServer, health::Health::new(serving.clone())),
            maintenance: service!(
                MaintenanceServer,
                maintenance::Maintenance::new(handle.clone(), serving)
            ),
            handle: handle.clone(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same services, for one connection: its calls share counters of references that no other
    /// thread touches. `local` is where it arrives, if that is an address; asked only for traces.
    pub(crate) fn for_connection(&self, local: impl FnOnce() -> Option<SocketAddr>) -> Self {
        let load = self.shared.load.beside();
        let shared = Shared {
            tracer: self.shared.tracer.as_ref().map(|tracer| tracer.at(local())),
            kv: Arc::new(self.shared.kv.for_connection(load.clone())),
            load,
            metrics: Arc::new(Arc::clone(self.shared.handle.metrics())),
            ..Shared::clone(&self.shared)
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns when the connection asks for more than it may have, and takes nothing.
    pub(crate) async fn broken_off(&self) {
        self.shared.load.broken_off().await;
    }

    /// Whether the certificate of a request's connection would be its user, were it a call.
    pub(crate) fn takes_for_user<B>(&self, request: &http::Request<B>) -> bool {
        self.shared.handle.takes_for_user(&Caller::new(None, request.extensions().get()))
    }

    /// Bytes one message of a client may have.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.shared.message_bytes_max
    }

    /// Where the answers of a stream of watches go that is no stream of gRPC's.
    pub(crate) fn watch_lines(&self) -> WatchLines {
        self.shared.watch.lines()
    }

    /// Counts a body that is one message as those of calls are.
    pub(crate) fn counted<B>(&self, body: B) -> Counted<B> {
        Counted::new(body, self.shared.load.partials().clone())
    }

    /// Answers one call of the client at `remote`.
    pub(crate) fn call<B>(&self, remote: Remote, request: http::Request<B>) -> Call
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let shared = &self.shared;
        let Some(method) = MethodIndex::find(request.uri().path()) else {
            return Call::refused(None, status::unknown_method(request.uri().path()));
        };
        let arriving = Arriving {
            handle: &shared.handle,
            metrics: &shared.metrics,
            slow: shared.slow,
            leader_lost: &shared.leader_lost,
            method,
            remote,
            load: &shared.load,
            tracer: shared.tracer.as_ref(),
        };
        arriving.answer(request, |request, caller| self.dispatch(method, remote, caller, request))
    }

    fn dispatch<B>(
        &self,
        method: MethodIndex,
        remote: Remote,
        caller: Caller,
        mut request: http::Request<B>,
    ) -> Reply
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let shared = &self.shared;
        let lean = |request: http::Request<B>| {
            let (head, body) = request.into_parts();
            let (metrics, load) = (shared.metrics.clone(), shared.load.clone());
            let max = shared.message_bytes_max;
            Messages::new(&head.headers, body, metrics, load, method, max)
        };
        let path = method.method().path;
        let unary = match path {
            "/etcdserverpb.KV/Put" => KvMethod::Put,
            "/etcdserverpb.KV/Range" => KvMethod::Range,
            "/etcdserverpb.KV/Txn" => KvMethod::Txn,
            "/etcdserverpb.KV/DeleteRange" => KvMethod::DeleteRange,
            "/etcdserverpb.KV/Compact" => KvMethod::Compact,
            "/etcdserverpb.Watch/Watch" => {
                let reply = shared.watch.call(caller, lean(request));
                return Reply::Ready(Some(Box::new(reply)));
            }
            _ => {
                request.extensions_mut().insert(caller);
                return Reply::Coming(self.dispatch_to_tonic(method, request));
            }
        };
        Reply::Unary(shared.kv.call(unary, remote, caller, lean(request)))
    }

    fn dispatch_to_tonic<B>(&self, method: MethodIndex, request: http::Request<B>) -> ReplyFuture
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let shared = &self.shared;
        let request = request.map(|body| {
            let (metrics, load) = (shared.metrics.clone(), shared.load.clone());
            RequestBody::new(body, metrics, load, method, shared.message_bytes_max)
        });
        let path = method.method().path;
        match method.method().service() {
            "etcdserverpb.KV" if path == "/etcdserverpb.KV/RangeStream" => {
                shared.kv.range_stream(request)
            }
            "etcdserverpb.Lease" => Box::pin(shared.lease.clone().call(request)),
            "etcdserverpb.Cluster" => Box::pin(shared.cluster.clone().call(request)),
            "etcdserverpb.Maintenance" => Box::pin(shared.maintenance.clone().call(request)),
            "etcdserverpb.Auth" => Box::pin(shared.auth.clone().call(request)),
            "v3lockpb.Lock" => Box::pin(shared.lock.clone().call(request)),
            "v3electionpb.Election" => Box::pin(shared.election.clone().call(request)),
            "grpc.health.v1.Health" => Box::pin(shared.health.clone().call(request)),
            _ => {
                let status = status::unknown_method(path);
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

/// Elections without a leader after which streams that need one are ended (G-005).
const ELECTIONS_WITHOUT_LEADER_MAX: u32 = 3;

/// Says when no leader was seen for too long, again with every further election.
async fn watch_leader(handle: Handle, lost: channel::Sender<u64>) {
    let pause = handle.limits().election_timeout.max(Duration::from_millis(1));
    let mut without = 0;
    while !lost.is_closed() {
        tokio::time::sleep(pause).await;
        without = if handle.status().leader.is_none() { without + 1 } else { 0 };
        if ELECTIONS_WITHOUT_LEADER_MAX <= without {
            lost.send_modify(|times| *times += 1);
        }
    }
}
