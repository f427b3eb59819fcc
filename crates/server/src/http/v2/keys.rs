//! `/v2/keys`: reading, changing and watching keys (features 1.1 to 1.5).
//!
//! Source: etcd v3.4.23 etcdserver/api/v2http/client.go, etcdserver/v2_server.go.

use std::time::Instant;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper::body::Incoming;
use proto::v2pb;
use v2store::{Code, Error, Event, Watch};

use super::accounts::Accounts;
use super::form::{self, Form};
use super::{ETCD_INDEX, JSON, V2, now, of_cluster, put_raft, read, refuse_method, watch};
use crate::handle::{Handle, ProposeError};
use crate::http::with_type;
use crate::metrics::V2Method;

/// Every directory of a path has a row with its whole path, so a short request could fill the disk
/// by going deep. etcd has no such bounds.
const PATH_BYTES_MAX: usize = 32_000;
const LEVELS_MAX: usize = 256;

/// What a client asks for.
#[derive(Debug)]
struct Asked {
    /// As it goes into the log.
    request: v2pb::Request,
    path: String,
    no_value_on_success: bool,
}

/// Answers a request for `key`, which is cleaned.
pub(super) async fn answer(v2: &V2, head: &Parts, key: &str, body: Incoming) -> Response {
    let handle = &v2.handle;
    if let Some(refused) = refuse_method(&head.method, "HEAD,GET,PUT,POST,DELETE") {
        return refused;
    }
    let response = match parse(handle, head, key, body).await {
        Ok(asked) => match admit(handle, head, key, &asked).await {
            Ok(()) => count(v2, &head.method, asked).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    of_cluster(handle, response.unwrap_or_else(|error| refuse(&error)))
}

/// V2-167.
async fn admit(handle: &Handle, head: &Parts, key: &str, asked: &Asked) -> Result<(), Error> {
    let may = Accounts::of(handle).may(head, key, asked.request.recursive()).await;
    if may.map_err(|error| internal(&error))? {
        return Ok(());
    }
    Err(Error::of_request(Code::Unauthorized, "Insufficient credentials"))
}

async fn parse(handle: &Handle, head: &Parts, key: &str, body: Incoming) -> Result<Asked, Error> {
    let body = match form::has_body(&head.method) {
        true => read(handle, body).await,
        false => Ok(bytes::Bytes::new()),
    };
    let body = body.as_ref().map(|body| &body[..]).map_err(|error| *error);
    let form = Form::parse(head.uri.query().unwrap_or_default(), &head.headers, body)
        .map_err(|cause| Error::of_request(Code::InvalidForm, cause))?;
    of_form(&head.method, key, &form)
}

/// Checks parameters in the order in which etcd looks at them.
fn of_form(method: &Method, key: &str, form: &Form) -> Result<Asked, Error> {
    let number = |name| {
        let wrong = || Error::of_request(Code::IndexNotNumber, invalid(name));
        form.number(name).ok_or_else(wrong)
    };
    let flag = |name| {
        let wrong = || Error::of_request(Code::InvalidField, invalid(name));
        form.flag(name).ok_or_else(wrong)
    };
    let prev_index = number("prevIndex")?;
    let since = number("waitIndex")?;
    let recursive = flag("recursive")?;
    let sorted = flag("sorted")?;
    let wait = flag("wait")?;
    let dir = flag("dir")?;
    let quorum = flag("quorum")?;
    let stream = flag("stream")?;
    if wait && method != Method::GET {
        let cause = "\"wait\" can only be used with GET requests";
        return Err(Error::of_request(Code::InvalidField, cause));
    }
    let prev_value = form.text("prevValue");
    if form.get("prevValue") == Some("") {
        let cause = "\"prevValue\" cannot be empty";
        return Err(Error::of_request(Code::PreviousValueRequired, cause));
    }
    let no_value_on_success = flag("noValueOnSuccess")?;
    let ttl = if form.text("ttl").is_empty() {
        None
    } else {
        let wrong = || Error::of_request(Code::TtlNotNumber, invalid("ttl"));
        Some(form.number("ttl").ok_or_else(wrong)?)
    };
    let prev_exist = optional(form, "prevExist")?;
    let refresh = optional(form, "refresh")?;
    if refresh == Some(true) {
        if !form.text("value").is_empty() {
            let cause = "A value was provided on a refresh";
            return Err(Error::of_request(Code::ValueOnRefresh, cause));
        }
        if ttl.is_none() {
            return Err(Error::of_request(Code::RefreshWithoutTtl, "No TTL value set"));
        }
    }
    let now = now();
    let path = format!("{}{}", v2store::KEYS, key.trim_end_matches('/'));
    if PATH_BYTES_MAX < path.len() || LEVELS_MAX < path.matches('/').count() {
        let cause = format!("a key has at most {PATH_BYTES_MAX} bytes and {LEVELS_MAX} levels");
        return Err(Error::of_request(Code::InvalidField, cause));
    }
    let bytes = |text: &str| Some(v2store::text::to_bytes(text).into_owned().into());
    let request = v2pb::Request {
        id: None,
        method: Some(method.as_str().to_owned()),
        path: bytes(&path),
        val: bytes(form.text("value")),
        dir: Some(dir),
        prev_value: bytes(prev_value),
        prev_index: Some(prev_index),
        prev_exist,
        expiration: Some(ttl.map_or(0, |ttl| expiration(now, ttl))),
        wait: Some(wait),
        since: Some(since),
        recursive: Some(recursive),
        sorted: Some(sorted),
        quorum: Some(quorum),
        time: Some(now),
        stream: Some(stream),
        refresh,
    };
    Ok(Asked { request, path, no_value_on_success })
}

fn invalid(name: &str) -> String {
    format!("invalid value for \"{name}\"")
}

/// A flag that may be left open; etcd forgot the quotes here.
fn optional(form: &Form, name: &str) -> Result<Option<bool>, Error> {
    if form.get(name).is_none() {
        return Ok(None);
    }
    let wrong = || Error::of_request(Code::InvalidField, format!("invalid value for {name}"));
    form.flag(name).ok_or_else(wrong).map(Some)
}

/// When something ends. As in Go numbers that are too large begin again at the other end.
fn expiration(now: v2store::Nanos, ttl_seconds: u64) -> v2store::Nanos {
    now.wrapping_add(ttl_seconds.cast_signed().wrapping_mul(1_000_000_000))
}

/// V2-182.
async fn count(v2: &V2, method: &Method, asked: Asked) -> Result<Response, Error> {
    let (began, waits) = (Instant::now(), asked.request.wait());
    let method_name = V2Method::of(method, asked.request.quorum());
    let metrics = &v2.handle.metrics().v2;
    if !waits {
        metrics.on_request(method_name);
    }
    let answer = run(v2, method, asked).await;
    match &answer {
        Ok(_) if !waits => metrics.on_answered(method_name, began.elapsed()),
        Ok(_) => {}
        Err(error) => metrics.on_failed(method_name, status(error)),
    }
    answer
}

async fn run(v2: &V2, method: &Method, asked: Asked) -> Result<Response, Error> {
    let Asked { request, path, no_value_on_success } = asked;
    let handle = &v2.handle;
    if [Method::PUT, Method::POST, Method::DELETE].contains(method) {
        if let Some(over_v3) = &v2.over_v3 {
            let change = state::v2_change_of(&request).expect("these methods change keys");
            let event = over_v3.write(&change).await?;
            return Ok(show(handle, &event, no_value_on_success));
        }
        let event = handle.write_v2(request).await.map_err(|error| internal(&error))??;
        return Ok(show(handle, &event, no_value_on_success));
    }
    let reader = handle.reads().v2();
    let is_get = method == Method::GET;
    if is_get && request.quorum() {
        handle.linearize().await.map_err(|error| internal(&error))?;
    } else if is_get && request.wait() {
        let (recursive, stream) = (request.recursive(), request.stream());
        let wanted = Watch { path, recursive, stream, since: request.since() };
        if let Some(over_v3) = &v2.over_v3 {
            return over_v3.watch(wanted);
        }
        return Ok(watch::answer(handle, reader.watch(wanted)?));
    }
    let event = match &v2.over_v3 {
        Some(over_v3) => over_v3.get(&path, request.recursive())?,
        None => reader.get(&path, request.recursive(), now())?,
    };
    Ok(show(handle, &event, no_value_on_success))
}

/// V2-008 to V2-011.
fn show(handle: &Handle, event: &Event, no_value_on_success: bool) -> Response {
    let body = match no_value_on_success {
        true => event.to_json_without_value(now()),
        false => event.to_json(now()),
    };
    let status = if event.is_created() { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = with_type(status, JSON, body);
    put_indexes(handle, event.index, response.headers_mut());
    response
}

/// Where the store and the log are.
pub(super) fn put_indexes(handle: &Handle, index: u64, headers: &mut HeaderMap) {
    headers.insert(ETCD_INDEX.clone(), index.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    put_raft(handle, headers);
}

/// V2-090 to V2-121.
pub(super) fn refuse(error: &Error) -> Response {
    let mut response = with_type(status(error), JSON, error.to_json());
    response.headers_mut().insert(ETCD_INDEX.clone(), error.index.into());
    response
}

fn status(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.code.status()).expect("a table of statuses")
}

/// V2-096.
pub(super) fn internal(error: &ProposeError) -> Error {
    tracing::warn!("internal-server-error" = %error, "v2 response error");
    Error::of_request(Code::RaftInternal, format!("etcdserver: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, query: &str) -> Result<Asked, Error> {
        let form = Form::parse(query, &HeaderMap::new(), Ok(&[])).unwrap();
        of_form(&method, "/key/", &form)
    }

    fn refusal(method: Method, query: &str) -> (u16, String) {
        let error = asked(method, query).unwrap_err();
        (error.code.number(), error.cause)
    }

    /// V2-021 to V2-034, V2-103 to V2-114.
    #[test]
    fn wrong_parameters_are_named_as_etcd_names_them() {
        for (query, code, cause) in [
            ("prevIndex=x", 203, "invalid value for \"prevIndex\""),
            ("waitIndex=-1", 203, "invalid value for \"waitIndex\""),
            ("recursive=yes", 209, "invalid value for \"recursive\""),
            ("wait=true", 209, "\"wait\" can only be used with GET requests"),
            ("prevValue=", 201, "\"prevValue\" cannot be empty"),
            ("noValueOnSuccess=2", 209, "invalid value for \"noValueOnSuccess\""),
            ("ttl=-5", 202, "invalid value for \"ttl\""),
            ("prevExist=", 209, "invalid value for prevExist"),
            ("refresh=maybe", 209, "invalid value for refresh"),
            ("refresh=true&value=x&ttl=5", 211, "A value was provided on a refresh"),
            ("refresh=true", 212, "No TTL value set"),
        ] {
            assert_eq!(refusal(Method::PUT, query), (code, cause.to_owned()), "{query}");
        }
        let asked = asked(Method::PUT, "ttl=&value=v&prevExist=true").unwrap();
        assert_eq!(asked.path, "/1/key");
        assert_eq!((asked.request.expiration(), asked.request.prev_exist), (0, Some(true)));
    }

    #[test]
    fn endless_times_begin_again_as_in_go() {
        assert_eq!(expiration(7, 2), 2_000_000_007);
        assert_eq!(expiration(7, u64::MAX), 7 - 1_000_000_000);
    }
}
