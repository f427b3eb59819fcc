//! What members ask one another over HTTP beside Raft's messages (interop 5.1, HTTP-30 to HTTP-36):
//! who is a member, leases, hashes, promotions.
//!
//! Texts and status codes are etcd's: its members tell answers apart by them. Source: etcd
//! server/etcdserver/api/etcdhttp/peer.go, corrupt.go, server/lease/leasehttp/http.go.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use base::{LeaseId, MemberId};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use mvcc::{QueryError, RevisionError};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::leasepb;
use serde::Deserialize;
use serde_json::json;
use state::Refusal;
use state::members::MemberObject;

use super::{method_not_allowed, not_found, text, with_type};
use crate::auth::Caller;
use crate::handle::{Handle, ProposeError};
use crate::peers::membership;
use crate::peers::others::CLUSTER_ID;

/// Bytes of a request.
const BODY_BYTES_MAX: usize = 64 << 10;

/// How long a request's body may take (G24).
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";
const PROMOTE: &str = "/members/promote/";

/// Answers a request of another member.
pub(super) async fn answer(handle: &Handle, request: http::Request<Incoming>) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    match path {
        "/members" | "/downgrade/enabled" if head.method != Method::GET => {
            method_not_allowed("GET")
        }
        "/members" => of_cluster(handle, members(handle)),
        "/downgrade/enabled" => of_cluster(handle, downgrade_enabled(handle).await),
        "/members/hashkv" => {
            let asked = head.headers.get(CLUSTER_ID);
            let own = handle.cluster_id().to_string();
            if head.method != Method::GET {
                return method_not_allowed("GET");
            }
            if asked.is_some_and(|asked| asked.as_bytes() != own.as_bytes()) {
                return text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch");
            }
            let answer = hash(handle, body).await;
            if answer.status() == StatusCode::OK { of_cluster(handle, answer) } else { answer }
        }
        "/leases" | "/leases/internal" => {
            if head.method != Method::POST {
                return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
            }
            let internal = path != "/leases";
            lease(handle, internal, body).await.unwrap_or_else(|refused| refused)
        }
        _ => match path.strip_prefix(PROMOTE) {
            Some(_) if head.method != Method::POST => method_not_allowed("POST"),
            Some(id) => of_cluster(handle, promote(handle, &head.headers, id).await),
            None => not_found(),
        },
    }
}

fn of_cluster(handle: &Handle, mut response: Response) -> Response {
    let cluster = HeaderValue::from_str(&handle.cluster_id().to_string());
    response.headers_mut().insert(CLUSTER_ID, cluster.expect("hexadecimal digits"));
    response
}

/// Members as they are stored, in order of id.
fn members_json(members: &[pb::Member]) -> String {
    let objects: Vec<MemberObject> = members
        .iter()
        .map(|member| MemberObject {
            id: MemberId(member.id),
            peer_urls: member.peer_ur_ls.clone(),
            is_learner: member.is_learner,
            name: member.name.clone(),
            client_urls: member.client_ur_ls.clone(),
        })
        .collect();
    let mut json = serde_json::to_string(&objects).expect("members have a JSON form");
    json.push('\n');
    json
}

/// HTTP-31.
fn members(handle: &Handle) -> Response {
    with_type(StatusCode::OK, JSON, members_json(&handle.reads().members()))
}

/// HTTP-32. The port may be open to others than members, so that the caller's token must come along,
/// as etcd's members send it since 3.7.
async fn promote(handle: &Handle, headers: &HeaderMap, id: &str) -> Response {
    let Ok(number) = id.parse::<u64>() else {
        return text(StatusCode::NOT_FOUND, &format!("member {id} not found in cluster"));
    };
    let caller = Caller::new(headers.get(AUTHORIZATION), None);
    let entered = handle.enter(&caller, &pb::MemberPromoteRequest { id: number }).await;
    let promoted = match entered {
        Ok(_) => membership::promote_here(handle, MemberId(number)).await,
        Err(refused) => Err(refused),
    };
    if let Err(error) = &promoted {
        tracing::warn!(
            "member-id" = %MemberId(number),
            error = %error,
            "failed to promote a member"
        );
    }
    match promoted {
        Ok(members) => with_type(StatusCode::OK, JSON, members_json(&members)),
        Err(ProposeError::Refused(Refusal::MemberNotFound)) => {
            text(StatusCode::NOT_FOUND, "membership: ID not found")
        }
        Err(ProposeError::Refused(Refusal::NotLearner)) => {
            text(StatusCode::PRECONDITION_FAILED, "membership: can only promote a learner member")
        }
        Err(ProposeError::LearnerNotReady) => text(
            StatusCode::PRECONDITION_FAILED,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        Err(_) => with_type(
            StatusCode::INTERNAL_SERVER_ERROR,
            JSON,
            json!({ "message": "Internal Server Error" }).to_string(),
        ),
    }
}

/// HTTP-36.
async fn downgrade_enabled(handle: &Handle) -> Response {
    if let Err(error) = handle.linearize().await {
        let reason = format!("failed linearized read: etcdserver: {error}");
        return text(StatusCode::INTERNAL_SERVER_ERROR, &reason);
    }
    let enabled = handle.reads().downgrade().enabled;
    with_type(StatusCode::OK, "text/plain", enabled.to_string())
}

async fn read(body: Incoming) -> Result<Bytes, Response> {
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIME_MAX, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(text(StatusCode::PAYLOAD_TOO_LARGE, "request body too large"))
        }
        Ok(Err(_)) | Err(_) => Err(text(StatusCode::BAD_REQUEST, "error reading body")),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HashQuestion {
    revision: i64,
}

/// HTTP-35.
async fn hash(handle: &Handle, body: Incoming) -> Response {
    let body = match read(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Ok(HashQuestion { revision }) = serde_json::from_slice(&body) else {
        return text(StatusCode::BAD_REQUEST, "error unmarshalling request");
    };
    let keys = handle.reads().keys().clone();
    let hashed = tokio::task::spawn_blocking(move || keys.hash(revision)).await;
    match hashed {
        Ok(Ok(hash)) => with_type(StatusCode::OK, JSON, hash_json(&hash)),
        Ok(Err(QueryError::Revision(RevisionError::Compacted { .. }))) => {
            text(StatusCode::BAD_REQUEST, "mvcc: required revision has been compacted")
        }
        Ok(Err(QueryError::Revision(RevisionError::Future { .. }))) => {
            text(StatusCode::BAD_REQUEST, "mvcc: required revision is a future revision")
        }
        Ok(Err(QueryError::Backend(error))) => text(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "etcdserver: server stopped"),
    }
}

/// As Go writes it: without what is zero.
fn hash_json(hash: &mvcc::Hash) -> String {
    let fields = [
        ("hash", i64::from(hash.hash)),
        ("compact_revision", hash.compact_revision),
        ("hash_revision", hash.revision),
    ];
    let mut object = serde_json::Map::new();
    object.insert("header".to_owned(), json!({ "revision": hash.current }));
    for (name, number) in fields.into_iter().filter(|(_, number)| *number != 0) {
        object.insert(name.to_owned(), number.into());
    }
    serde_json::Value::Object(object).to_string()
}

/// HTTP-34: what only the leader knows of leases.
async fn lease(handle: &Handle, internal: bool, body: Incoming) -> Result<Response, Response> {
    let body = read(body).await?;
    let malformed = |_| text(StatusCode::BAD_REQUEST, "error unmarshalling request");
    let failed = |error: ProposeError| {
        if error == ProposeError::Refused(Refusal::LeaseNotFound) {
            // As the lessor of etcd calls it, not as clients hear it.
            text(StatusCode::NOT_FOUND, "lease not found")
        } else if error == ProposeError::ApplyingTooSlow {
            let reason = "waiting for node to catch up its applied index has timed out";
            text(StatusCode::REQUEST_TIMEOUT, reason)
        } else if error == ProposeError::NotLeader {
            let status =
                if internal { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
            text(status, "not a primary lessor")
        } else {
            text(StatusCode::INTERNAL_SERVER_ERROR, &format!("etcdserver: {error}"))
        }
    };
    let reply = if internal {
        let request = leasepb::LeaseInternalRequest::decode(body).map_err(malformed)?;
        let request = request.lease_time_to_live_request.unwrap_or_default();
        base::probe::failpoint("beforeLookupWhenForwardLeaseTimeToLive");
        let response = handle.lease_time_to_live_here(request).await.map_err(failed)?;
        leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(response) }
            .encode_to_vec()
    } else {
        let request = pb::LeaseKeepAliveRequest::decode(body).map_err(malformed)?;
        handle.wait_applied().await.map_err(failed)?;
        base::probe::failpoint("beforeServeHTTPLeaseRenew");
        let ttl = handle.renew_lease_here(LeaseId(request.id)).await.map_err(failed)?;
        pb::LeaseKeepAliveResponse { header: None, id: request.id, ttl }.encode_to_vec()
    };
    Ok(with_type(StatusCode::OK, PROTOBUF, Body::from(reply)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interop 5.1, as Go's members read and write it.
    #[test]
    fn answers_are_written_as_go_writes_them() {
        let hash = mvcc::Hash { hash: 7, compact_revision: 0, revision: 10, current: 12 };
        let expected = r#"{"header":{"revision":12},"hash":7,"hash_revision":10}"#;
        assert_eq!(hash_json(&hash), expected);
        let member = pb::Member {
            id: 9,
            name: "m".to_owned(),
            peer_ur_ls: vec!["http://a:1".to_owned()],
            client_ur_ls: vec!["http://a:2".to_owned()],
            is_learner: false,
        };
        let learner = pb::Member { id: 10, is_learner: true, ..pb::Member::default() };
        assert_eq!(
            members_json(&[member, learner]),
            "[{\"id\":9,\"peerURLs\":[\"http://a:1\"],\"name\":\"m\",\
             \"clientURLs\":[\"http://a:2\"]},\
             {\"id\":10,\"peerURLs\":null,\"isLearner\":true}]\n"
        );
    }
}
