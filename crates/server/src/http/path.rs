//! Paths as Go's HTTP server sees them: decoded before anything else, and cleaned by a redirect.
//!
//! Source: Go's net/http (`cleanPath`, `Redirect`) and net/url; V2-003, V2-065.

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use super::with_type;

/// The path without percent signs; `None` if one has no two digits behind it. What is no UTF-8
/// stands in it as `v2store::text` says.
pub(super) fn decode(raw: &str) -> Option<String> {
    if !raw.contains('%') {
        return Some(raw.to_owned());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let raw = raw.as_bytes();
    let mut decoded = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] == b'%' {
            let (high, low) = (digit(*raw.get(at + 1)?)?, digit(*raw.get(at + 2)?)?);
            decoded.push((high << 4) | low);
            at += 3;
        } else {
            decoded.push(raw[at]);
            at += 1;
        }
    }
    Some(v2store::text::of_bytes(&decoded))
}

/// Whether a path, as it came, is decoded and cleaned already, as most are.
pub(super) fn is_clean(raw: &str) -> bool {
    let parts = raw.as_bytes().windows(2);
    !raw.contains('%') && !parts.into_iter().any(|pair| matches!(pair, b"//" | b"/."))
}

/// The path that is served instead; a slash at its end stays.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut cleaned = format!("/{}", parts.join("/"));
    if path.ends_with('/') && cleaned != "/" {
        cleaned.push('/');
    }
    cleaned
}

/// Has the path of a request decoded; the answer, if the client must ask otherwise. Go 1.26, with
/// which etcd 3.7.1 is built, has a client repeat its request as it was (307).
pub(super) fn settle<B>(request: &mut http::Request<B>) -> Option<Response> {
    let raw = request.uri().path();
    if is_clean(raw) {
        return None;
    }
    let Some(decoded) = decode(raw) else { return Some(bad_request()) };
    // GW-12: before it is cleaned.
    let decoded = match decoded.strip_prefix("/v3beta/") {
        Some(rest) => format!("/v3/{rest}"),
        None => decoded,
    };
    let (cleaned, query) = (clean(&decoded), request.uri().query());
    if cleaned != decoded {
        let status = StatusCode::TEMPORARY_REDIRECT;
        return Some(redirect(status, &cleaned, query, request.method()));
    }
    let mut parts = request.uri().clone().into_parts();
    let path = with_query(encode(&decoded), query);
    parts.path_and_query = Some(path.parse().expect("encoded above"));
    *request.uri_mut() = parts.try_into().expect("the rest is as it came");
    None
}

/// What Go's server says when it cannot read a request's first line; it hangs up then.
pub(super) fn bad_request() -> Response {
    let kind = "text/plain; charset=utf-8";
    let mut response = with_type(StatusCode::BAD_REQUEST, kind, "400 Bad Request");
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn with_query(mut path: String, query: Option<&str>) -> String {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    path
}

/// Sends a client to the cleaned path (V2-003).
pub(super) fn redirect(
    status: StatusCode,
    path: &str,
    query: Option<&str>,
    method: &Method,
) -> Response {
    let location = with_query(encode(path), query);
    let mut response = if [Method::GET, Method::HEAD].contains(method) {
        let shown = location
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&#34;")
            .replace('\'', "&#39;");
        let reason = status.canonical_reason().expect("a status with a name");
        let body = format!("<a href=\"{shown}\">{reason}</a>.\n\n");
        with_type(status, "text/html; charset=utf-8", body)
    } else {
        let mut response = Response::default();
        *response.status_mut() = status;
        response
    };
    let location = HeaderValue::from_str(&location).expect("encoded above");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// As Go's `URL.EscapedPath`.
fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for &byte in v2store::text::to_bytes(path).iter() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-003, V2-065.
    #[test]
    fn paths_are_decoded_and_cleaned_as_go_does() {
        assert_eq!(decode("/a%20b%2Fc").as_deref(), Some("/a b/c"));
        assert_eq!(decode("/a%2").as_deref(), None);
        assert_eq!(decode("/a%zz").as_deref(), None);
        assert_eq!(encode(&decode("/%ff%C3%A9").unwrap()), "/%FF%C3%A9");
        assert_ne!(decode("/%ff"), decode("/%fe"));
        for (path, expected) in
            [("/a//b", "/a/b"), ("/a/./b/", "/a/b/"), ("/a/../b", "/b"), ("/", "/"), ("//", "/")]
        {
            assert_eq!(clean(path), expected);
        }
        for path in ["/", "/v2/keys", "/v2/keys/a.b/", "/é"] {
            assert!(is_clean(path));
            assert_eq!((decode(path).as_deref(), clean(path)), (Some(path), path.to_owned()));
        }
        for path in ["/a%20b", "//", "/a//b", "/a/./b", "/a/..", "/.hidden"] {
            assert!(!is_clean(path), "{path}");
        }
        assert_eq!(encode("/a b%é"), "/a%20b%25%C3%A9");
    }
    /// GW-12: of every path, not only of v2's.
    #[test]
    fn a_request_is_for_the_decoded_path_or_sent_to_the_clean_one() {
        let settled = |path: &str| {
            let mut request = http::Request::get(path).body(()).unwrap();
            let answer = settle(&mut request);
            let status = answer.as_ref().map(|answer| answer.status().as_u16());
            let location = answer.as_ref().and_then(|answer| answer.headers().get("location"));
            let location = location.map(|location| location.to_str().unwrap().to_owned());
            (status, location.unwrap_or_else(|| request.uri().to_string()))
        };
        for (path, status, place) in [
            ("/v3/kv/range?x=%2", None, "/v3/kv/range?x=%2"),
            ("/v3/kv/r%61nge?x", None, "/v3/kv/range?x"),
            ("/v3/kv/range%2f", None, "/v3/kv/range/"),
            ("/v3/kv/%3f%20", None, "/v3/kv/%3F%20"),
            ("/.x", None, "/.x"),
            ("/v3//kv/range?x", Some(307), "/v3/kv/range?x"),
            ("/v3beta//kv/range", Some(307), "/v3/kv/range"),
            ("/v3/./kv/../kv/range", Some(307), "/v3/kv/range"),
            ("//v3/kv%2f/range", Some(307), "/v3/kv/range"),
            ("/v3/%zz", Some(400), "/v3/%zz"),
        ] {
            assert_eq!(settled(path), (status, place.to_owned()), "{path}");
        }
    }
}
