//! The members: one call at a time, at whichever of them answers.
//!
//! A call that nobody has looked at is tried at every endpoint in turn, for as long as its caller
//! waits; without a time limit for some seconds.

mod lanes;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Connection, Options};
use parking_lot::RwLock;
use prost::Message;
use proto::etcdserverpb::MemberListRequest;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::caller::{Caller, Identity};

use lanes::Lanes;
pub(crate) use lanes::Place;

/// Between two rounds over the endpoints.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// How long a call without a time limit waits for somebody to be there. etcd's wait for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a member says itself begins so.
const SAID_BY_MEMBER: &str = "etcdserver: ";

/// What a member that is cut off says to locks and elections begins so, too: it makes them as a
/// client of its own, and its errors have lost their codes there.
const SAID_CUT_OFF: [&str; 3] =
    ["etcdserver: request timed out", "etcdserver: no leader", "etcdserver: server stopped"];

/// What a learner says to nearly every call.
const LEARNER: &str = "etcdserver: rpc not supported for learner";

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

/// Which connections an attempt uses.
#[derive(Clone, Copy, Debug)]
enum Over {
    /// Those of all calls.
    Shared,
    /// One of those for streams.
    Lane,
}

/// The cluster.
#[derive(Clone)]
pub(crate) struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    clients: RwLock<Clients>,
    options: Options,
    /// For streams whose clients may not read.
    lanes: Lanes,
}

/// Connections. Watches have their own: a member may allow only so many streams on one, and calls
/// must not wait until a watch ends.
struct Clients {
    calls: Client,
    watches: Client,
}

impl Clients {
    async fn new(options: Options) -> Result<Self, client::Error> {
        let calls = Client::connect(options.clone()).await?;
        Ok(Self { calls, watches: Client::connect(options).await? })
    }
}

/// A member that a stream goes to.
#[derive(Debug)]
pub(crate) struct Member {
    client: Client,
    connection: Connection,
}

impl Member {
    fn of(client: Client) -> Self {
        Self { connection: client.connection(), client }
    }

    /// What streams are opened on.
    pub(crate) fn channel(&self) -> Channel {
        self.connection.channel.clone()
    }

    /// Goes on to the next one, if what it told says that it is of no use.
    pub(crate) fn judge(&self, told: &Status) {
        if is_useless(told) {
            self.client.leave(&self.connection);
        }
    }
}

impl Upstream {
    /// Nothing is connected yet.
    pub(crate) async fn new(options: Options) -> Result<Self, client::Error> {
        let clients = RwLock::new(Clients::new(options.clone()).await?);
        Ok(Self { shared: Arc::new(Shared { clients, options, lanes: Lanes::default() }) })
    }

    /// The connections as they are now.
    pub(crate) fn client(&self) -> Client {
        self.shared.clients.read().calls.clone()
    }

    /// For a stream that is read all the time, and is no watch.
    pub(crate) fn member(&self) -> Member {
        Member::of(self.client())
    }

    /// For a stream of watches.
    pub(crate) fn member_for_watches(&self) -> Member {
        Member::of(self.shared.clients.read().watches.clone())
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
        self.attempt_over(Over::Shared, caller, policy, call).await.map(|(answer, _)| answer)
    }

    /// As [`Self::attempt`], for a stream: it must not be in the way of calls when nobody reads
    /// it. The place is to be kept as long as the stream.
    pub(crate) async fn attempt_stream<R, C, F>(
        &self,
        caller: &Caller,
        policy: Policy,
        call: C,
    ) -> Result<(R, Option<Place>), Status>
    where
        C: Fn(Channel) -> F,
        F: Future<Output = Result<R, Status>>,
    {
        self.attempt_over(Over::Lane, caller, policy, call).await
    }

    async fn attempt_over<R, C, F>(
        &self,
        over: Over,
        caller: &Caller,
        policy: Policy,
        call: C,
    ) -> Result<(R, Option<Place>), Status>
    where
        C: Fn(Channel) -> F,
        F: Future<Output = Result<R, Status>>,
    {
        let until = caller.deadline().unwrap_or_else(|| Instant::now() + PATIENCE);
        let mut attempts = 0;
        loop {
            let client = self.client();
            let connection = client.connection();
            let (channel, place) = match over {
                Over::Shared => (connection.channel.clone(), None),
                Over::Lane => {
                    let endpoint = client.endpoint_of(&connection);
                    let entered = self.shared.lanes.enter(&self.shared.options, endpoint).await;
                    let (lane, place) =
                        entered.map_err(|error| Status::unavailable(error.to_string()))?;
                    (lane.connection().channel, Some(place))
                }
            };
            // Who hangs up may have waited in vain for a member that hangs.
            let mut waiting = Waiting { client: &client, connection: &connection, is_over: false };
            let answered = call(channel).await;
            waiting.is_over = true;
            drop(waiting);
            let status = match answered {
                Ok(answer) => return Ok((answer, place)),
                Err(status) => status,
            };
            attempts += 1;
            let told = client::as_told_by_go(&status);
            if is_useless(&told) {
                client.leave(&connection);
            }
            let endpoints = client.endpoints().count();
            let is_unseen = client::was_never_sent(&status);
            let is_read = policy == Policy::Read && is_gone(&told) && attempts <= endpoints;
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
        let changed = Clients::new(self.shared.options.at(endpoints)).await?;
        *self.shared.clients.write() = changed;
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

/// Whether another member may do what this one cannot: it is gone, cut off, or a learner. Calls
/// stay with a member until then.
fn is_useless(told: &Status) -> bool {
    let has_text = || SAID_CUT_OFF.iter().any(|said| told.message().starts_with(said));
    matches!(told.code(), Code::Unavailable | Code::DeadlineExceeded)
        || told.message() == LEARNER
        || told.code() == Code::Unknown && has_text()
}

/// Whether nobody has answered, not even to say why not.
fn is_gone(told: &Status) -> bool {
    told.code() == Code::Unavailable && !told.message().starts_with(SAID_BY_MEMBER)
}

/// Leaves a connection unless its call has come to an end.
struct Waiting<'a> {
    client: &'a Client,
    connection: &'a Connection,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.client.leave(self.connection);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-179: no call goes again to a member that cannot answer any.
    #[test]
    fn members_that_cannot_answer_are_left() {
        for (code, text, is_left) in [
            (Code::Unavailable, "etcdserver: request timed out", true),
            (Code::Unavailable, "etcdserver: no leader", true),
            (Code::Unavailable, "transport is closing", true),
            (Code::DeadlineExceeded, "context deadline exceeded", true),
            (Code::FailedPrecondition, LEARNER, true),
            (Code::Unknown, "etcdserver: request timed out", true),
            (Code::Unknown, "etcdserver: requested lease not found", false),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", false),
            (Code::InvalidArgument, "etcdserver: key is not provided", false),
        ] {
            assert_eq!(is_useless(&Status::new(code, text)), is_left, "{text}");
        }
    }

    /// SRV-179: a member that hangs is not asked by the next caller.
    #[tokio::test]
    async fn who_hangs_up_leaves_the_member() {
        let endpoints = ["127.0.0.1:1", "127.0.0.1:2"].map(str::to_owned).to_vec();
        let upstream = Upstream::new(Options::new(endpoints)).await.unwrap();
        let ticket = || format!("{:?}", upstream.client().connection());
        let before = ticket();
        let caller = Caller::default();
        let call = upstream
            .attempt(&caller, Policy::Write, |_| std::future::pending::<Result<(), Status>>());
        assert!(futures_util::FutureExt::now_or_never(call).is_none());
        assert_ne!(ticket(), before);
        let before = ticket();
        upstream.attempt(&caller, Policy::Write, async |_| Ok(())).await.unwrap();
        assert_eq!(ticket(), before);
    }
}
