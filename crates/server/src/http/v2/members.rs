//! `/v2/members` and `/v2/machines`: who is in the cluster, and changing that (features 1.6).
//!
//! Source: etcd v3.4.23 etcdserver/api/v2http/client.go, httptypes.

use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use base::MemberId;
use hyper::body::Incoming;
use proto::etcdserverpb as pb;
use serde::Serialize;
use serde_json::Value;
use state::Refusal;

use super::accounts::Accounts;
use super::{JSON, go_json, message, of_cluster, read, refuse_method, unauthorized};
use crate::config::MemberUrl;
use crate::handle::{Handle, ProposeError};
use crate::http::{text, with_type};
use crate::peers::membership;

/// A member as this API shows it.
#[derive(Debug, Serialize)]
struct Member {
    id: String,
    name: String,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Members {
    members: Vec<Member>,
}

impl Member {
    fn of(member: pb::Member) -> Self {
        Self {
            id: MemberId(member.id).to_string(),
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
        }
    }
}

/// V2-136: every client URL in order.
pub(super) fn machines(handle: &Handle, method: &Method) -> Response {
    if let Some(refused) = refuse_method(method, "GET,HEAD") {
        return refused;
    }
    let members = handle.reads().members();
    let mut urls: Vec<String> = members.into_iter().flat_map(|it| it.client_ur_ls).collect();
    urls.sort_unstable();
    with_type(StatusCode::OK, "text/plain; charset=utf-8", urls.join(", "))
}

/// Answers a request for what is below `/v2/members/`.
pub(super) async fn answer(handle: &Handle, head: &Parts, rest: &str, body: Incoming) -> Response {
    if let Some(refused) = refuse_method(&head.method, "GET,POST,DELETE,PUT") {
        return refused;
    }
    if head.method != Method::GET {
        match Accounts::of(handle).is_root(head).await {
            Ok(true) => {}
            Ok(false) => return unauthorized(),
            Err(error) => return super::failed(&error),
        }
    }
    let answered = match head.method.as_str() {
        "POST" => add(handle, head, body).await,
        "DELETE" => remove(handle, rest).await,
        "PUT" => update(handle, head, rest, body).await,
        _ => Ok(show(handle, rest)),
    };
    of_cluster(handle, answered.unwrap_or_else(|refused| refused))
}

/// V2-137 to V2-139.
fn show(handle: &Handle, rest: &str) -> Response {
    let members = handle.reads().members();
    match rest {
        "" => {
            let members = members.into_iter().map(Member::of).collect();
            json(StatusCode::OK, &Members { members })
        }
        "leader" => {
            let leader = handle.status().leader;
            match members.into_iter().find(|member| member.id == leader.0) {
                Some(member) => json(StatusCode::OK, &Member::of(member)),
                None => message(StatusCode::SERVICE_UNAVAILABLE, "During election"),
            }
        }
        _ => message(StatusCode::NOT_FOUND, "Not found"),
    }
}

/// With a newline at the end, as Go's encoder for streams.
fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let text = serde_json::to_string(value).expect("strings and lists have a JSON form");
    with_type(status, JSON, text + "\n")
}

/// V2-140 to V2-143.
async fn add(handle: &Handle, head: &Parts, body: Incoming) -> Result<Response, Response> {
    let urls = urls(handle, head, body).await?;
    match membership::add(handle, urls, false).await {
        Ok((member, _)) => Ok(json(StatusCode::CREATED, &Member::of(member))),
        Err(ProposeError::Refused(Refusal::MemberExists)) => {
            Err(message(StatusCode::CONFLICT, "membership: ID exists"))
        }
        Err(error) => Err(failed(&error)),
    }
}

/// V2-144.
async fn remove(handle: &Handle, rest: &str) -> Result<Response, Response> {
    let id = id(rest).ok_or_else(|| no_id(rest))?;
    match membership::remove(handle, id).await {
        Ok(_) => Ok(no_content()),
        Err(ProposeError::Refused(Refusal::MemberNotFound)) if handle.reads().is_removed(id) => {
            let text = format!("Member permanently removed: {id}");
            Err(message(StatusCode::GONE, &text))
        }
        Err(ProposeError::Refused(Refusal::MemberNotFound)) => Err(unknown(&id.to_string())),
        Err(error) => Err(failed(&error)),
    }
}

/// V2-145.
async fn update(
    handle: &Handle,
    head: &Parts,
    rest: &str,
    body: Incoming,
) -> Result<Response, Response> {
    let id = id(rest).ok_or_else(|| no_id(rest))?;
    let urls = urls(handle, head, body).await?;
    match membership::update(handle, id, urls).await {
        Ok(_) => Ok(no_content()),
        Err(ProposeError::Refused(Refusal::MemberNotFound)) if !handle.reads().is_removed(id) => {
            Err(unknown(&id.to_string()))
        }
        Err(error) => Err(failed(&error)),
    }
}

fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn unknown(id: &str) -> Response {
    message(StatusCode::NOT_FOUND, &format!("No such member: {id}"))
}

/// V2-142, V2-146.
fn failed(error: &ProposeError) -> Response {
    if *error == ProposeError::Refused(Refusal::PeerUrlExists) {
        return message(StatusCode::CONFLICT, "membership: peerURL exists");
    }
    tracing::warn!(error = %error, "failed to change a member");
    message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}

/// The id in a path, if it is one.
fn id(rest: &str) -> Option<MemberId> {
    let is_hex = rest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(rest, 16).ok()).flatten().map(MemberId)
}

/// The answer for a path without one.
fn no_id(rest: &str) -> Response {
    match rest {
        "" => text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
        rest => unknown(rest),
    }
}

/// What stands at `peerURLs` of a request; the error is Go's text.
fn peer_urls(body: &[u8]) -> Result<Vec<String>, String> {
    let value = serde_json::from_slice(body).map_err(|error| go_json::fault(body, &error))?;
    let mismatch = |value: &Value, place: &str| {
        format!("json: cannot unmarshal {} into Go {place}", go_json::kind(value))
    };
    let fields = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(fields) => fields,
        other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            let place = "value of type struct { PeerURLs []string \"json:\\\"peerURLs\\\"\" }";
            return Err(mismatch(&other, place));
        }
    };
    let mut urls = fields.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("peerURLs"));
    let urls = match urls.next_back() {
        None | Some((_, Value::Null)) => return Ok(Vec::new()),
        Some((_, Value::Array(urls))) => urls,
        Some((_, other)) => {
            return Err(mismatch(&other, "struct field .peerURLs of type []string"));
        }
    };
    let texts = urls.into_iter().map(|url| match url {
        Value::String(url) => Ok(url),
        Value::Null => Ok(String::new()),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(mismatch(&other, "struct field .peerURLs of type string"))
        }
    });
    texts.collect()
}

/// The URLs of a request, checked and sorted.
async fn urls(handle: &Handle, head: &Parts, body: Incoming) -> Result<Vec<String>, Response> {
    let kind = head.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = match kind.split_once(';') {
        Some((kind, _)) => kind.trim().to_lowercase(),
        None => kind.to_owned(),
    };
    if kind != JSON {
        let text = format!("Bad Content-Type {kind}, accept application/json");
        return Err(message(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text));
    }
    let wrong = |text: &str| message(StatusCode::BAD_REQUEST, text);
    let body = read(handle, body).await.map_err(|_| wrong("unexpected EOF"))?;
    let urls = peer_urls(&body).map_err(|text| wrong(&text))?;
    if urls.is_empty() {
        return Err(wrong("no valid URLs given"));
    }
    let parsed: Result<Vec<MemberUrl>, _> = urls.iter().map(|url| MemberUrl::parse(url)).collect();
    let mut parsed = parsed.map_err(|error| wrong(&error.to_string()))?;
    parsed.sort();
    Ok(parsed.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-143: the texts are those of etcd 3.4.23.
    #[test]
    fn bodies_are_read_as_go_does() {
        let read = |text: &str| peer_urls(text.as_bytes());
        assert_eq!(read("{\"PEERurls\":[\"a\",null]}"), Ok(vec!["a".to_owned(), String::new()]));
        for empty in ["{}", "null", "{\"peerURLs\":null}", "{\"peerURLs\":[]}"] {
            assert_eq!(read(empty), Ok(Vec::new()));
        }
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("[", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{\"a\":}", "invalid character '}' looking for beginning of value"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("{1}", "invalid character '1' looking for beginning of object key string"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            (
                "\"x\"",
                "json: cannot unmarshal string into Go value of type struct { PeerURLs []string \
                 \"json:\\\"peerURLs\\\"\" }",
            ),
            (
                "{\"peerURLs\":1}",
                "json: cannot unmarshal number into Go struct field .peerURLs of type []string",
            ),
            (
                "{\"peerURLs\":[true]}",
                "json: cannot unmarshal bool into Go struct field .peerURLs of type string",
            ),
        ] {
            assert_eq!(read(text), Err(expected.to_owned()), "{text}");
        }
    }
}
