//! What this member has to do with the other members.
//!
//! Raft's messages and snapshots go through the transport; questions that only HTTP answers go
//! through [`others`]. All of it runs on one thread of its own, so that no client's work delays it.

pub(crate) mod arrivals;
pub(crate) mod ask;
pub(crate) mod copies;
mod corruption;
pub(crate) mod dial;
pub(crate) mod handover;
pub(crate) mod membership;
pub(crate) mod monitor;
pub(crate) mod others;
mod reconfiguration;
pub(crate) mod thread;
pub(crate) mod versions;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use backend::Backend;
use base::{ClusterId, MemberId};
use hyper::body::Incoming;
use raft::Message;
use state::members::MemberObject;
use transport::{BoxFuture, Connection, LatencySample, Transport};
use url::Url;

use self::arrivals::Arrivals;
use self::ask::{Asker, Dial};
use self::copies::Copied;
use self::others::Others;
use crate::config::MemberUrl;
use crate::node_queue::NodeQueue;

/// Copies of the state that may be on their way at the same time.
const COPIES_MAX: usize = 2;

/// How long what was sent last may take to get on its way before this member ends.
const FLUSH_TIME_MAX: Duration = Duration::from_millis(300);

const FLUSH_POLL: Duration = Duration::from_millis(1);

/// What the services and the node loop do with the other members; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    transport: Transport,
    others: Others,
    runtime: tokio::runtime::Handle,
    queue: NodeQueue,
    copies: Arc<AtomicUsize>,
}

/// Who this member is to the others.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) member: MemberId,
    pub(crate) cluster: ClusterId,
    /// Where the others reach it.
    pub(crate) peer_urls: Vec<String>,
    /// How long connecting to another member may take.
    pub(crate) dial_timeout: Duration,
    /// How long a stream of another member may be silent.
    pub(crate) read_timeout: Duration,
    /// How long a question to another member may take.
    pub(crate) request_timeout: Duration,
}

/// Opens connections for the transport as for everything else.
struct Dialer(Arc<dyn Dial>);

impl transport::Dial for Dialer {
    fn dial(&self, url: Url) -> BoxFuture<io::Result<Box<dyn Connection>>> {
        match MemberUrl::parse(url.as_str().trim_end_matches('/')) {
            Ok(url) => {
                let opening = self.0.dial(&url);
                Box::pin(async move {
                    let socket = opening.await?;
                    Ok(Box::new(socket) as Box<dyn Connection>)
                })
            }
            Err(error) => {
                Box::pin(async move { Err(io::Error::new(io::ErrorKind::InvalidInput, error)) })
            }
        }
    }
}

impl Peers {
    /// Nobody yet; [`Peers::set_members`] says who there is.
    pub(crate) fn new(
        identity: Identity,
        arrivals: Arrivals,
        dial: Arc<dyn Dial>,
        runtime: tokio::runtime::Handle,
        queue: NodeQueue,
    ) -> Self {
        let Identity { member, cluster, peer_urls, dial_timeout, read_timeout, request_timeout } =
            identity;
        let config =
            transport::Config { local: member, cluster, peer_urls, dial_timeout, read_timeout };
        let dialer = Arc::new(Dialer(dial.clone()));
        let transport = Transport::new(config, Arc::new(arrivals), dialer, runtime.clone());
        let others = Others::new(cluster, Asker::new(dial), runtime.clone(), request_timeout);
        let copies = Arc::default();
        Self { shared: Arc::new(Shared { transport, others, runtime, queue, copies }) }
    }

    /// Asks other members.
    pub(crate) fn others(&self) -> &Others {
        &self.shared.others
    }

    /// Since when another member is reached without a break, if it is.
    pub(crate) fn connected_since(&self, id: MemberId) -> Option<Instant> {
        self.shared.transport.active_since(id)
    }

    /// How long appends to each of them take until the network has them.
    pub(crate) fn latencies(&self) -> Vec<(MemberId, LatencySample)> {
        self.shared.transport.latencies()
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> Arc<transport::Metrics> {
        self.shared.transport.metrics()
    }

    /// Answers a request below `/raft`.
    pub(crate) async fn serve(&self, request: http::Request<Incoming>) -> Response {
        self.shared.transport.handle(request).await.map(Body::new)
    }

    /// Sends messages; never waits.
    pub(crate) fn send(&self, messages: Vec<Message>) {
        if !messages.is_empty() {
            self.shared.transport.send(messages);
        }
    }

    /// Makes these the members.
    pub(crate) fn set_members(&self, members: &[MemberObject]) {
        let members: Vec<_> =
            members.iter().map(|member| (member.id, member.peer_urls.clone())).collect();
        self.shared.transport.set_members(&members);
    }

    /// Makes a copy of the state for a member, elsewhere; the node loop hears of it. `false` if
    /// there are enough under way.
    pub(crate) fn copy_for(&self, to: MemberId, backend: &Backend) -> bool {
        let Some(permit) = CopyPermit::take(&self.shared.copies) else { return false };
        let (queue, backend) = (self.shared.queue.clone(), backend.clone());
        self.shared.runtime.spawn_blocking(move || match Copied::of(&backend, permit) {
            Ok(copied) => queue.copied(to, Some(Box::new(copied))),
            Err(error) => {
                tracing::warn!(
                    to = %to,
                    error = %crate::logging::Chain(&error),
                    "cannot make a copy of the state for a member that lags"
                );
                queue.copied(to, None);
            }
        });
        true
    }

    /// Sends a copy of the state as what `message` announces.
    pub(crate) fn send_snapshot(&self, message: Message, copied: Copied) {
        let _runtime = self.shared.runtime.enter();
        let outgoing = copied.into_outgoing(message);
        self.shared.transport.send_snapshot(outgoing);
    }

    /// Waits until what was sent is on its way, for a moment at most: among it may be what other
    /// members wanted of a leader that ends, passed on to the next.
    pub(crate) fn flush(&self) {
        let began = Instant::now();
        while self.shared.transport.has_waiting() && began.elapsed() < FLUSH_TIME_MAX {
            std::thread::sleep(FLUSH_POLL);
        }
    }

    /// Ends everything between the members.
    pub(crate) fn stop(&self) {
        self.shared.transport.shutdown();
    }
}

/// One of the copies that may be on their way; given back when dropped.
#[derive(Debug)]
pub(crate) struct CopyPermit(Arc<AtomicUsize>);

impl CopyPermit {
    fn take(copies: &Arc<AtomicUsize>) -> Option<Self> {
        let taken = copies.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
            (count < COPIES_MAX).then_some(count + 1)
        });
        taken.ok().map(|_| Self(copies.clone()))
    }
}

impl Drop for CopyPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
