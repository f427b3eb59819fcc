//! Records in one line each, for a person.

use std::fmt::Write as _;

use proto::etcdserverpb as pb;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};

use crate::record::{Answer, Call, Operation, Outcome, WatchRecord};

/// Values are cut behind as many bytes.
const VALUE_LEN_MAX: usize = 40;

/// Pairs and events behind as many are only counted.
const ITEMS_MAX: usize = 12;

pub(crate) fn operation(operation: &Operation) -> String {
    let times =
        format!("{}..{}", milliseconds(operation.invoked), milliseconds(operation.returned));
    let outcome = match &operation.outcome {
        Outcome::Answered(answer) => {
            format!("revision {}: {}", answer.revision(), self::answer(answer))
        }
        Outcome::Refused(text) => format!("refused: {text}"),
        Outcome::Unknown(text) => format!("unknown: {text}"),
    };
    let (client, member) = (operation.client, operation.member);
    format!("{times} client {client} member {member}: {} -> {outcome}", call(&operation.call))
}

pub(crate) fn watch(watch: &WatchRecord) -> String {
    let request = &watch.request;
    let mut text = format!(
        "{} client {} member {}: {} from revision {}, {} responses",
        milliseconds(watch.opened),
        watch.client,
        watch.member,
        range_text(&request.key, &request.range_end),
        request.start_revision,
        watch.observations.len(),
    );
    let events: usize = watch.observations.iter().map(|seen| seen.response.events.len()).sum();
    write!(text, ", {events} events").expect("a string takes everything");
    text
}

/// Milliseconds with three digits.
fn milliseconds(nanoseconds: u64) -> String {
    format!("{}.{:03}ms", nanoseconds / 1_000_000, nanoseconds / 1000 % 1000)
}

fn bytes_text(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(VALUE_LEN_MAX)];
    let more = if cut.len() < bytes.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_ascii())
}

fn range_text(key: &[u8], end: &[u8]) -> String {
    match end {
        [] => bytes_text(key),
        b"\0" => format!("[{}, end)", bytes_text(key)),
        _ => format!("[{}, {})", bytes_text(key), bytes_text(end)),
    }
}

/// A request.
pub(crate) fn call(call: &Call) -> String {
    match call {
        Call::Range(request) => range(request),
        Call::Put(request) => put(request),
        Call::Delete(request) => {
            format!("delete {}", range_text(&request.key, &request.range_end))
        }
        Call::Txn(request) => txn(request),
        Call::Compact(request) => format!("compact {}", request.revision),
        Call::Grant(request) => format!("grant lease {} for {} s", request.id, request.ttl),
        Call::Revoke(request) => format!("revoke lease {}", request.id),
        Call::KeepAlive(request) => format!("keep lease {} alive", request.id),
        Call::TimeToLive(request) => format!("time of lease {}", request.id),
    }
}

fn range(request: &pb::RangeRequest) -> String {
    let mut text = format!("get {}", range_text(&request.key, &request.range_end));
    if request.serializable {
        text.push_str(" serializable");
    }
    if request.revision > 0 {
        write!(text, " at revision {}", request.revision).expect("a string takes everything");
    }
    text
}

fn put(request: &pb::PutRequest) -> String {
    let lease =
        if request.lease == 0 { String::new() } else { format!(" lease {}", request.lease) };
    format!("put {}={}{lease}", bytes_text(&request.key), bytes_text(&request.value))
}

fn txn(request: &pb::TxnRequest) -> String {
    let compares: Vec<String> = request
        .compare
        .iter()
        .map(|compare| {
            let key = range_text(&compare.key, &compare.range_end);
            format!("{key} {:?} {:?}", compare.result(), compare.target_union)
        })
        .collect();
    let branch = |operations: &[pb::RequestOp]| {
        let texts: Vec<String> = operations
            .iter()
            .filter_map(|operation| operation.request.as_ref())
            .map(|request| match request {
                pb::request_op::Request::RequestRange(request) => range(request),
                pb::request_op::Request::RequestPut(request) => put(request),
                pb::request_op::Request::RequestDeleteRange(request) => {
                    format!("delete {}", range_text(&request.key, &request.range_end))
                }
                pb::request_op::Request::RequestTxn(request) => txn(request),
            })
            .collect();
        texts.join(", ")
    };
    let (success, failure) = (branch(&request.success), branch(&request.failure));
    format!("if ({}) {{{success}}} else {{{failure}}}", compares.join(", "))
}

fn pair(pair: &KeyValue) -> String {
    let lease = if pair.lease == 0 { String::new() } else { format!(" lease {}", pair.lease) };
    format!(
        "{}={} (created {}, changed {}, version {}{lease})",
        bytes_text(&pair.key),
        bytes_text(&pair.value),
        pair.create_revision,
        pair.mod_revision,
        pair.version
    )
}

fn listed<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    let shown: Vec<String> = items.iter().take(ITEMS_MAX).map(text).collect();
    let rest = items.len() - shown.len();
    let rest = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    format!("[{}]{rest}", shown.join(", "))
}

/// An answer, without its header.
pub(crate) fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Range(response) => {
            let more = if response.more { ", more" } else { "" };
            format!("{} of {}{more}", listed(&response.kvs, pair), response.count)
        }
        Answer::Put(response) => match &response.prev_kv {
            Some(before) => format!("ok, before {}", pair(before)),
            None => "ok".to_owned(),
        },
        Answer::Delete(response) => {
            format!("deleted {} {}", response.deleted, listed(&response.prev_kvs, pair))
        }
        Answer::Txn(response) => txn_answer(response),
        Answer::Compact(_) | Answer::Revoke(_) => "ok".to_owned(),
        Answer::Grant(response) => format!("lease {} for {} s", response.id, response.ttl),
        Answer::KeepAlive(response) => format!("{} s", response.ttl),
        Answer::TimeToLive(response) => format!("{} s", response.ttl),
    }
}

fn txn_answer(response: &pb::TxnResponse) -> String {
    let inner = listed(&response.responses, |inner| match &inner.response {
        Some(pb::response_op::Response::ResponseRange(range)) => {
            answer(&Answer::Range(range.clone()))
        }
        Some(pb::response_op::Response::ResponsePut(put)) => answer(&Answer::Put(put.clone())),
        Some(pb::response_op::Response::ResponseDeleteRange(delete)) => {
            answer(&Answer::Delete(delete.clone()))
        }
        Some(pb::response_op::Response::ResponseTxn(txn)) => txn_answer(txn),
        None => "nothing".to_owned(),
    });
    format!("{} {inner}", if response.succeeded { "succeeded" } else { "failed" })
}

/// Some events.
pub(crate) fn events(events: &[Event]) -> String {
    listed(events, event)
}

/// An event.
pub(crate) fn event(event: &Event) -> String {
    let shown = event.kv.as_ref();
    match event.r#type() {
        EventType::Put => format!("put {}", shown.map_or_else(String::new, pair)),
        EventType::Delete => {
            let (key, revision) = shown
                .map_or_else(Default::default, |pair| (bytes_text(&pair.key), pair.mod_revision));
            format!("delete {key} at {revision}")
        }
    }
}
