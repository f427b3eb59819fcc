//! The log line of a request that took long (G-020), with etcd's fields; values are left out.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use prost::Message;
use proto::etcdserverpb::{self as pb, request_op};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::GoDuration;

/// The other end of a connection; a socket file has no address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote(pub(crate) Option<SocketAddr>);

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("@"),
        }
    }
}

/// Which calls are logged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowCalls {
    /// Calls that take longer.
    pub(crate) longer_than: Duration,
}

/// What a line says about a call, apart from its time.
#[derive(Debug)]
pub(crate) struct Stats {
    request_count: i64,
    request_bytes: i64,
    response_count: i64,
    response_bytes: i64,
    content: String,
}

impl SlowCalls {
    /// Logs a call that began at `began`, if it took long or everything is logged.
    pub(crate) fn note(
        self,
        path: &str,
        remote: Remote,
        began: Instant,
        stats: impl FnOnce() -> Stats,
    ) {
        let took = began.elapsed();
        let slow = self.longer_than < took;
        if !slow && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let start = OffsetDateTime::from(SystemTime::now() - took);
        let start = start.format(&Rfc3339).unwrap_or_default();
        let nanoseconds = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
        let spent = GoDuration::from_nanoseconds(nanoseconds);
        let Stats { request_count, request_bytes, response_count, response_bytes, content } =
            stats();
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    "start time" = start,
                    "time spent" = %spent,
                    "remote" = %remote,
                    "response type" = path,
                    "request count" = request_count,
                    "request size" = request_bytes,
                    "response count" = response_count,
                    "response size" = response_bytes,
                    "request content" = content,
                    "request stats"
                )
            };
        }
        if slow { line!(warn) } else { line!(debug) }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Stats {
    /// Of a call that nothing is known of.
    pub(crate) fn unknown() -> Self {
        Self {
            request_count: -1,
            request_bytes: -1,
            response_count: -1,
            response_bytes: -1,
            content: String::new(),
        }
    }

    pub(crate) fn of_range(request: &pb::RangeRequest, answer: Option<(i64, usize)>) -> Self {
        let (response_count, response_bytes) = answer.unwrap_or_default();
        Self {
            request_count: 0,
            request_bytes: signed(request.encoded_len()),
            response_count,
            response_bytes: signed(response_bytes),
            content: text(|out| write_range(out, request)),
        }
    }

    pub(crate) fn of_put(request: &pb::PutRequest, answer: Option<&pb::PutResponse>) -> Self {
        Self {
            request_count: 1,
            request_bytes: signed(request.encoded_len()),
            response_count: 0,
            response_bytes: answer.map_or(0, |answer| signed(answer.encoded_len())),
            content: text(|out| write_put(out, request)),
        }
    }

    pub(crate) fn of_delete(
        request: &pb::DeleteRangeRequest,
        answer: Option<&pb::DeleteRangeResponse>,
    ) -> Self {
        Self {
            request_count: 0,
            request_bytes: signed(request.encoded_len()),
            response_count: answer.map_or(0, |answer| answer.deleted),
            response_bytes: answer.map_or(0, |answer| signed(answer.encoded_len())),
            content: text(|out| write_delete(out, request)),
        }
    }

    /// Counts the operations of the branch that was taken.
    pub(crate) fn of_txn(request: &pb::TxnRequest, answer: Option<&pb::TxnResponse>) -> Self {
        let succeeded = answer.is_some_and(|answer| answer.succeeded);
        let taken = if succeeded { &request.success } else { &request.failure };
        Self {
            request_count: signed(taken.len()),
            request_bytes: signed(taken.iter().map(Message::encoded_len).sum()),
            response_count: 0,
            response_bytes: answer.map_or(0, |answer| signed(answer.encoded_len())),
            content: text(|out| write_txn(out, request)),
        }
    }
}

fn text(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut out = String::new();
    write(&mut out).expect("writing to a string does not fail");
    out
}

fn write_key(out: &mut String, key: &[u8], range_end: &[u8]) -> fmt::Result {
    write!(out, "key:\"{}\" ", key.escape_ascii())?;
    if !range_end.is_empty() {
        write!(out, "range_end:\"{}\" ", range_end.escape_ascii())?;
    }
    Ok(())
}

fn write_range(out: &mut String, request: &pb::RangeRequest) -> fmt::Result {
    write_key(out, &request.key, &request.range_end)?;
    for (name, value) in [("limit", request.limit), ("revision", request.revision)] {
        if value != 0 {
            write!(out, "{name}:{value} ")?;
        }
    }
    for (name, set) in [
        ("serializable", request.serializable),
        ("keys_only", request.keys_only),
        ("count_only", request.count_only),
    ] {
        if set {
            write!(out, "{name}:true ")?;
        }
    }
    Ok(())
}

fn write_put(out: &mut String, request: &pb::PutRequest) -> fmt::Result {
    write!(out, "key:\"{}\" value_size:{} ", request.key.escape_ascii(), request.value.len())?;
    if request.lease != 0 {
        write!(out, "lease:{} ", request.lease)?;
    }
    Ok(())
}

fn write_delete(out: &mut String, request: &pb::DeleteRangeRequest) -> fmt::Result {
    write_key(out, &request.key, &request.range_end)
}

fn write_txn(out: &mut String, request: &pb::TxnRequest) -> fmt::Result {
    for compare in &request.compare {
        write!(
            out,
            "compare:<target:{} result:{} key:\"{}\"> ",
            compare.target().as_str_name(),
            compare.result().as_str_name(),
            compare.key.escape_ascii()
        )?;
    }
    for (branch, operations) in [("success", &request.success), ("failure", &request.failure)] {
        for operation in operations {
            write!(out, "{branch}:<")?;
            match &operation.request {
                Some(request_op::Request::RequestRange(range)) => {
                    out.push_str("request_range:<");
                    write_range(out, range)?;
                }
                Some(request_op::Request::RequestPut(put)) => {
                    out.push_str("request_put:<");
                    write_put(out, put)?;
                }
                Some(request_op::Request::RequestDeleteRange(delete)) => {
                    out.push_str("request_delete_range:<");
                    write_delete(out, delete)?;
                }
                Some(request_op::Request::RequestTxn(inner)) => {
                    out.push_str("request_txn:<");
                    write_txn(out, inner)?;
                }
                None => out.push('<'),
            }
            out.push_str(">> ");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn values_are_not_logged() {
        let put = pb::PutRequest {
            key: Bytes::from_static(b"k\xff"),
            value: Bytes::from_static(b"secret"),
            lease: 7,
            ..Default::default()
        };
        let stats = Stats::of_put(&put, None);
        assert_eq!(stats.content, "key:\"k\\xff\" value_size:6 lease:7 ");
        assert_eq!(stats.request_bytes, signed(put.encoded_len()));
        let operation = pb::RequestOp { request: Some(request_op::Request::RequestPut(put)) };
        let txn = pb::TxnRequest {
            failure: vec![operation],
            compare: vec![pb::Compare { key: Bytes::from_static(b"c"), ..Default::default() }],
            ..Default::default()
        };
        let stats = Stats::of_txn(&txn, None);
        assert_eq!(stats.request_count, 1);
        assert_eq!(
            stats.content,
            "compare:<target:VERSION result:EQUAL key:\"c\"> \
             failure:<request_put:<key:\"k\\xff\" value_size:6 lease:7 >> "
        );
    }
}
