//! Everything on the client port that is not gRPC: health, version, metrics.

mod health;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base::version;
use hyper::body::Incoming;
use tower_service::Service as _;

use crate::grpc::ReplyFuture;
use crate::handle::Handle;

/// The plain endpoints; clones share the member.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    router: Router,
}

impl Plain {
    /// What the client port serves (features 8.1).
    pub(crate) fn for_clients(handle: Handle) -> Self {
        let router =
            health::routes().route("/version", get(version)).fallback(not_found).with_state(handle);
        Self { router }
    }

    /// What a port for metrics serves (HTTP-16).
    pub(crate) fn for_metrics(handle: Handle) -> Self {
        Self { router: health::routes().fallback(not_found).with_state(handle) }
    }

    /// What the port for other members serves to everyone (HTTP-30).
    pub(crate) fn for_peers(handle: Handle) -> Self {
        let router =
            Router::new().route("/version", get(version)).fallback(not_found).with_state(handle);
        Self { router }
    }

    /// Answers one request.
    pub(crate) fn call(&self, request: http::Request<Incoming>) -> ReplyFuture {
        let mut router = self.router.clone();
        Box::pin(async move {
            let response = router.call(request).await?;
            Ok(response.map(tonic::body::Body::new))
        })
    }
}

/// HTTP-21, in Go's words.
async fn not_found() -> Response {
    (
        StatusCode::NOT_FOUND,
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
        "404 page not found\n",
    )
        .into_response()
}

/// HTTP-01: the order of the keys is fixed.
async fn version(axum::extract::State(handle): axum::extract::State<Handle>) -> Response {
    let cluster = handle.reads().cluster_version();
    let cluster = cluster.as_deref().unwrap_or("not_decided");
    let storage = handle.reads().storage_version();
    let storage = storage.map_or_else(String::new, |storage| format!(",\"storage\":\"{storage}\""));
    let body = format!(
        "{{\"etcdserver\":\"{}\",\"etcdcluster\":\"{cluster}\"{storage}}}",
        version::COMPATIBLE
    );
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
