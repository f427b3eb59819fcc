//! `/v2/stats`: what this member counted (features 1.6).
//!
//! Source: etcd v3.4.23 etcdserver/api/v2stats, v2http/client.go.

use std::time::SystemTime;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
    send_append_request_cnt: u64,
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
        recv_append_request_cnt: 0,
        send_append_request_cnt: 0,
    };
    let body = serde_json::to_string(&own).expect("strings and numbers have a JSON form");
    with_type(StatusCode::OK, JSON, body)
}

fn text(moment: SystemTime) -> String {
    OffsetDateTime::from(moment).format(&Rfc3339).expect("a date of four digits has this form")
}

/// V2-131, V2-132.
pub(super) fn leader(handle: &Handle, method: &Method) -> Response {
    if let Some(refused) = refuse_method(method, "GET") {
        return refused;
    }
    if !handle.leads() {
        return message(StatusCode::FORBIDDEN, "not current leader");
    }
    let body = format!("{{\"leader\":\"{}\",\"followers\":{{}}}}", handle.member_id());
    with_type(StatusCode::OK, JSON, body)
}
