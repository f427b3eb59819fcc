//! `/health`, `/livez`, `/readyz`: what load balancers and supervisors ask.
//!
//! `/health` is the old question with a JSON answer; the other two are lists of named checks
//! (etcd: server/etcdserver/api/etcdhttp/health.go). Checks are made in a fixed order; etcd's is
//! random.

use std::fmt::Write as _;
use std::time::Instant;

use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use proto::etcdserverpb::{self as pb, AlarmType};
use state::auth::gate::Authorized;

use super::{plain_text, text, with_type};
use crate::handle::Handle;
use crate::metrics::Operation;

/// A named check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    /// Makes the check; the error is the reason that is shown.
    async fn run(self, handle: &Handle) -> Result<(), String> {
        match self {
            Self::DataCorruption => {
                let alarms = handle.reads().alarms();
                let corrupt = alarms.iter().any(|alarm| alarm.alarm() == AlarmType::Corrupt);
                if corrupt { Err("alarm activated: CORRUPT".to_owned()) } else { Ok(()) }
            }
            Self::SerializableRead => read(handle, true).await,
            Self::LinearizableRead => read(handle, false).await,
            Self::NonLearner if handle.status().learner => {
                Err("not supported for learner".to_owned())
            }
            Self::NonLearner => Ok(()),
        }
    }
}

/// What each list checks.
const LISTS: [(&str, &[Check]); 2] = [
    ("livez", &[Check::SerializableRead]),
    (
        "readyz",
        &[
            Check::DataCorruption,
            Check::SerializableRead,
            Check::LinearizableRead,
            Check::NonLearner,
        ],
    ),
];

/// The list of a path, and the one check that it names, if it does.
fn list(path: &str) -> Option<(&'static str, &'static [Check])> {
    let path = path.strip_prefix('/')?;
    let (name, check) = path.split_once('/').map_or((path, None), |(n, check)| (n, Some(check)));
    let (name, checks) = LISTS.into_iter().find(|(list, _)| *list == name)?;
    let Some(check) = check else { return Some((name, checks)) };
    let at = checks.iter().position(|known| known.name() == check)?;
    Some((name, &checks[at..=at]))
}

/// Whether a path asks for health (HTTP-10).
pub(super) fn is_path(path: &str) -> bool {
    path == "/health" || list(path).is_some()
}

/// Answers a path of which [`is_path`] is true.
pub(super) async fn answer(handle: &Handle, uri: &Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let excluded = pairs.iter().filter(|(name, value)| name == "exclude" && !value.is_empty());
    let excluded: Vec<&str> = excluded.map(|(_, value)| value.as_ref()).collect();
    match list(uri.path()) {
        Some((name, checks)) => {
            let is_list = uri.path().len() == name.len() + 1;
            let verbose = pairs.iter().any(|(name, _)| name == "verbose");
            let excluded = if is_list { excluded } else { Vec::new() };
            run_checks(handle, uri.path(), name, checks, &excluded, verbose).await
        }
        None => {
            let serializable = pairs
                .iter()
                .find(|(name, _)| name == "serializable")
                .is_some_and(|(_, v)| v == "true");
            health(handle, &excluded, serializable).await
        }
    }
}

/// HTTP-07 to HTTP-12.
async fn run_checks(
    handle: &Handle,
    path: &str,
    list: &str,
    checks: &[Check],
    excluded: &[&str],
    verbose: bool,
) -> Response {
    let is_known = |name: &&str| checks.iter().any(|check| check.name() == *name);
    let unknown: Vec<_> = excluded.iter().filter(|name| !is_known(name)).collect();
    if !unknown.is_empty() {
        tracing::warn!("missing-health-checks" = ?unknown, "some health checks cannot be excluded");
    }
    let (mut report, mut all_good) = (String::new(), true);
    for check in checks.iter().filter(|check| !excluded.contains(&check.name())) {
        let result = check.run(handle).await;
        let name = check.name();
        handle.metrics().server.health.on_check(list, name, result.is_ok());
        let written = match &result {
            Ok(()) => writeln!(report, "[+]{name} ok"),
            Err(reason) => writeln!(report, "[-]{name} failed: {reason}"),
        };
        written.expect("writing to a string does not fail");
        all_good &= result.is_ok();
    }
    if !all_good {
        tracing::error!(path, reason = report, "status-code" = 503, "Health check error");
        return text(StatusCode::SERVICE_UNAVAILABLE, &report);
    }
    let report = if verbose { report } else { String::new() };
    plain_text(StatusCode::OK, report + "ok\n")
}

/// HTTP-02 to HTTP-05.
async fn health(handle: &Handle, excluded: &[&str], serializable: bool) -> Response {
    let wrong = wrong(handle, excluded, serializable).await;
    handle.metrics().server.health.on_health(wrong.is_none());
    let Some(reason) = wrong else {
        let body = "{\"health\":\"true\",\"reason\":\"\"}";
        return with_type(StatusCode::OK, "text/plain; charset=utf-8", body);
    };
    let reason = serde_json::Value::String(reason);
    let body = format!("{{\"health\":\"false\",\"reason\":{reason}}}");
    tracing::warn!(output = body, "status-code" = 503, "/health error");
    text(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// What is wrong with the member, if anything.
async fn wrong(handle: &Handle, excluded: &[&str], serializable: bool) -> Option<String> {
    for alarm in handle.reads().alarms() {
        let name = match alarm.alarm() {
            AlarmType::Nospace => "NOSPACE",
            AlarmType::Corrupt => "CORRUPT",
            AlarmType::None => "UNKNOWN",
        };
        if !excluded.contains(&name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if !serializable && handle.status().leader.is_none() {
        return Some("RAFT NO LEADER".to_owned());
    }
    read(handle, serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

/// Reads one key, whatever is there; it counts as a request.
async fn read(handle: &Handle, serializable: bool) -> Result<(), String> {
    let began = Instant::now();
    let read = read_key(handle, serializable).await;
    handle.metrics().server.on_answered(Operation::Range, read.is_ok(), began.elapsed());
    read
}

async fn read_key(handle: &Handle, serializable: bool) -> Result<(), String> {
    if !serializable {
        handle.linearize().await.map_err(|error| format!("etcdserver: {error}"))?;
    }
    let probe = pb::RangeRequest {
        key: Bytes::from_static(b"health"),
        serializable: true,
        keys_only: true,
        limit: 1,
        ..Default::default()
    };
    let began = Instant::now();
    let found = handle.reads().range(Authorized::own(&probe));
    handle.metrics().store.on_range();
    handle.metrics().server.on_range(found.is_ok(), began.elapsed());
    found.map(|_| ()).map_err(|error| format!("etcdserver: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HTTP-10.
    #[test]
    fn a_path_names_a_list_or_one_check_of_it() {
        for (path, expected) in [
            ("/livez", Some(1)),
            ("/readyz", Some(4)),
            ("/livez/serializable_read", Some(1)),
            ("/readyz/linearizable_read", Some(1)),
            ("/readyz/non_learner", Some(1)),
            ("/livez/linearizable_read", None),
            ("/readyz/", None),
            ("/readyz/nope", None),
            ("/readyz/non_learner/", None),
            ("/readyzz", None),
            ("/health", None),
            ("readyz", None),
        ] {
            assert_eq!(list(path).map(|(_, checks)| checks.len()), expected, "{path}");
        }
        assert!(is_path("/health"));
        assert!(!is_path("/health/"));
    }
}
