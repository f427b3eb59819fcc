//! Leases, and keeping one alive.
//!
//! etcd: `client/v3/lease.go`.

use std::time::Duration;

use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::call::{Policy, calls, within};
use crate::client::Client;
use crate::error::{Applied, Error};

/// At most one request is ever outstanding.
const REQUEST_QUEUE_LEN: usize = 1;
/// Pause before a broken stream is opened again. The same as etcd's.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The same for a single renewal, which somebody waits for.
const ONCE_RETRY_PAUSE: Duration = Duration::from_millis(25);
/// A stream is opened within this time beyond the dial timeout, or the lease counts as lost.
const FIRST_ANSWER_MARGIN: Duration = Duration::from_secs(1);

const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";

calls! { lease_stub;
    /// Grants a lease.
    Once lease_grant(LeaseGrantRequest) -> LeaseGrantResponse = lease_grant;
    /// Revokes a lease and deletes its keys.
    Once lease_revoke(LeaseRevokeRequest) -> LeaseRevokeResponse = lease_revoke;
    /// Reads how long a lease has to live, and its keys if asked for.
    Repeatable lease_time_to_live(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse
        = lease_time_to_live;
    /// Lists the leases.
    Repeatable lease_leases(LeaseLeasesRequest) -> LeaseLeasesResponse = lease_leases;
}

impl Client {
    /// Renews a lease once, trying again while no member is available. Doing so twice does no harm.
    ///
    /// # Errors
    ///
    /// See [`Error`]; a lease that is gone is the server's "requested lease not found".
    pub async fn lease_keep_alive_once(&self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        let deadline = self.deadline();
        let timeout = || Error::Deadline { applied: Applied::Unknown };
        loop {
            let answer = within(deadline, self.renew_once(id)).await.ok_or_else(timeout)?;
            match answer {
                Err(error) if error.is_unavailable() => {}
                other => return other,
            }
            within(deadline, tokio::time::sleep(ONCE_RETRY_PAUSE)).await.ok_or_else(timeout)?;
        }
    }

    async fn renew_once(&self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        let mut stream = KeepAliveStream::open(self).await?;
        let answer = stream.renew(id).await?;
        if answer.ttl <= 0 {
            return Err(Error::Server {
                code: Code::NotFound,
                message: LEASE_NOT_FOUND.to_owned(),
                applied: Applied::No,
            });
        }
        Ok(answer)
    }

    /// Renews a lease for as long as the result is polled.
    #[must_use]
    pub fn lease_keep_alive(&self, id: i64) -> KeepAlive {
        let patience = self.options.dial_timeout + FIRST_ANSWER_MARGIN;
        KeepAlive {
            client: self.clone(),
            id,
            stream: None,
            next: Instant::now(),
            expires: Instant::now() + patience,
        }
    }
}

/// A lease being renewed every third of its time to live.
#[derive(Debug)]
pub struct KeepAlive {
    client: Client,
    id: i64,
    stream: Option<KeepAliveStream>,
    /// When to renew next.
    next: Instant,
    /// When the lease is lost if no answer comes.
    expires: Instant,
}

impl KeepAlive {
    /// Waits for the next renewal and returns its answer; `None` once the lease is gone or could
    /// not be renewed in its lifetime.
    pub async fn next(&mut self) -> Option<LeaseKeepAliveResponse> {
        tokio::time::sleep_until(self.next).await;
        loop {
            let answer = tokio::time::timeout_at(self.expires, self.renew()).await.ok()?;
            let Ok(answer) = answer else {
                self.stream = None;
                tokio::time::timeout_at(self.expires, tokio::time::sleep(RETRY_PAUSE))
                    .await
                    .ok()?;
                continue;
            };
            let seconds = u64::try_from(answer.ttl).ok().filter(|seconds| *seconds > 0)?;
            let ttl = Duration::from_secs(seconds);
            self.next = Instant::now() + ttl / 3;
            self.expires = Instant::now() + ttl;
            return Some(answer);
        }
    }

    async fn renew(&mut self) -> Result<LeaseKeepAliveResponse, Error> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => KeepAliveStream::open(&self.client).await?,
        };
        let answer = stream.renew(self.id).await?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

/// One open stream of renewals.
#[derive(Debug)]
struct KeepAliveStream {
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Option<Streaming<LeaseKeepAliveResponse>>,
    client: Client,
    /// Handed to the call that opens the stream, which needs a first request to get going.
    receiver: Option<mpsc::Receiver<LeaseKeepAliveRequest>>,
}

impl KeepAliveStream {
    async fn open(client: &Client) -> Result<Self, Error> {
        // Auth tokens may have expired since the last stream.
        client.refresh_token().await?;
        let (requests, receiver) = mpsc::channel(REQUEST_QUEUE_LEN);
        Ok(Self { requests, answers: None, client: client.clone(), receiver: Some(receiver) })
    }

    async fn renew(&mut self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        let broken = || Error::from_status(&Status::unavailable("transport is closing"));
        self.requests.send(LeaseKeepAliveRequest { id }).await.map_err(|_| broken())?;
        let mut answers = match (self.answers.take(), self.receiver.take()) {
            (Some(answers), _) => answers,
            (None, Some(receiver)) => self.start(receiver).await?,
            (None, None) => return Err(broken()),
        };
        let answer = answers.message().await.map_err(|status| Error::from_status(&status))?;
        self.answers = Some(answers);
        answer.ok_or_else(broken)
    }

    async fn start(
        &self,
        receiver: mpsc::Receiver<LeaseKeepAliveRequest>,
    ) -> Result<Streaming<LeaseKeepAliveResponse>, Error> {
        let (ticket, channel) = self.client.connections.current();
        let request = self.client.stream_request(ReceiverStream::new(receiver));
        let opened = self.client.lease_stub(channel).lease_keep_alive(request).await;
        opened.map(tonic::Response::into_inner).map_err(|status| {
            self.client.connections.leave(ticket);
            Error::from_status(&status)
        })
    }
}
