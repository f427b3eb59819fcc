//! `/debug/pprof/` (HTTP-18): profiles in the form that Go's tools read.
//!
//! There are no goroutines and no stacks here; what can be told of a running server without
//! stopping it is told by thread: who uses the processor, what waits, and how much memory the
//! process has. Profiles of what does not exist are empty.
//! Source: Go's net/http/pprof (paths and parameters), github.com/google/pprof (the message).

mod profile;

use std::io::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;
use tokio::sync::Mutex;

use super::{not_found, plain_text, with_type};
use profile::Profile;

/// What the paths begin with.
pub(super) const PREFIX: &str = "/debug/pprof/";

/// What `profile` takes when nothing is said.
const PROFILE_SECONDS: u64 = 30;

/// The longest profile: whoever asks for more gets this.
const PROFILE_SECONDS_MAX: u64 = 300;

/// How often threads are looked at meanwhile.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// One at a time, as in Go: each looks at every thread ten times a second.
static PROFILING: Mutex<()> = Mutex::const_new(());

/// The profiles there are, and what they tell.
const PROFILES: [(&str, &str); 8] = [
    ("allocs", "Memory of the process, by kind."),
    ("block", "Empty: waiting is not recorded."),
    ("cmdline", "The command line, its arguments separated by NUL."),
    ("goroutine", "The threads of the process, by name."),
    ("heap", "Memory of the process, by kind."),
    ("mutex", "Empty: waiting is not recorded."),
    ("profile", "Time on the processor, by thread; ?seconds=30 says for how long."),
    ("threadcreate", "The threads of the process, by name."),
];

/// Answers a request for a path below [`PREFIX`].
pub(super) async fn answer(uri: &http::Uri) -> Response {
    let name = uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let query = uri.query().unwrap_or_default();
    match name {
        "" => index(),
        "cmdline" => plain_text(StatusCode::OK, command_line()),
        // None of the addresses in a profile need a name: they carry it.
        "symbol" => plain_text(StatusCode::OK, "num_symbols: 0\n".to_owned()),
        "profile" => match PROFILING.try_lock() {
            Ok(_profiling) => encoded("profile", &processor(seconds(query)).await),
            Err(_) => in_use(),
        },
        "goroutine" | "threadcreate" if number(query, "debug") > 0 => {
            plain_text(StatusCode::OK, Profile::threads().as_text(name))
        }
        "goroutine" | "threadcreate" => encoded(name_of(name), &Profile::threads()),
        "heap" | "allocs" if number(query, "debug") > 0 => {
            plain_text(StatusCode::OK, Profile::memory().as_text(name))
        }
        "heap" | "allocs" => encoded(name_of(name), &Profile::memory()),
        "block" | "mutex" => encoded(name_of(name), &Profile::empty("contentions", "count")),
        _ => not_found(),
    }
}

/// As `answer`, for programs that serve these paths on a port of their own: the proxy.
pub async fn profile(uri: &http::Uri) -> http::Response<Bytes> {
    let (head, body) = answer(uri).await.into_parts();
    // Everything is in memory already.
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    http::Response::from_parts(head, body)
}

/// What Go tells who asks for a second profile meanwhile.
fn in_use() -> Response {
    let text = "Could not enable CPU profiling: cpu profiling already in use\n";
    let mut response = plain_text(StatusCode::INTERNAL_SERVER_ERROR, text.to_owned());
    response.headers_mut().insert("x-go-pprof", header::HeaderValue::from_static("1"));
    response
}

fn name_of(name: &str) -> &'static str {
    PROFILES.iter().find(|(known, _)| *known == name).map_or("profile", |(known, _)| known)
}

fn index() -> Response {
    let rows = PROFILES.iter().map(|(name, meaning)| {
        format!("<tr><td><a href=\"{name}\">{name}</a></td><td>{meaning}</td></tr>\n")
    });
    let page = format!(
        "<html>\n<head><title>{PREFIX}</title></head>\n<body>\n{PREFIX}\n<table>\n{}</table>\n</body>\n</html>\n",
        rows.collect::<String>()
    );
    with_type(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn command_line() -> String {
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    arguments.collect::<Vec<_>>().join("\0")
}

/// Time on the processor while so many seconds go by.
async fn processor(seconds: u64) -> Profile {
    let before = Profile::processor_time();
    let mut pass = tokio::time::interval(SAMPLE_INTERVAL);
    let looks = seconds * 10;
    // Threads that end meanwhile are told with what they had when they were last seen.
    let mut latest = before.clone();
    for _ in 0..=looks {
        pass.tick().await;
        latest.extend(Profile::processor_time());
    }
    Profile::of_processor(&before, &latest, Duration::from_secs(seconds))
}

fn seconds(query: &str) -> u64 {
    match number(query, "seconds") {
        0 => PROFILE_SECONDS,
        seconds => seconds.min(PROFILE_SECONDS_MAX),
    }
}

/// A parameter that is a number; 0 if it is not there.
fn number(query: &str, name: &str) -> u64 {
    let found = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// A profile as Go's tools expect it: a compressed message.
fn encoded(name: &'static str, profile: &Profile) -> Response {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(&profile.message().encode_to_vec());
    let bytes = written.and_then(|()| encoder.finish()).unwrap_or_default();
    let mut response = with_type(StatusCode::OK, "application/octet-stream", Body::from(bytes));
    let disposition = format!("attachment; filename=\"{name}\"");
    if let Ok(disposition) = disposition.parse() {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}
