//! `/debug/vars` (HTTP-17): what Go's expvar page shows, as far as it means anything here.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::with_type;
use crate::handle::Handle;
use crate::metrics::{open_files_max, resident_bytes};

pub(super) fn answer(handle: &Handle) -> Response {
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let vars = [
        ("cmdline", arguments.collect()),
        ("file_descriptor_limit", json!(open_files_max().unwrap_or(u64::MAX))),
        ("memstats", memory()),
        ("raft.status", consensus(handle)),
    ];
    let lines: Vec<String> =
        vars.into_iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    let body = format!("{{\n{}\n}}\n", lines.join(",\n"));
    with_type(StatusCode::OK, "application/json; charset=utf-8", body)
}

/// There is no collected heap: only what the operating system knows.
fn memory() -> Value {
    let bytes = resident_bytes().unwrap_or(0);
    json!({ "Alloc": bytes, "Sys": bytes, "HeapAlloc": bytes, "HeapSys": bytes, "NumGC": 0 })
}

fn consensus(handle: &Handle) -> Value {
    let status = handle.status();
    let own = handle.member_id().to_string();
    let leader = status.leader.to_string();
    let leads = handle.leads();
    let mut progress = serde_json::Map::new();
    if leads {
        let entry = json!({
            "match": status.committed,
            "next": status.committed + 1,
            "state": "StateReplicate",
        });
        progress.insert(own.clone(), entry);
    }
    let part = match (leads, status.leader.is_none()) {
        (true, _) => "StateLeader",
        (false, false) => "StateFollower",
        (false, true) => "StateCandidate",
    };
    json!({
        "id": own,
        "term": status.term,
        "vote": leader,
        "commit": status.committed,
        "lead": leader,
        "raftState": part,
        "applied": status.applied,
        "progress": progress,
        "leadtransferee": "0",
    })
}
