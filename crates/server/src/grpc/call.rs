//! What happens around every call: counting, metadata, deadline, limits, the log of slow ones.
//!
//! A refusal by metadata comes before the service sees the request, as etcd's interceptors do it
//! (etcd: server/etcdserver/api/v3rpc/interceptor.go).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Sleep;
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Status};

use super::codec::Framed;
use super::kv::{HttpReply, ReplyFuture, UnaryReply};
use super::methods::{CallKind, MethodIndex};
use super::reply_body::{self, Account, Limits, ReplyBody, code_of};
use super::slow::{Remote, SlowCalls, Stats};
use super::status;
use crate::handle::{Handle, ProposeError};

/// A call that has arrived.
#[derive(Debug)]
pub(crate) struct Arriving<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) slow: SlowCalls,
    pub(crate) leader_lost: &'a watch::Receiver<u64>,
    pub(crate) method: MethodIndex,
    pub(crate) remote: Remote,
}

impl Arriving<'_> {
    /// Lets `service` answer, unless the metadata forbids it.
    pub(crate) fn answer<B>(
        self,
        request: http::Request<B>,
        service: impl FnOnce(http::Request<B>) -> Reply,
    ) -> Call {
        let account = Account::open(self.handle.metrics().clone(), self.method);
        let limits = match self.check(request.headers()) {
            Ok(limits) => limits,
            Err(status) => return Call::refused(Some(account), status),
        };
        Call {
            reply: service(request),
            account: Some(account),
            limits,
            slow: self.slow,
            remote: self.remote,
        }
    }

    fn check(&self, headers: &HeaderMap) -> Result<Limits, Status> {
        let kind = self.method.method().kind;
        if self.handle.is_learner() && !self.method.method().is_for_learners() {
            return Err(ProposeError::NotForLearners.into());
        }
        let version = match headers.get("client-api-version") {
            None => None,
            Some(version) => {
                let version = std::str::from_utf8(version.as_bytes());
                Some(version.map_err(|_| status::bad_client_version())?)
            }
        };
        self.handle.metrics().calls.on_client(kind, version);
        let needs_leader =
            headers.get("hasleader").is_some_and(|needs| needs.as_bytes() == b"true");
        if needs_leader && self.handle.status().leader.is_none() {
            return Err(ProposeError::NoLeader.into());
        }
        let mut limits = Limits::default();
        if needs_leader && kind != CallKind::Unary {
            let lost = self.leader_lost.clone();
            limits.leader_lost = Some(WatchStream::from_changes(lost));
        }
        if let Some(timeout) = headers.get("grpc-timeout") {
            let text = timeout.to_str().unwrap_or_default();
            let timeout = timeout_of(text).ok_or_else(|| status::malformed_timeout(text))?;
            limits.deadline = Some(Box::pin(tokio::time::sleep(timeout)));
        }
        Ok(limits)
    }
}

/// Up to eight digits and a unit.
fn timeout_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    if digits.is_empty() || 8 < digits.len() || !plain {
        return None;
    }
    let number = digits.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// An answer under way.
pub(crate) struct Call {
    reply: Reply,
    /// `None` for a call of no method of ours.
    account: Option<Account>,
    limits: Limits,
    slow: SlowCalls,
    remote: Remote,
}

/// What a service answers with.
pub(crate) enum Reply {
    /// A message, on the lean way.
    Unary(UnaryReply),
    /// Whatever a service of tonic's makes.
    Coming(ReplyFuture),
    /// It is there; taken once.
    Ready(Option<HttpReply>),
}

impl Call {
    /// A call that no service sees.
    pub(crate) fn refused(account: Option<Account>, status: Status) -> Self {
        Self {
            reply: Reply::Ready(Some(status.into_http())),
            account,
            limits: Limits::default(),
            slow: SlowCalls { longer_than: Duration::MAX },
            remote: Remote(None),
        }
    }

    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<http::Response<ReplyBody>> {
        match &mut self.reply {
            Reply::Ready(reply) => {
                let reply = reply.take().expect("a call is not polled behind its answer");
                return Poll::Ready(self.finish(reply));
            }
            Reply::Unary(reply) => {
                if let Poll::Ready(reply) = reply.as_mut().poll(context) {
                    return Poll::Ready(match reply {
                        Ok(message) => self.finish_unary(message),
                        Err(status) => self.finish(status.into_http()),
                    });
                }
            }
            Reply::Coming(reply) => {
                if let Poll::Ready(Ok(reply)) = reply.as_mut().poll(context) {
                    return Poll::Ready(self.finish(reply));
                }
            }
        }
        let late = self.poll_deadline(context);
        late.map(|status| self.finish(status.into_http()))
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let Some(deadline) = &mut self.limits.deadline else { return Poll::Pending };
        let deadline: &mut Pin<Box<Sleep>> = deadline;
        deadline.as_mut().poll(context).map(|()| status::deadline_exceeded())
    }

    /// Counts the whole call: only sending its message is left.
    fn finish_unary(&mut self, message: Framed) -> http::Response<ReplyBody> {
        if let Some(mut account) = self.account.take() {
            account.on_sent(&message.bytes);
            account.end(Code::Ok);
            self.note(&account);
        }
        reply_body::ok_with(ReplyBody::of_message(message))
    }

    /// Logs a unary call that took long, unless its service does.
    fn note(&self, account: &Account) {
        let path = account.method().method().path;
        if !is_noted_by_its_service(path) {
            self.slow.note(path, self.remote, account.began(), Stats::unknown);
        }
    }

    /// Counts the call as far as its headers tell, and hands the rest to its body.
    fn finish(&mut self, reply: HttpReply) -> http::Response<ReplyBody> {
        let Some(mut account) = self.account.take() else { return reply.map(ReplyBody::plain) };
        let method = account.method().method();
        let code = code_of(reply.headers());
        let unary = method.kind == CallKind::Unary;
        if unary || code != Code::Ok {
            account.end(code);
        }
        if unary {
            self.note(&account);
        }
        // A unary answer is complete, so that only sending it is left.
        let limits = if unary { Limits::default() } else { std::mem::take(&mut self.limits) };
        reply.map(|body| ReplyBody::of_call(body, account, limits))
    }
}

/// Calls whose request the service describes in the log itself.
fn is_noted_by_its_service(path: &str) -> bool {
    let described = ["Range", "Put", "DeleteRange", "Txn"];
    path.strip_prefix("/etcdserverpb.KV/").is_some_and(|name| described.contains(&name))
}

impl Future for Call {
    type Output = Result<http::Response<ReplyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_reply(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5000m", Some(Duration::from_secs(5))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("999999999S", None),
            ("5é", None),
        ] {
            assert_eq!(timeout_of(text), expected, "{text}");
        }
    }
}
