//! `/health`: what load balancers and supervisors ask.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use proto::etcdserverpb::{self as pb, AlarmType};

use crate::handle::Handle;

pub(super) fn routes() -> Router<Handle> {
    Router::new().route("/health", get(health))
}

/// HTTP-02 to HTTP-05.
async fn health(State(handle): State<Handle>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let pairs: Vec<(&str, &str)> =
        query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let excluded = |name: &str| pairs.contains(&("exclude", name));
    let serializable = pairs.contains(&("serializable", "true"));
    let reason = match reason(&handle, &excluded, serializable).await {
        Ok(()) => {
            return answer(StatusCode::OK, "{\"health\":\"true\",\"reason\":\"\"}".to_owned());
        }
        Err(reason) => reason,
    };
    let reason = serde_json::Value::String(reason);
    answer(StatusCode::SERVICE_UNAVAILABLE, format!("{{\"health\":\"false\",\"reason\":{reason}}}"))
}

fn answer(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn reason(
    handle: &Handle,
    excluded: &(impl Fn(&str) -> bool + Sync),
    serializable: bool,
) -> Result<(), String> {
    for alarm in handle.reads().alarms() {
        let name = match alarm.alarm() {
            AlarmType::Nospace => "NOSPACE",
            AlarmType::Corrupt => "CORRUPT",
            AlarmType::None => "UNKNOWN",
        };
        if !excluded(name) {
            return Err(format!("ALARM {name}"));
        }
    }
    if !serializable && handle.status().leader.is_none() {
        return Err("RAFT NO LEADER".to_owned());
    }
    if !serializable {
        handle.linearize().await.map_err(|error| format!("RANGE ERROR:etcdserver: {error}"))?;
    }
    let probe = pb::RangeRequest {
        key: Bytes::from_static(b"health"),
        serializable: true,
        ..Default::default()
    };
    handle.reads().range(&probe).map_err(|error| format!("RANGE ERROR:etcdserver: {error}"))?;
    Ok(())
}
