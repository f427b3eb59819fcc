//! `/v2/stats`: what this member counted (features 1.6).
//!
//! Source: etcd v3.4.23 etcdserver/api/v2stats, v2http/client.go.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use transport::LatencySample;

use super::{JSON, V2, message, refuse_method};
use crate::config::GoDuration;
use crate::handle::Handle;
use crate::http::with_type;

/// V2-133.
pub(super) fn store(handle: &Handle, method: &Method) -> Response {
    if let Some(refused) = refuse_method(method, "GET") {
        return refused;
    }
    with_type(StatusCode::OK, JSON, handle.reads().v2().stats_json())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Own {
    name: String,
    id: String,
    state: &'static str,
    start_time: String,
    leader_info: LeaderInfo,
    recv_append_request_cnt: u64,
    #[serde(skip_serializing_if = "Number::is_zero")]
    recv_pkg_rate: Number,
    #[serde(skip_serializing_if = "Number::is_zero")]
    recv_bandwidth_rate: Number,
    send_append_request_cnt: u64,
    #[serde(skip_serializing_if = "Number::is_zero")]
    send_pkg_rate: Number,
    #[serde(skip_serializing_if = "Number::is_zero")]
    send_bandwidth_rate: Number,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaderInfo {
    leader: String,
    uptime: String,
    start_time: String,
}

/// V2-130.
pub(super) fn own(v2: &V2, method: &Method) -> Response {
    if let Some(refused) = refuse_method(method, "GET") {
        return refused;
    }
    let handle = &v2.handle;
    let own = handle.member_id();
    let members = handle.reads().members();
    let name = members.into_iter().find(|member| member.id == own.0).map(|member| member.name);
    let leader = handle.status().leader;
    let uptime = handle.leader_uptime().unwrap_or_default();
    let state = match leader {
        leader if leader.is_none() => "StateCandidate",
        leader if leader == own => "StateLeader",
        _ => "StateFollower",
    };
    let appends = &handle.peers().metrics().appends;
    let (received, sent) = (appends.received.sample(), appends.sent.sample());
    let own = Own {
        name: name.unwrap_or_default(),
        id: own.to_string(),
        state,
        start_time: text(v2.started),
        leader_info: LeaderInfo {
            leader: if leader.is_none() { String::new() } else { leader.to_string() },
            uptime: GoDuration::from(uptime).to_string(),
            start_time: text(SystemTime::now() - uptime),
        },
        recv_append_request_cnt: received.count,
        recv_pkg_rate: Number(received.messages_per_second),
        recv_bandwidth_rate: Number(received.bytes_per_second),
        send_append_request_cnt: sent.count,
        send_pkg_rate: Number(sent.messages_per_second),
        send_bandwidth_rate: Number(sent.bytes_per_second),
    };
    let body = serde_json::to_string(&own).expect("strings and numbers have a JSON form");
    with_type(StatusCode::OK, JSON, body)
}

fn text(moment: SystemTime) -> String {
    OffsetDateTime::from(moment).format(&Rfc3339).expect("a date of four digits has this form")
}

/// A number as Go writes it: no exponent where a person would write none.
#[derive(Clone, Copy, Debug)]
struct Number(f64);

impl Number {
    fn is_zero(&self) -> bool {
        self.0 == 0.0
    }

    fn text(self) -> String {
        match self.0.abs() {
            size if size != 0.0 && !(1e-6..1e21).contains(&size) => format!("{:e}", self.0),
            _ => self.0.to_string(),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = serde_json::value::RawValue::from_string(self.text());
        raw.map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[derive(Debug, Serialize)]
struct Leader {
    leader: String,
    followers: BTreeMap<String, Follower>,
}

#[derive(Debug, Serialize)]
struct Follower {
    latency: Latency,
    counts: Counts,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Latency {
    current: Number,
    average: Number,
    standard_deviation: Number,
    minimum: Number,
    maximum: Number,
}

#[derive(Debug, Serialize)]
struct Counts {
    fail: u64,
    success: u64,
}

impl Follower {
    fn of(sample: &LatencySample) -> Self {
        Self {
            latency: Latency {
                current: Number(sample.current_millis),
                average: Number(sample.average_millis),
                standard_deviation: Number(sample.standard_deviation_millis()),
                minimum: Number(sample.min_millis),
                maximum: Number(sample.max_millis),
            },
            counts: Counts { fail: sample.failures, success: sample.successes },
        }
    }
}

/// V2-131, V2-132.
pub(super) fn leader(handle: &Handle, method: &Method) -> Response {
    if let Some(refused) = refuse_method(method, "GET") {
        return refused;
    }
    if !handle.leads() {
        return message(StatusCode::FORBIDDEN, "not current leader");
    }
    let latencies = handle.peers().latencies();
    let followers = latencies.iter().map(|(id, sample)| (id.to_string(), Follower::of(sample)));
    let leader = handle.member_id().to_string();
    let body = serde_json::to_string(&Leader { leader, followers: followers.collect() });
    with_type(StatusCode::OK, JSON, body.expect("strings and numbers have a JSON form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-131: before anything was sent, the least time is what Go makes of 2^63.
    #[test]
    fn numbers_are_written_as_go_does() {
        for (number, expected) in [
            (0.0, "0"),
            (5.0, "5"),
            (0.001_714, "0.001714"),
            (9_223_372_036_854_775_808.0, "9223372036854776000"),
            (0.000_000_12, "1.2e-7"),
        ] {
            assert_eq!(Number(number).text(), expected);
        }
        let fresh = serde_json::to_string(&Follower::of(&LatencySample::default())).unwrap();
        assert_eq!(
            fresh,
            "{\"latency\":{\"current\":0,\"average\":0,\"standardDeviation\":0,\
             \"minimum\":9223372036854776000,\"maximum\":0},\"counts\":{\"fail\":0,\
             \"success\":0}}"
        );
    }
}
