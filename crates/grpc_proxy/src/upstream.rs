//! The members: one call at a time, at whichever of them answers.
//!
//! A call that nobody has looked at is tried at every endpoint in turn, for as long as its caller
//! waits; without a time limit for some seconds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Options};
use parking_lot::RwLock;
use prost::Message;
use proto::etcdserverpb::MemberListRequest;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::caller::{Caller, Identity};

/// Between two rounds over the endpoints.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// How long a call without a time limit waits for somebody to be there. etcd's wait for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a member says itself begins so.
const SAID_BY_MEMBER: &str = "etcdserver: ";

/// Whether and when a call is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// A read: also when its connection broke.
    Read,
    /// A write: only if nobody has looked at it.
    Write,
    /// As a write, for as long as nobody is there and the caller is.
    WriteWhenReady,
}

/// The cluster.
#[derive(Clone)]
pub(crate) struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    client: RwLock<Client>,
    options: Options,
}

impl Upstream {
    /// Nothing is connected yet.
    pub(crate) async fn new(options: Options) -> Result<Self, client::Error> {
        let client = RwLock::new(Client::connect(options.clone()).await?);
        Ok(Self { shared: Arc::new(Shared { client, options }) })
    }

    /// The connections as they are now.
    pub(crate) fn client(&self) -> Client {
        self.shared.client.read().clone()
    }

    /// What an answer may have.
    pub(crate) fn response_bytes_max(&self) -> usize {
        self.shared.options.response_bytes_max
    }

    /// Whether a request is small enough.
    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), Status> {
        let bytes_max = self.shared.options.request_bytes_max;
        if bytes <= bytes_max {
            return Ok(());
        }
        let text = format!("trying to send message larger than max ({bytes} vs. {bytes_max})");
        Err(Status::resource_exhausted(text))
    }

    /// Makes a unary call for a caller.
    pub(crate) async fn unary<M, R, C, F>(
        &self,
        caller: &Caller,
        policy: Policy,
        message: M,
        call: C,
    ) -> Result<R, Status>
    where
        M: Message + Clone,
        C: Fn(Channel, Request<M>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.check_size(message.encoded_len())?;
        let attempt = |channel| call(channel, caller.request(message.clone()));
        self.attempt(caller, policy, attempt).await.map(Response::into_inner)
    }

    /// Makes attempts until one counts, or nobody has the patience for more.
    pub(crate) async fn attempt<R, C, F>(
        &self,
        caller: &Caller,
        policy: Policy,
        call: C,
    ) -> Result<R, Status>
    where
        C: Fn(Channel) -> F,
        F: Future<Output = Result<R, Status>>,
    {
        let until = caller.deadline().unwrap_or_else(|| Instant::now() + PATIENCE);
        let mut attempts = 0;
        loop {
            let client = self.client();
            let connection = client.connection();
            let status = match call(connection.channel.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            attempts += 1;
            let told = client::as_told_by_go(&status);
            let is_gone =
                told.code() == Code::Unavailable && !told.message().starts_with(SAID_BY_MEMBER);
            if is_gone {
                client.leave(&connection);
            }
            let endpoints = client.endpoints().count();
            let is_unseen = client::was_never_sent(&status);
            let is_read = policy == Policy::Read && is_gone && attempts <= endpoints;
            let is_late = until <= Instant::now() && policy != Policy::WriteWhenReady;
            if !(is_unseen || is_read) || is_late {
                return Err(told);
            }
            if attempts % endpoints == 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    }

    /// Asks the members who they are, for ever, and goes to those from then on.
    pub(crate) async fn sync(&self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = self.sync_once(interval).await {
                tracing::warn!(error = %error, "auto sync endpoints failed");
            }
        }
    }

    async fn sync_once(&self, interval: Duration) -> Result<(), client::Error> {
        let client = self.client().with_command_timeout(Some(interval.max(SYNC_TIME_MIN)));
        let request = MemberListRequest { linearizable: true };
        let members = client.member_list(request).await?.members;
        let members = members.into_iter().filter(|member| !member.is_learner);
        let mut endpoints: Vec<_> = members.flat_map(|member| member.client_ur_ls).collect();
        endpoints.sort();
        let mut known: Vec<_> = client.endpoints().map(ToOwned::to_owned).collect();
        known.sort();
        if endpoints.is_empty() || endpoints == known {
            return Ok(());
        }
        tracing::info!(endpoints = endpoints.join(","), "members have changed");
        let changed = Client::connect(self.shared.options.at(endpoints)).await?;
        *self.shared.client.write() = changed;
        Ok(())
    }

    /// A call of the proxy itself, which nobody vouches for.
    pub(crate) fn own() -> Caller {
        Caller::default()
    }

    /// As [`Identity::request`]; here for streams, which have no time limit.
    pub(crate) fn stream<M>(identity: &Identity, messages: M) -> Request<M> {
        identity.request(messages)
    }
}

/// However often members are asked, an answer may take this long.
const SYNC_TIME_MIN: Duration = Duration::from_secs(5);

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.client();
        formatter.debug_list().entries(client.endpoints()).finish()
    }
}
