//! Renewals on behalf of one identity: one stream to a member, one renewal of a lease at a time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::caller::Identity;
use crate::upstream::{Member, Upstream};

/// Demands that wait for a renewer.
const DEMANDS_LEN: usize = 64;

/// Requests that wait for the connection; further demands wait, too.
const REQUESTS_LEN: usize = 64;

/// A member that says nothing for this time is left. Longer than one waits for a leader.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// One who waits for a renewal.
type Waiting = oneshot::Sender<Result<LeaseKeepAliveResponse, Status>>;

/// A lease is to be renewed.
#[derive(Debug)]
struct Demand {
    id: i64,
    told: Waiting,
}

/// All renewers, by identity.
#[derive(Debug)]
pub(super) struct Renewals {
    upstream: Upstream,
    answer_time_max: Duration,
    renewers: Mutex<HashMap<Identity, Weak<Renewer>>>,
}

/// Renews leases for one identity; lives as long as somebody holds it.
#[derive(Debug)]
pub(super) struct Renewer {
    demands: mpsc::Sender<Demand>,
    identity: Identity,
    renewals: Weak<Renewals>,
    /// Ends the worker, even one that waits for a member that hangs.
    _alive: oneshot::Sender<Never>,
}

/// Nothing is ever said.
#[derive(Debug)]
enum Never {}

impl Renewals {
    pub(super) fn new(upstream: Upstream, answer_time_max: Duration) -> Arc<Self> {
        Arc::new(Self { upstream, answer_time_max, renewers: Mutex::default() })
    }

    /// The renewer of an identity, begun if there is none.
    pub(super) fn renewer(self: &Arc<Self>, identity: Identity) -> Arc<Renewer> {
        let mut renewers = self.renewers.lock();
        if let Some(renewer) = renewers.get(&identity).and_then(Weak::upgrade) {
            return renewer;
        }
        let (demands, receiver) = mpsc::channel(DEMANDS_LEN);
        let worker = Worker {
            upstream: self.upstream.clone(),
            answer_time_max: self.answer_time_max,
            identity: identity.clone(),
            demands: receiver,
            waiting: HashMap::new(),
            heard_at: Instant::now(),
            link: Link::Closed,
        };
        let (alive, gone) = oneshot::channel();
        tokio::spawn(async move {
            tokio::select! {
                _ = gone => {}
                () = worker.run() => {}
            }
        });
        let renewer = Renewer {
            demands,
            identity: identity.clone(),
            renewals: Arc::downgrade(self),
            _alive: alive,
        };
        let renewer = Arc::new(renewer);
        renewers.insert(identity, Arc::downgrade(&renewer));
        renewer
    }
}

impl Renewer {
    /// Renews a lease, or waits for a renewal that is under way.
    pub(super) async fn renew(&self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        let (told, answer) = oneshot::channel();
        let gone = || Status::unavailable("transport is closing");
        self.demands.send(Demand { id, told }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        let Some(renewals) = self.renewals.upgrade() else { return };
        let mut renewers = renewals.renewers.lock();
        if renewers.get(&self.identity).is_some_and(|renewer| renewer.strong_count() == 0) {
            renewers.remove(&self.identity);
        }
    }
}

/// What does the work of a renewer.
struct Worker {
    upstream: Upstream,
    answer_time_max: Duration,
    identity: Identity,
    demands: mpsc::Receiver<Demand>,
    /// Who waits for which lease.
    waiting: HashMap<i64, Vec<Waiting>>,
    /// When the member answered, or somebody began to wait for it.
    heard_at: Instant,
    link: Link,
}

type Answers = Streaming<LeaseKeepAliveResponse>;
type Requests = mpsc::Sender<LeaseKeepAliveRequest>;

/// The stream to a member.
enum Link {
    Closed,
    Opening(Line, BoxFuture<'static, Result<Answers, Status>>),
    Open(Line, Box<Answers>),
}

/// Whom a stream goes to, and how.
struct Line {
    member: Member,
    requests: Requests,
}

impl Link {
    fn line(&self) -> Option<&Line> {
        match self {
            Self::Closed => None,
            Self::Opening(line, _) | Self::Open(line, _) => Some(line),
        }
    }

    /// The next answer. May be dropped while it waits.
    async fn next(&mut self) -> Result<LeaseKeepAliveResponse, Status> {
        loop {
            match self {
                Self::Closed => return std::future::pending().await,
                Self::Opening(_, opened) => {
                    let answers = Box::new(opened.await?);
                    if let Self::Opening(line, _) = std::mem::replace(self, Self::Closed) {
                        *self = Self::Open(line, answers);
                    }
                }
                Self::Open(_, answers) => {
                    let ended = || Status::unavailable("transport is closing");
                    return answers.message().await?.ok_or_else(ended);
                }
            }
        }
    }
}

impl Worker {
    async fn run(mut self) {
        loop {
            // Room first: a demand that was taken must get on its way.
            let room = self.link.line().map(|line| line.requests.clone());
            let late_at = self.heard_at + self.answer_time_max;
            let is_waiting = !self.waiting.is_empty();
            let demands = &mut self.demands;
            let has_room = async {
                if let Some(requests) = &room {
                    // A stream that is lost has room: it says so itself.
                    drop(requests.reserve().await);
                }
                demands.recv().await
            };
            tokio::select! {
                demand = has_room => match demand {
                    Some(demand) => self.on_demand(demand),
                    None => return,
                },
                answer = self.link.next() => match answer {
                    Ok(answer) => self.on_answer(answer),
                    Err(status) => self.on_broken(&client::as_told_by_go(&status)),
                },
                () = tokio::time::sleep_until(late_at), if is_waiting => {
                    self.on_broken(&Status::unavailable("the member does not answer"));
                }
            }
        }
    }

    fn on_demand(&mut self, Demand { id, told }: Demand) {
        if self.waiting.is_empty() {
            self.heard_at = Instant::now();
        }
        let waiting = self.waiting.entry(id).or_default();
        waiting.retain(|told| !told.is_closed());
        waiting.push(told);
        if 1 < waiting.len() {
            return;
        }
        let request = LeaseKeepAliveRequest { id };
        match self.link.line() {
            None => self.open(request),
            Some(line) => {
                if line.requests.try_send(request).is_err() {
                    self.on_broken(&Status::unavailable("transport is closing"));
                }
            }
        }
    }

    fn open(&mut self, request: LeaseKeepAliveRequest) {
        let (requests, receiver) = mpsc::channel(REQUESTS_LEN);
        requests.try_send(request).expect("a new queue has room");
        let request = Upstream::stream(&self.identity, ReceiverStream::new(receiver));
        let member = self.upstream.member();
        let mut stub = LeaseClient::new(member.channel());
        let opened = Box::pin(async move {
            let opened = stub.lease_keep_alive(request).await;
            opened.map(Response::into_inner)
        });
        self.link = Link::Opening(Line { member, requests }, opened);
    }

    fn on_answer(&mut self, answer: LeaseKeepAliveResponse) {
        self.heard_at = Instant::now();
        for told in self.waiting.remove(&answer.id).unwrap_or_default() {
            // Whoever asked may be gone.
            told.send(Ok(answer)).ok();
        }
    }

    /// Clients hear of it and ask again on a new stream.
    fn on_broken(&mut self, status: &Status) {
        if let Some(line) = self.link.line() {
            line.member.judge(status);
        }
        self.link = Link::Closed;
        for told in std::mem::take(&mut self.waiting).into_values().flatten() {
            told.send(Err(status.clone())).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use client::Options;
    use futures_util::StreamExt as _;
    use futures_util::stream::FuturesUnordered;
    use tokio::net::TcpListener;
    use tokio::runtime::Handle;
    use tokio::time::timeout;

    use super::*;

    /// Nothing goes on for clients that are gone, even while the member hangs.
    #[tokio::test]
    async fn renewals_end_with_their_last_client() {
        // The system accepts connections to it, and nobody says anything.
        let member = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = member.local_addr().unwrap().to_string();
        let dial_timeout = Duration::from_secs(3600);
        let options = Options { dial_timeout, ..Options::new(vec![endpoint]) };
        let renewals = Renewals::new(Upstream::new(options).await.unwrap(), ANSWER_TIME_MAX);
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let renewer = renewals.renewer(Identity::default());
        let demands = 2 * i64::try_from(REQUESTS_LEN + DEMANDS_LEN).unwrap();
        let mut waiting: FuturesUnordered<_> = (0..demands).map(|id| renewer.renew(id)).collect();
        assert!(timeout(Duration::from_millis(200), waiting.next()).await.is_err());
        assert!(before < tasks());
        drop(waiting);
        drop(renewer);
        let ended = async {
            while before < tasks() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), ended).await.unwrap();
        assert!(renewals.renewers.lock().is_empty());
    }

    /// SRV-177: a member that hangs is not asked for ever.
    #[tokio::test]
    async fn a_member_that_says_nothing_is_left() {
        // The system accepts connections to them, and nobody says anything.
        let bind = || TcpListener::bind("127.0.0.1:0");
        let members = [bind().await.unwrap(), bind().await.unwrap()];
        let address = |member: &TcpListener| member.local_addr().unwrap().to_string();
        let dial_timeout = Duration::from_secs(3600);
        let endpoints = members.iter().map(address).collect();
        let options = Options { dial_timeout, ..Options::new(endpoints) };
        let upstream = Upstream::new(options).await.unwrap();
        let endpoint = || {
            let client = upstream.client();
            client.endpoint_of(&client.connection()).to_owned()
        };
        let before = endpoint();
        let renewals = Renewals::new(upstream.clone(), Duration::from_millis(50));
        let renewer = renewals.renewer(Identity::default());
        let status = renewer.renew(1).await.unwrap_err();
        assert_eq!(status.message(), "the member does not answer");
        assert_ne!(endpoint(), before);
    }
}
