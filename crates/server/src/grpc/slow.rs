//! The log lines of requests that took long (G-020), with etcd's fields; values are left out.
//!
//! Source: etcd server/etcdserver/api/v3rpc/interceptor.go, server/etcdserver/txn/util.go.

mod steps;
mod words;

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::response_op;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Status;

use super::codec::{Plain, SplicedRange, WriteWire as _};
use crate::config::GoDuration;
pub(crate) use steps::{Steps, field};

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
    /// Reads that take longer, of which etcd says that they are applied.
    pub(crate) read_longer_than: Duration,
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
        let start = at(SystemTime::now() - took);
        let spent = GoDuration::from(took);
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

    /// Logs a range that began at `began`, if it took long. `true` if it did.
    pub(crate) fn note_range(
        self,
        began: Instant,
        request: &pb::RangeRequest,
        answer: &Result<SplicedRange, Status>,
    ) -> bool {
        self.note_read(
            "read-only range ",
            began,
            || words::range(request),
            answer,
            |answer| {
                format!("range_response_count:{} size:{}", answer.reply.rows.len(), answer.len())
            },
        )
    }

    /// Logs a txn that only reads and began at `began`, if it took long. `true` if it did.
    pub(crate) fn note_read_txn(
        self,
        began: Instant,
        request: &pb::TxnRequest,
        answer: &Result<Plain<pb::TxnResponse>, Status>,
    ) -> bool {
        self.note_read(
            "read-only txn ",
            began,
            || words::txn(request),
            answer,
            |answer| {
                let counts =
                    answer.message().responses.iter().filter_map(|it| match &it.response {
                        Some(response_op::Response::ResponseRange(range)) => {
                            Some(format!("range_response_count:{}", range.kvs.len()))
                        }
                        Some(_) | None => None,
                    });
                let counts: Vec<String> = counts.collect();
                format!("responses:<{}> size:{}", counts.join(" "), answer.message().encoded_len())
            },
        )
    }

    fn note_read<T>(
        self,
        prefix: &str,
        began: Instant,
        request: impl FnOnce() -> String,
        answer: &Result<T, Status>,
        words: impl FnOnce(&T) -> String,
    ) -> bool {
        let took = began.elapsed();
        let slow = self.read_longer_than < took;
        if slow {
            let error = answer.as_ref().err().map(|status| {
                let message = status.message();
                message.strip_prefix("etcdserver: ").unwrap_or(message).to_owned()
            });
            tracing::warn!(
                took = %GoDuration::from(took),
                "expected-duration" = %GoDuration::from(self.read_longer_than),
                prefix,
                request = request(),
                response = answer.as_ref().map(words).unwrap_or_default(),
                error,
                "apply request took too long"
            );
        }
        slow
    }
}

fn at(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
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
            content: words::range(request),
        }
    }

    pub(crate) fn of_put(request: &pb::PutRequest, answer: Option<&pb::PutResponse>) -> Self {
        Self {
            request_count: 1,
            request_bytes: signed(request.encoded_len()),
            response_count: 0,
            response_bytes: answer.map_or(0, |answer| signed(answer.encoded_len())),
            content: words::put(request),
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
            content: words::delete(request),
        }
    }

    /// Counts the operations of the branch that was taken.
    pub(crate) fn of_txn(request: &pb::TxnRequest, answer: Option<&pb::TxnResponse>) -> Self {
        let taken = answer.map_or(&[][..], |answer| {
            if answer.succeeded { &request.success } else { &request.failure }
        });
        Self {
            request_count: signed(taken.len()),
            request_bytes: signed(taken.iter().map(Message::encoded_len).sum()),
            response_count: 0,
            response_bytes: answer.map_or(0, |answer| signed(answer.encoded_len())),
            // What failed is not told, as by etcd.
            content: answer.map_or_else(String::new, |_| words::txn(request)),
        }
    }
}
