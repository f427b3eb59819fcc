//! Which part of the proxy a call is for; every call is counted, and logged if that is wished.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use client::code_name;
use http::HeaderMap;
use http_body::Frame;
use hyper::body::Incoming;
use proto::etcdserverpb::cluster_server::ClusterServer;
use proto::etcdserverpb::kv_server::KvServer;
use proto::etcdserverpb::lease_server::LeaseServer;
use proto::etcdserverpb::watch_server::WatchServer;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tower_service::Service as _;

use crate::cluster::ClusterProxy;
use crate::forward::forward;
use crate::kv::KvProxy;
use crate::lease::LeaseProxy;
use crate::metrics::{CallName, Metrics};
use crate::upstream::Upstream;
use crate::watch::WatchProxy;

/// Everything that is called.
#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    kv: KvServer<KvProxy>,
    /// The same, to make it forget.
    answers: KvProxy,
    watch: WatchServer<WatchProxy>,
    lease: LeaseServer<LeaseProxy>,
    cluster: ClusterServer<ClusterProxy>,
    upstream: Upstream,
    metrics: Arc<Metrics>,
    logs_calls: bool,
}

/// What the calls are about.
#[derive(Debug)]
pub(crate) struct Proxies {
    pub(crate) kv: KvProxy,
    pub(crate) watch: WatchProxy,
    pub(crate) lease: LeaseProxy,
    pub(crate) cluster: ClusterProxy,
}

/// The methods of each service.
const METHODS: [(&str, &[&str]); 8] = [
    ("etcdserverpb.KV", &["Range", "RangeStream", "Put", "DeleteRange", "Txn", "Compact"]),
    ("etcdserverpb.Watch", &["Watch"]),
    (
        "etcdserverpb.Lease",
        &["LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"],
    ),
    (
        "etcdserverpb.Cluster",
        &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"],
    ),
    (
        "etcdserverpb.Maintenance",
        &["Alarm", "Status", "Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader", "Downgrade"],
    ),
    (
        "etcdserverpb.Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    ("v3lockpb.Lock", &["Lock", "Unlock"]),
    ("v3electionpb.Election", &["Campaign", "Proclaim", "Leader", "Observe", "Resign"]),
];

impl Dispatch {
    pub(crate) fn new(
        proxies: Proxies,
        upstream: Upstream,
        metrics: Arc<Metrics>,
        logs_calls: bool,
    ) -> Self {
        let Proxies { kv, watch, lease, cluster } = proxies;
        let gzip = CompressionEncoding::Gzip;
        Self {
            answers: kv.clone(),
            kv: KvServer::new(kv).accept_compressed(gzip),
            watch: WatchServer::new(watch).accept_compressed(gzip),
            lease: LeaseServer::new(lease).accept_compressed(gzip),
            cluster: ClusterServer::new(cluster).accept_compressed(gzip),
            upstream,
            metrics,
            logs_calls,
        }
    }

    /// Answers a call.
    pub(crate) async fn call(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        let name = match find(&path) {
            Ok(name) => name,
            Err(status) => return status.into_http(),
        };
        self.metrics.on_started(&name);
        let counting = Counting {
            metrics: self.metrics.clone(),
            name: Some(name),
            logs: self.logs_calls.then(Instant::now),
        };
        let response = self.answer(&path, request).await;
        counted(response, counting)
    }

    async fn answer(&self, path: &str, request: http::Request<Incoming>) -> http::Response<Body> {
        let answered = match path.split('/').nth(1) {
            Some("etcdserverpb.KV") => self.kv.clone().call(request).await,
            Some("etcdserverpb.Watch") => self.watch.clone().call(request).await,
            Some("etcdserverpb.Lease") => self.lease.clone().call(request).await,
            Some("etcdserverpb.Cluster") => self.cluster.clone().call(request).await,
            Some(_) | None => {
                let forgetting = changes_rights(path).then(|| Forgetting::now(&self.answers));
                let forwarded = forward(&self.upstream, request).await;
                drop(forgetting);
                Ok(forwarded.unwrap_or_else(Status::into_http))
            }
        };
        answered.unwrap_or_else(|never| match never {})
    }
}

/// Calls for users and roles that change none.
const HARMLESS: [&str; 6] =
    ["Authenticate", "AuthStatus", "UserGet", "UserList", "RoleGet", "RoleList"];

/// Whether somebody may see less after a call than before.
fn changes_rights(path: &str) -> bool {
    let method = path.strip_prefix("/etcdserverpb.Auth/");
    method.is_some_and(|method| !HARMLESS.contains(&method))
}

/// Makes the memory forget everything when a change of rights begins and when it is over, however
/// it ends: what is read in between may be from before it.
struct Forgetting<'a>(&'a KvProxy);

impl<'a> Forgetting<'a> {
    fn now(answers: &'a KvProxy) -> Self {
        answers.forget_all();
        Self(answers)
    }
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.0.forget_all();
    }
}

/// The call of a path.
fn find(path: &str) -> Result<CallName, Status> {
    let unknown = |text: String| Err(Status::unimplemented(text));
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/'))
    else {
        return unknown(format!("malformed method name: {path:?}"));
    };
    let Some((service, methods)) = METHODS.iter().find(|(known, _)| *known == service) else {
        return unknown(format!("unknown service {service}"));
    };
    match methods.iter().find(|known| **known == method) {
        Some(method) => Ok(CallName::new(service, method)),
        None => unknown(format!("unknown method {method} for service {service}")),
    }
}

/// Notes how a call ends.
struct Counting {
    metrics: Arc<Metrics>,
    name: Option<CallName>,
    /// When it began, if that is to be logged.
    logs: Option<Instant>,
}

impl Counting {
    fn on_end(&mut self, code: Code) {
        let Some(name) = self.name.take() else { return };
        let code = code_name(code);
        self.metrics.on_handled(name, code);
        if let Some(began) = self.logs {
            tracing::info!(
                "grpc.service" = name.service,
                "grpc.method" = name.method,
                "grpc.code" = code,
                "grpc.time_ms" = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                "finished call"
            );
        }
    }

    fn on_trailers(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.on_end(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // The client went away before.
        self.on_end(Code::Cancelled);
    }
}

fn counted(response: http::Response<Body>, mut counting: Counting) -> http::Response<Body> {
    counting.on_trailers(response.headers());
    response.map(|body| Body::new(Counted { body, counting }))
}

pin_project_lite::pin_project! {
    struct Counted {
        #[pin]
        body: Body,
        counting: Counting,
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.counting.on_trailers(trailers);
                }
            }
            Some(Err(status)) => this.counting.on_end(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G-004: what nobody has ever heard of.
    #[test]
    fn unknown_calls_are_named() {
        for (path, text) in [
            ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
            ("/a.B/C", "unknown service a.B"),
            ("/nothing", "malformed method name: \"/nothing\""),
        ] {
            assert_eq!(find(path).unwrap_err().message(), text);
        }
        assert!(find("/etcdserverpb.Auth/UserAdd").is_ok());
    }

    /// Reliability 6.1: after these, answers of before are not for everybody.
    #[test]
    fn changes_of_rights_are_known() {
        for (path, is_change) in [
            ("/etcdserverpb.Auth/AuthEnable", true),
            ("/etcdserverpb.Auth/UserRevokeRole", true),
            ("/etcdserverpb.Auth/RoleRevokePermission", true),
            ("/etcdserverpb.Auth/Authenticate", false),
            ("/etcdserverpb.Auth/RoleList", false),
            ("/v3lockpb.Lock/Lock", false),
        ] {
            assert_eq!(changes_rights(path), is_change, "{path}");
        }
        let (_, methods) = METHODS.iter().find(|(name, _)| *name == "etcdserverpb.Auth").unwrap();
        assert!(HARMLESS.iter().all(|harmless| methods.contains(harmless)));
    }
}
