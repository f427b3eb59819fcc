//! `PUT /config/local/log` (HTTP-20): another level for the log, at run time, as etcd had it up to
//! 3.4.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::{SetLogLevel, with_type};

/// Bytes of a request.
const BODY_BYTES_MAX: usize = 4 << 10;

/// How long a request's body may take (G24).
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Wanted {
    #[serde(rename = "Level", alias = "level", default)]
    level: String,
}

pub(super) async fn answer(set: &SetLogLevel, body: Incoming) -> Response {
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    let body = tokio::time::timeout(BODY_TIME_MAX, body).await;
    let Ok(Ok(body)) = body else { return refused("Invalid json body") };
    respond(set, &body.to_bytes())
}

fn respond(set: &SetLogLevel, body: &[u8]) -> Response {
    let Ok(Wanted { level }) = serde_json::from_slice(body) else {
        return refused("Invalid json body");
    };
    match set(&level) {
        Ok(()) => {
            tracing::info!(level, "changed the level of the log");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(reason) => refused(&reason),
    }
}

fn refused(message: &str) -> Response {
    with_type(
        StatusCode::BAD_REQUEST,
        "application/json",
        json!({ "message": message }).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_level_is_set_or_the_request_refused() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let set: SetLogLevel = {
            let seen = seen.clone();
            Arc::new(move |level| {
                seen.lock().push(level.to_owned());
                if level == "zz" { Err("Invalid log level zz".to_owned()) } else { Ok(()) }
            })
        };
        for (body, status, message) in [
            (r#"{"Level":"DEBUG"}"#, 204, ""),
            (r#"{"Level":"zz"}"#, 400, r#"{"message":"Invalid log level zz"}"#),
            ("{", 400, r#"{"message":"Invalid json body"}"#),
        ] {
            let response = respond(&set, body.as_bytes());
            assert_eq!(response.status(), status, "{body}");
            let answer = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(answer, message, "{body}");
        }
        assert_eq!(*seen.lock(), ["DEBUG", "zz"]);
    }
}
