//! How one call is made: its metadata, its deadline, and when it is tried again.
//!
//! Invariant (G7): a write goes out a second time only if the first attempt was never handed to an
//! open connection, if the server closed that one and said that it did not look at it, or if it
//! refused it for its token.
//!
//! etcd: `client/v3/retry.go`, `client/v3/retry_interceptor.go`.

use std::time::Duration;

use prost::Message;
use tokio::time::Instant;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::client::Client;
use crate::error::{Applied, Error, code, never_sent};

/// Whether sending a request twice does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// A read.
    Repeatable,
    /// A write.
    Once,
}

/// Pause after every endpoint was tried. The same as etcd's.
const ROUND_PAUSE: Duration = Duration::from_millis(25);
/// Reads give up after as many attempts that reached a server.
const ATTEMPTS_MAX: u32 = 100;

/// The members' answers to a token they do not know any more; a fresh one helps.
const STALE_TOKEN: [&str; 2] =
    ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"];
const USER_EMPTY: &str = "etcdserver: user name is empty";

impl Client {
    /// Makes a unary call, trying again where that is safe, within the command timeout.
    pub(crate) async fn unary<M, R, C, F>(
        &self,
        policy: Policy,
        message: M,
        call: C,
    ) -> Result<R, Error>
    where
        M: Message + Clone,
        C: Fn(Channel, Request<M>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.check_size(&message)?;
        let deadline = self.deadline();
        let mut attempt = 0_u32;
        let mut token_refreshed = false;
        loop {
            let (ticket, channel) = self.connections.current();
            let since = self.connections.since_now(ticket);
            let effect = || if since.was_closed() { Applied::No } else { Applied::Unknown };
            let request = self.request(message.clone(), deadline);
            let status = match within(deadline, call(channel, request)).await {
                None => return Err(self.out_of_time(effect())),
                Some(Ok(response)) => return Ok(response.into_inner()),
                Some(Err(status)) => status,
            };
            attempt += 1;
            if never_sent(&status) {
                self.connections.leave(ticket);
                if !self.pause(attempt, deadline).await {
                    return Err(self.out_of_time(Applied::No));
                }
                continue;
            }
            if !token_refreshed && self.token_is_stale(&status) {
                token_refreshed = true;
                self.refresh_token().await?;
                continue;
            }
            let again = policy == Policy::Repeatable
                && code(&status) == Code::Unavailable
                && attempt < ATTEMPTS_MAX;
            if !again {
                let error = Error::from_status(&status);
                let is_late = matches!(error, Error::Deadline { .. });
                return Err(if is_late { self.out_of_time(effect()) } else { error });
            }
            self.connections.leave(ticket);
            if !self.pause(attempt, deadline).await {
                return Err(self.out_of_time(Applied::No));
            }
        }
    }

    /// The request with the metadata and the timeout that members look at.
    pub(crate) fn request<M>(&self, message: M, deadline: Option<Instant>) -> Request<M> {
        let mut request = Request::new(message);
        self.add_metadata(request.metadata_mut());
        if let Some(deadline) = deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }

    /// A request of a stream, which must end when the member it runs through loses the leader.
    pub(crate) fn stream_request<M>(&self, message: M) -> Request<M> {
        let mut request = self.request(message, None);
        request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
        request
    }

    /// When a call that starts now must be over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.options.command_timeout.map(|timeout| Instant::now() + timeout)
    }

    fn add_metadata(&self, metadata: &mut MetadataMap) {
        let version = AsciiMetadataValue::from_static(base::version::API);
        metadata.insert("client-api-version", version);
        let token = self.token();
        if let Some(value) = token.and_then(|token| token.parse::<AsciiMetadataValue>().ok()) {
            metadata.insert("token", value);
        }
    }

    fn check_size<M: Message>(&self, message: &M) -> Result<(), Error> {
        let (bytes, bytes_max) = (message.encoded_len(), self.options.request_bytes_max);
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(Error::Rpc {
            code: Code::ResourceExhausted,
            message: format!("trying to send message larger than max ({bytes} vs. {bytes_max})"),
            applied: Applied::No,
        })
    }

    fn token_is_stale(&self, status: &Status) -> bool {
        if !self.has_password() {
            return false;
        }
        STALE_TOKEN.contains(&status.message()) || status.message() == USER_EMPTY
    }

    /// Waits once per round over all endpoints. False if the deadline comes first.
    async fn pause(&self, attempt: u32, deadline: Option<Instant>) -> bool {
        let endpoints = u32::try_from(self.connections.len()).unwrap_or(u32::MAX);
        if !attempt.is_multiple_of(endpoints) {
            return deadline.is_none_or(|deadline| Instant::now() < deadline);
        }
        within(deadline, tokio::time::sleep(ROUND_PAUSE)).await.is_some()
    }
}

/// Thin methods of [`Client`] that do nothing but make one unary call.
macro_rules! calls {
    ($stub:ident; $(
        $(#[$doc:meta])*
        $policy:ident $name:ident($request:ty) -> $response:ty = $method:ident;
    )*) => {
        impl $crate::client::Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// See [`Error`](crate::Error).
                pub async fn $name(
                    &self,
                    request: $request,
                ) -> Result<$response, $crate::error::Error> {
                    self.unary(Policy::$policy, request, |channel, request| {
                let mut stub = self.$stub(channel);
                async move { stub.$method(request).await }
            })
                    .await
                }
            )*
        }
    };
}
pub(crate) use calls;

/// Runs `future` until the deadline; `None` if that came first.
pub(crate) async fn within<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        None => Some(future.await),
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
    }
}
