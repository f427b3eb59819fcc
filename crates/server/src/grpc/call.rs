//! What happens around every call: counting, metadata, deadline, limits, the log of slow ones.
//!
//! A refusal by metadata comes before the service sees the request, as etcd's interceptors do it
//! (etcd: server/etcdserver/api/v3rpc/interceptor.go).

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Status};

use super::codec::Framed;
use super::kv::{HttpReply, ReplyFuture, UnaryReply};
use super::load::Load;
use super::methods::{CallKind, MethodIndex};
use super::reply_body::{self, Account, Limits, ReplyBody, code_of};
use super::slow::{Remote, SlowCalls, Stats};
use super::status;
use crate::auth::{Caller, is_of_proxy};
use crate::handle::{Handle, ProposeError};
use crate::metrics::ConnectionMetrics;
use crate::traces::Tracer;

/// A call that has arrived.
#[derive(Debug)]
pub(crate) struct Arriving<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) metrics: &'a ConnectionMetrics,
    pub(crate) slow: SlowCalls,
    pub(crate) leader_lost: &'a watch::Receiver<u64>,
    pub(crate) method: MethodIndex,
    pub(crate) remote: Remote,
    /// Of the connection.
    pub(crate) load: &'a Arc<Load>,
    /// If calls are traced.
    pub(crate) tracer: Option<&'a Tracer>,
}

impl Arriving<'_> {
    /// Lets `service` answer, unless the metadata forbids it.
    pub(crate) fn answer<B>(
        self,
        request: http::Request<B>,
        service: impl FnOnce(http::Request<B>, Caller) -> Reply,
    ) -> Call {
        let mut account = Account::open(self.metrics.clone(), self.method);
        if let Some(tracer) = self.tracer {
            let path = self.method.method().path;
            account.trace(tracer.begin(path, request.headers()));
        }
        let metadata = Metadata::read(request.headers());
        let limits = match self.check(&metadata) {
            Ok(limits) => limits,
            Err(status) => {
                account.refuse();
                return Call::refused(Some(account), status);
            }
        };
        // What is noted here is told of it; the others note themselves.
        let noted_here = !is_noted_by_its_service(self.method.method().path);
        let noted = noted_here.then(|| Box::new((self.slow, self.remote)));
        let token = metadata.token.or(metadata.authorization);
        // Somebody else's certificate, which says nothing of who asks (CB-77).
        let secured = request.extensions().get().filter(|_| !metadata.is_passed_on);
        let caller = Caller::new(token, secured).traced(account.traced());
        let load = Some(self.load.clone());
        Call { reply: service(request, caller), account: Some(account), limits, noted, load }
    }

    fn check(&self, metadata: &Metadata<'_>) -> Result<Limits, Status> {
        let kind = self.method.method().kind;
        base::probe::failpoint("afterIsMemberExist");
        if self.handle.is_learner() && !self.method.method().is_for_learners() {
            return Err(ProposeError::NotForLearners.into());
        }
        let version = metadata.client_version.map(std::str::from_utf8).transpose();
        let version = version.map_err(|_| status::bad_client_version())?;
        self.metrics.calls.on_client(kind, version);
        let needs_leader = metadata.needs_leader == Some(b"true");
        if needs_leader && self.handle.status().leader.is_none() {
            return Err(ProposeError::NoLeader.into());
        }
        let mut limits = Limits::none();
        if needs_leader && kind != CallKind::Unary {
            let lost = self.leader_lost.clone();
            limits.set_leader_lost(WatchStream::from_changes(lost));
        }
        if let Some(timeout) = metadata.timeout {
            let text = std::str::from_utf8(timeout).unwrap_or_default();
            let timeout = timeout_of(text).ok_or_else(|| status::malformed_timeout(text))?;
            limits.set_deadline(Box::pin(tokio::time::sleep(timeout)));
        }
        Ok(limits)
    }
}

/// What the headers of a call say that matters before its service sees it.
#[derive(Debug, Default)]
struct Metadata<'a> {
    client_version: Option<&'a [u8]>,
    needs_leader: Option<&'a [u8]>,
    timeout: Option<&'a [u8]>,
    token: Option<&'a HeaderValue>,
    authorization: Option<&'a HeaderValue>,
    /// A gateway or proxy says that it makes the call for somebody.
    is_passed_on: bool,
}

impl<'a> Metadata<'a> {
    /// One look at each of the few headers there are is cheaper than a search for each name.
    fn read(headers: &'a HeaderMap) -> Self {
        let mut metadata = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                "client-api-version" => &mut metadata.client_version,
                "hasleader" => &mut metadata.needs_leader,
                "grpc-timeout" => &mut metadata.timeout,
                "token" => {
                    metadata.token.get_or_insert(value);
                    continue;
                }
                "authorization" => {
                    metadata.authorization.get_or_insert(value);
                    continue;
                }
                other => {
                    metadata.is_passed_on |= is_of_proxy(other);
                    continue;
                }
            };
            // Of several the first counts.
            place.get_or_insert(value.as_bytes());
        }
        metadata
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
    /// How it is noted when it took long, and whose it is.
    noted: Option<Box<(SlowCalls, Remote)>>,
    /// Where the reply counts; taken once.
    load: Option<Arc<Load>>,
}

/// What a service answers with.
pub(crate) enum Reply {
    /// A message, on the lean way.
    Unary(UnaryReply),
    /// Whatever a service of tonic's makes.
    Coming(ReplyFuture),
    /// It is there; taken once.
    Ready(Option<Box<HttpReply>>),
}

impl Call {
    /// A call that no service sees.
    pub(crate) fn refused(account: Option<Account>, status: Status) -> Self {
        Self {
            reply: Reply::Ready(Some(Box::new(status.into_http()))),
            account,
            limits: Limits::none(),
            noted: None,
            load: None,
        }
    }

    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<http::Response<ReplyBody>> {
        match &mut self.reply {
            Reply::Ready(reply) => {
                let reply = reply.take().expect("a call is not polled behind its answer");
                return Poll::Ready(self.finish(*reply));
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
        let late = self.limits.poll_deadline(context);
        late.map(|status| self.finish(status.into_http()))
    }

    /// Counts the whole call: only sending its message is left.
    fn finish_unary(&mut self, message: Framed) -> http::Response<ReplyBody> {
        if let Some(mut account) = self.account.take() {
            account.on_sent(&message.bytes);
            account.end(Code::Ok);
            self.note(&account);
        }
        reply_body::ok_with(self.counted(ReplyBody::of_message(message)))
    }

    fn counted(&mut self, body: ReplyBody) -> ReplyBody {
        match self.load.take() {
            Some(load) => body.counted(load),
            None => body,
        }
    }

    /// Logs a unary call that took long, unless its service does.
    fn note(&self, account: &Account) {
        if let Some((slow, remote)) = self.noted.as_deref() {
            let path = account.method().method().path;
            slow.note(path, *remote, account.began(), Stats::unknown);
        }
    }

    /// Counts the call as far as its headers tell, and hands the rest to its body.
    fn finish(&mut self, reply: HttpReply) -> http::Response<ReplyBody> {
        let Some(mut account) = self.account.take() else { return reply.map(ReplyBody::plain) };
        let method = account.method().method();
        let unary = method.kind == CallKind::Unary;
        if unary || code_of(reply.headers()) != Code::Ok {
            account.end_by(reply.headers());
        }
        if unary {
            self.note(&account);
        }
        // A unary answer is complete, so that only sending it is left.
        let limits = if unary { Limits::none() } else { std::mem::take(&mut self.limits) };
        // Streams in both directions stand still as long as their reader likes, in no call's way.
        let counted = method.kind != CallKind::BidiStream;
        reply.map(|body| {
            let body = ReplyBody::of_call(body, account, limits);
            if counted { self.counted(body) } else { body }
        })
    }
}

/// Calls whose request the service describes in the log itself.
fn is_noted_by_its_service(path: &str) -> bool {
    let described = ["Range", "Put", "DeleteRange", "Txn"];
    path.strip_prefix("/etcdserverpb.KV/").is_some_and(|name| described.contains(&name))
}

impl Future for Call {
    type Output = Result<http::Response<ReplyBody>, Infallible>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_reply(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CB-77, reliability 6.1: a certificate is its owner's only where no proxy is in between.
    #[test]
    fn what_a_proxy_adds_is_seen() {
        for (name, expected) in [
            ("grpcgateway-accept", true),
            ("grpcgateway-user-agent", true),
            ("x-forwarded-for", true),
            ("forwarded", true),
            ("token", false),
            ("user-agent", false),
        ] {
            let name = http::HeaderName::from_static(name);
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("a"))]);
            assert_eq!(Metadata::read(&headers).is_passed_on, expected, "{name}");
        }
    }

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
