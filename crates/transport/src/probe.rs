//! Asks a peer every few seconds whether it lives and what time it has: for the round-trip time
//! and to warn of clocks that differ. Nothing depends on the answers.
//! Source: etcd: server/etcdserver/api/rafthttp/probing_status.go; xiang90/probing.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use url::Url;

use crate::link::{self, Link, RequestError};
use crate::peer::Target;
use crate::transport::Shared;

/// Shorter than the time after which peers close an unused connection.
const INTERVAL: Duration = Duration::from_secs(4);

/// What a probe may take.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// Clocks that differ by more are worth a word.
const DRIFT_MAX: Duration = Duration::from_secs(1);

/// The answer, under etcd's names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(rename = "OK")]
    ok: bool,
    now: String,
}

/// What this member answers to a probe.
pub(crate) fn answer() -> String {
    let now = OffsetDateTime::now_utc();
    let now = now.format(&Rfc3339).expect("today has four digits for the year");
    let health = Health { ok: true, now };
    let mut text = serde_json::to_string(&health).expect("two plain fields");
    text.push('\n');
    text
}

/// Probes until the task is aborted.
pub(crate) async fn run(shared: Arc<Shared>, target: Arc<Target>) {
    let mut kept = None;
    let mut smoothed: Option<Duration> = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let url = target.urls.pick();
        let began = Instant::now();
        let probing = probe(&shared, &mut kept, &url);
        let probed = match tokio::time::timeout(ANSWER_TIME, probing).await {
            Ok(probed) => probed,
            Err(_) => Err(RequestError::Timeout("probing")),
        };
        match probed {
            Ok(remote) => {
                let round_trip = began.elapsed();
                // One eighth of the new value, as TCP does.
                let mean = smoothed.map_or(round_trip, |mean| (mean * 7 + round_trip) / 8);
                smoothed = Some(mean);
                target.metrics.round_trip.observe(mean);
                warn_of_drift(&shared, &target, remote, round_trip);
            }
            Err(error) => {
                kept = None;
                if shared.said.may_say("unhealthy probe", target.id) {
                    tracing::warn!(
                        "round-tripper-name" = "ROUND_TRIPPER_RAFT_MESSAGE",
                        "remote-peer-id" = %target.id,
                        address = %url,
                        rtt = ?smoothed.unwrap_or_default(),
                        error = error.reason(),
                        "prober detected unhealthy status"
                    );
                }
            }
        }
    }
}

async fn probe(
    shared: &Shared,
    kept: &mut Option<(Url, Link)>,
    url: &Url,
) -> Result<OffsetDateTime, RequestError> {
    if !kept.as_ref().is_some_and(|(at, link)| at == url && link.is_open()) {
        *kept = None;
    }
    let link = match kept {
        Some((_, link)) => link,
        None => &mut kept.insert((url.clone(), Link::open(shared, url).await?)).1,
    };
    let request = link::request(shared, Method::GET, url, "/raft/probing", link::empty());
    let (head, mut body) = link.send(request).await?.into_parts();
    let text = link.text(&mut body).await?;
    if head.status != StatusCode::OK {
        return Err(RequestError::Status(head.status));
    }
    let health: Health = serde_json::from_str(&text).map_err(|_| RequestError::Unreadable)?;
    OffsetDateTime::parse(&health.now, &Rfc3339).map_err(|_| RequestError::Unreadable)
}

fn warn_of_drift(shared: &Shared, target: &Target, remote: OffsetDateTime, round_trip: Duration) {
    let here = OffsetDateTime::now_utc() - round_trip / 2;
    let drift = (remote - here).unsigned_abs();
    if DRIFT_MAX < drift && shared.said.may_say("clock drift", target.id) {
        tracing::warn!(
            "round-tripper-name" = "ROUND_TRIPPER_RAFT_MESSAGE",
            "remote-peer-id" = %target.id,
            "clock-drift" = ?drift,
            rtt = ?round_trip,
            "prober found high clock drift"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_etcd_does() {
        let text = answer();
        assert!(text.starts_with("{\"OK\":true,\"Now\":\"20"), "{text}");
        let health: Health = serde_json::from_str(&text).unwrap();
        OffsetDateTime::parse(&health.now, &Rfc3339).unwrap();
    }

    #[test]
    fn reads_the_time_of_a_go_member() {
        let text = r#"{"OK":true,"Now":"2026-11-20T14:25:01.123456789+01:00"}"#;
        let health: Health = serde_json::from_str(text).unwrap();
        OffsetDateTime::parse(&health.now, &Rfc3339).unwrap();
    }
}
