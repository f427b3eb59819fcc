//! What the services hold: the one way from a request to consensus and to the state.

mod auth;
mod cluster;
mod error;
mod request;
mod v2;

pub(crate) use auth::Proposed;
pub use error::ProposeError;
pub(crate) use request::RequestKind;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::{ClusterId, MemberId};
use bytes::Bytes;
use member::{Answer, Proposal, RequestIds, Ticket};
use parking_lot::Mutex;
use prost::Message;
use proto::etcdserverpb as pb;
use state::{Applied, Identity, Quota, Reads, Refusal, Reply};
use tokio::sync::watch;

use crate::answers::{Missing, Waiter};
use crate::auth::Authentication;
use crate::metrics::Metrics;
use crate::node_queue::{NodeQueue, Question};
use crate::peers::Peers;
use crate::traces::Trace;
use request::encode;

/// The services' access to the member; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

/// Numbers the services need to know about the member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes an encoded request may have.
    pub(crate) request_bytes_max: usize,
    /// Operations in one transaction.
    pub(crate) txn_ops_max: usize,
    /// How large the database may grow.
    pub(crate) quota: Quota,
    /// How long a request may wait for its answer.
    pub(crate) request_timeout: Duration,
    /// How often an idle watch that wants to know is told how far it is.
    pub(crate) watch_progress_interval: Duration,
    /// How long elections take at least.
    pub(crate) election_timeout: Duration,
    /// Whether changes of the members that may lose the quorum are refused (SRV-082).
    pub(crate) strict_reconfiguration: bool,
    /// Whether the end of a lease may wait behind more entries than other requests (SRV-147).
    pub(crate) urgent_first: bool,
}

#[derive(Debug)]
struct Shared {
    member: MemberId,
    cluster: ClusterId,
    limits: Limits,
    queue: NodeQueue,
    reads: Reads,
    backend: backend::Backend,
    ids: Mutex<RequestIds>,
    status: Arc<Published>,
    compacted: watch::Receiver<i64>,
    metrics: Arc<Metrics>,
    peers: Peers,
    authentication: Authentication,
}

/// What the node loop says about itself; written by it, read by everyone.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) leader: AtomicU64,
    /// When that leader was first seen.
    pub(crate) leader_since: Mutex<Option<Instant>>,
    /// How often a leader was seen to commit in its term, or the members or versions changed.
    pub(crate) news: watch::Sender<u64>,
    pub(crate) term: AtomicU64,
    pub(crate) committed: AtomicU64,
    pub(crate) applied: AtomicU64,
    pub(crate) learner: AtomicBool,
    /// Whether this member alone decides: it leads and there is no other voter.
    pub(crate) alone: AtomicBool,
    pub(crate) pending_proposals: AtomicI64,
    pub(crate) stopped: AtomicBool,
    /// A disk is full: what makes the files grow is refused before it is proposed, since even a
    /// refusal by the alarm would be an entry of the log.
    pub(crate) no_room: AtomicBool,
    /// A member is known that does not survive v2 requests in its log.
    pub(crate) v2_barred: AtomicBool,
}

/// What the node loop last said about itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NodeStatus {
    /// The leader it knows; none is 0.
    pub(crate) leader: MemberId,
    /// The newest term.
    pub(crate) term: u64,
    /// Index of the newest committed entry.
    pub(crate) committed: u64,
    /// Index of the newest applied entry.
    pub(crate) applied: u64,
    /// Whether this member has no vote.
    pub(crate) learner: bool,
}

/// The parts of a handle, as start-up puts them together.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) member: MemberId,
    pub(crate) cluster: ClusterId,
    pub(crate) limits: Limits,
    pub(crate) queue: NodeQueue,
    pub(crate) reads: Reads,
    pub(crate) backend: backend::Backend,
    pub(crate) ids: RequestIds,
    pub(crate) status: Arc<Published>,
    pub(crate) compacted: watch::Receiver<i64>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) peers: Peers,
    pub(crate) authentication: Authentication,
}

/// Committed entries that may wait to be applied before new ones are refused (G-011).
const APPLY_BACKLOG_MAX: u64 = 5000;

/// The same for urgent requests: what ends a lease makes room.
const URGENT_BACKLOG_MAX: u64 = 10_000;

/// Committed entries that a request may find waiting.
fn backlog_max(kind: RequestKind, urgent_first: bool) -> u64 {
    if urgent_first && kind == RequestKind::LeaseRevoke {
        URGENT_BACKLOG_MAX
    } else {
        APPLY_BACKLOG_MAX
    }
}

impl Handle {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            member,
            cluster,
            limits,
            queue,
            reads,
            backend,
            ids,
            status,
            compacted,
            metrics,
            peers,
            authentication,
        } = parts;
        let ids = Mutex::new(ids);
        Self {
            shared: Arc::new(Shared {
                member,
                cluster,
                limits,
                queue,
                reads,
                backend,
                ids,
                status,
                compacted,
                metrics,
                peers,
                authentication,
            }),
        }
    }

    /// Proposes one request, waits until it is applied here, and gives its answer. The request is
    /// encoded once, into the bytes that the log, the network and apply share.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]; after `TimedOut` and `Stopped` the outcome is unknown.
    pub(crate) async fn propose(
        &self,
        kind: RequestKind,
        request: &impl Message,
    ) -> Result<Reply, ProposeError> {
        self.propose_by(Identity::nobody(), kind, request, &Trace::default()).await
    }

    /// As [`Handle::propose`], for somebody whose permissions every member then looks at, as part
    /// of a trace.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose`].
    pub(crate) async fn propose_by(
        &self,
        who: Identity,
        kind: RequestKind,
        request: &impl Message,
        trace: &Trace,
    ) -> Result<Reply, ProposeError> {
        let id = self.next_id();
        self.check_backlog(kind)?;
        let Identity { user: username, revision: auth_revision } = who;
        let header = pb::RequestHeader { id, username, auth_revision };
        let bytes = encode(kind, request, &header);
        self.check_size(&bytes)?;
        trace.event("Send raft proposal");
        let answer = self.propose_bytes(kind, id, bytes).await;
        if matches!(answer, Ok(_) | Err(ProposeError::Refused(_))) {
            trace.event("Receive raft result");
        }
        answer
    }

    fn check_backlog(&self, kind: RequestKind) -> Result<(), ProposeError> {
        let status = &self.shared.status;
        let applied = status.applied.load(Ordering::Relaxed);
        let max = backlog_max(kind, self.shared.limits.urgent_first);
        let behind = applied + max < status.committed.load(Ordering::Relaxed);
        if behind { Err(ProposeError::Overloaded) } else { Ok(()) }
    }

    fn check_size(&self, request: &Bytes) -> Result<(), ProposeError> {
        let too_large = request.len() > self.shared.limits.request_bytes_max;
        if too_large { Err(ProposeError::TooLarge) } else { Ok(()) }
    }

    async fn propose_bytes(
        &self,
        kind: RequestKind,
        id: u64,
        bytes: Bytes,
    ) -> Result<Reply, ProposeError> {
        let ticket = Ticket(id);
        let proposal = Proposal { ticket, request: bytes };
        let began = Instant::now();
        let pending = Pending::new(&self.shared.status.pending_proposals);
        let answer = self.ask(Question::Propose(proposal), ticket).await;
        drop(pending);
        let server = &self.shared.metrics.server;
        let failed = !matches!(answer, Ok(Answer::Applied(_)));
        if failed {
            server.proposals_failed.inc();
        }
        server.on_answered(kind.into(), !failed, began.elapsed());
        applied(answer?)
    }

    /// As [`Handle::propose`], in the form that members before 3.5 understand: a `PUT` of the v2
    /// store (interop 6.3). Only for what is said of the cluster itself.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose`].
    pub(crate) async fn propose_v2(
        &self,
        kind: RequestKind,
        path: String,
        value: String,
    ) -> Result<Reply, ProposeError> {
        let id = self.next_id();
        let request = proto::v2pb::Request {
            id: Some(id),
            method: Some("PUT".to_owned()),
            path: Some(path.into()),
            val: Some(value.into()),
            ..proto::v2pb::Request::default()
        };
        self.propose_bytes(kind, id, request.encode_to_vec().into()).await
    }

    /// Waits until everything that is committed now is applied.
    ///
    /// # Errors
    ///
    /// `ApplyingTooSlow` after a second.
    pub(crate) async fn wait_applied(&self) -> Result<(), ProposeError> {
        let committed = self.status().committed;
        let deadline = Instant::now() + APPLY_TIME_MAX;
        while self.status().applied < committed {
            if deadline < Instant::now() {
                return Err(ProposeError::ApplyingTooSlow);
            }
            tokio::time::sleep(APPLY_POLL).await;
        }
        Ok(())
    }

    /// Refuses a request that would take the database over the quota, after making that known to
    /// all members, and whatever costs something while a disk is full. `cost_bytes` is by
    /// [`state::quota`]. Source: etcd server/etcdserver/api/v3rpc/quota.go.
    ///
    /// # Errors
    ///
    /// `Refused(NoSpace)`.
    pub(crate) async fn admit(&self, cost_bytes: u64) -> Result<(), ProposeError> {
        if self.has_room(cost_bytes) {
            return Ok(());
        }
        if !self.is_out_of_room() && !self.has_raised_no_space() {
            let alarm = pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Activate.into(),
                member_id: self.shared.member.0,
                alarm: pb::AlarmType::Nospace.into(),
            };
            // The request is refused in any case; the next one raises the alarm again.
            drop(self.propose(RequestKind::Alarm, &alarm).await);
        }
        Err(Refusal::NoSpace.into())
    }

    /// Whether a request of this cost may make the database grow.
    fn has_room(&self, cost_bytes: u64) -> bool {
        let size_bytes = self.shared.backend.sizes().total;
        let over_quota = self.shared.limits.quota.is_exceeded(size_bytes, cost_bytes);
        cost_bytes == 0 || !(self.is_out_of_room() || over_quota)
    }

    /// Whether a disk of this member is full.
    fn is_out_of_room(&self) -> bool {
        self.shared.status.no_room.load(Ordering::Relaxed)
    }

    fn has_raised_no_space(&self) -> bool {
        let raised = self.shared.reads.alarms();
        raised.iter().any(|alarm| {
            alarm.member_id == self.shared.member.0 && alarm.alarm() == pb::AlarmType::Nospace
        })
    }

    /// Waits until what this member has applied includes every write acknowledged before the call.
    ///
    /// A member that leads alone has applied every write it acknowledged, so it need not ask
    /// anyone (docs/design/0002).
    ///
    /// # Errors
    ///
    /// As [`Handle::propose`].
    pub(crate) async fn linearize(&self) -> Result<(), ProposeError> {
        if self.shared.status.stopped.load(Ordering::Relaxed) {
            return Err(ProposeError::Stopped);
        }
        if self.shared.status.alone.load(Ordering::Acquire) {
            return Ok(());
        }
        let ticket = Ticket(self.next_id());
        let answer = self.ask(Question::Read(ticket), ticket).await;
        let server = &self.shared.metrics.server;
        match &answer {
            Ok(Answer::Read) => {}
            Err(ProposeError::TimedOut) => server.slow_read_indexes.inc(),
            Ok(_) | Err(_) => server.read_indexes_failed.inc(),
        }
        match answer? {
            Answer::Read => Ok(()),
            Answer::Failed(failure) => Err(failure.into()),
            answer @ (Answer::Applied(_)
            | Answer::Lease(_)
            | Answer::Leases(_)
            | Answer::Transferred) => {
                unreachable!("a read was answered by {answer:?}")
            }
        }
    }

    /// The state, as far as it is applied here.
    #[must_use]
    pub(crate) fn reads(&self) -> &Reads {
        &self.shared.reads
    }

    /// When a request that begins now has taken too long.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.limits.request_timeout
    }

    /// Waits until a compaction up to `revision` has removed its rows (KV-30).
    ///
    /// # Errors
    ///
    /// `Stopped` if the member stops before.
    pub(crate) async fn compacted(&self, revision: i64) -> Result<(), ProposeError> {
        let mut compacted = self.shared.compacted.clone();
        let waited = compacted.wait_for(|done| *done >= revision).await;
        waited.map(|_| ()).map_err(|_| ProposeError::Stopped)
    }

    /// What the node loop last said about itself.
    #[must_use]
    pub(crate) fn status(&self) -> NodeStatus {
        let status = &self.shared.status;
        NodeStatus {
            leader: MemberId(status.leader.load(Ordering::Relaxed)),
            term: status.term.load(Ordering::Relaxed),
            committed: status.committed.load(Ordering::Relaxed),
            applied: status.applied.load(Ordering::Relaxed),
            learner: status.learner.load(Ordering::Relaxed),
        }
    }

    /// How long the leader that this member knows has been known.
    #[must_use]
    pub(crate) fn leader_uptime(&self) -> Option<Duration> {
        self.shared.status.leader_since.lock().map(|since| since.elapsed())
    }

    /// Whether this member leads, as far as it knows.
    #[must_use]
    pub(crate) fn leads(&self) -> bool {
        self.status().leader == self.member_id()
    }

    /// Whether this member has no vote.
    #[must_use]
    pub(crate) fn is_learner(&self) -> bool {
        self.shared.status.learner.load(Ordering::Relaxed)
    }

    /// Requests proposed and not answered yet.
    #[must_use]
    pub(crate) fn pending_proposals(&self) -> i64 {
        self.shared.status.pending_proposals.load(Ordering::Relaxed)
    }

    /// This member.
    #[must_use]
    pub(crate) fn member_id(&self) -> MemberId {
        self.shared.member
    }

    /// Its cluster.
    #[must_use]
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.shared.cluster
    }

    /// Limits of requests.
    #[must_use]
    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// The database, for sizes, copies, defragmentation and the hash of everything.
    #[must_use]
    pub(crate) fn backend(&self) -> &backend::Backend {
        &self.shared.backend
    }

    /// What is counted.
    #[must_use]
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// A fresh request id.
    #[must_use]
    pub(crate) fn next_id(&self) -> u64 {
        self.shared.ids.lock().next_id()
    }

    /// An id for a lease whose client chose none: the proposer does. A request id without its sign
    /// bit is unique and positive.
    #[must_use]
    pub(crate) fn new_lease_id(&self) -> i64 {
        i64::try_from(self.next_id() & (u64::MAX >> 1)).expect("the sign bit is cleared")
    }

    /// A header as of now; `revision` 0 leaves the field out.
    #[must_use]
    pub(crate) fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.shared.cluster.0,
            member_id: self.shared.member.0,
            revision,
            raft_term: self.shared.status.term.load(Ordering::Relaxed),
        }
    }

    /// The other members.
    #[must_use]
    pub(crate) fn peers(&self) -> &Peers {
        &self.shared.peers
    }

    /// Wakes up when the members, a version or the leader may have changed.
    #[must_use]
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.shared.status.news.subscribe()
    }

    async fn ask(&self, question: Question, ticket: Ticket) -> Result<Answer, ProposeError> {
        let (reply, answer) = Waiter::here(self.shared.limits.request_timeout);
        let began = Instant::now();
        self.shared.queue.send(question, ticket, reply)?;
        let mut forgetting = Forgetting { queue: &self.shared.queue, ticket: Some(ticket) };
        let answered = answer.await;
        if !matches!(answered, Err(Missing::Late)) {
            forgetting.ticket = None;
        }
        answered.map_err(|missing| match missing {
            Missing::Late => self.why_timed_out(began),
            Missing::Ended => ProposeError::Stopped,
        })
    }

    /// What a request died of that began then and got no answer (G-012).
    fn why_timed_out(&self, began: Instant) -> ProposeError {
        let leader_since = *self.shared.status.leader_since.lock();
        let elections = 2 * self.shared.limits.election_timeout;
        if leader_since.is_some_and(|since| began < since && since < began + elections) {
            return ProposeError::LeaderFailed;
        }
        let connected = |id: MemberId| {
            let since = self.shared.peers.connected_since(id);
            id == self.member_id() || since.is_some_and(|since| since < began)
        };
        let leader = self.status().leader;
        let lost = if leader == self.member_id() {
            let members = self.reads().members();
            let count = members.iter().filter(|member| connected(MemberId(member.id))).count();
            count <= members.len() / 2
        } else {
            !leader.is_none() && !connected(leader)
        };
        if lost { ProposeError::ConnectionLost } else { ProposeError::TimedOut }
    }
}

/// How long [`Handle::wait_applied`] waits, and how often it looks.
const APPLY_TIME_MAX: Duration = Duration::from_secs(1);
const APPLY_POLL: Duration = Duration::from_millis(2);

/// Lets the node loop forget a caller that went away without its answer.
struct Forgetting<'a> {
    queue: &'a NodeQueue,
    ticket: Option<Ticket>,
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.queue.forget(ticket);
        }
    }
}

/// A proposal without an answer, counted until it is dropped: callers go away while they wait.
struct Pending<'a>(&'a AtomicI64);

impl<'a> Pending<'a> {
    fn new(count: &'a AtomicI64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reply of a request or change that was applied.
fn applied(answer: Answer) -> Result<Reply, ProposeError> {
    match answer {
        Answer::Applied(Applied::Done(reply)) => Ok(reply),
        Answer::Applied(Applied::Refused(refusal)) => Err(refusal.into()),
        Answer::Failed(failure) => Err(failure.into()),
        answer @ (Answer::Read | Answer::Lease(_) | Answer::Leases(_) | Answer::Transferred) => {
            unreachable!("a proposal was answered by {answer:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-147, G-011.
    #[test]
    fn the_end_of_a_lease_may_wait_longer_than_others() {
        assert_eq!(backlog_max(RequestKind::LeaseRevoke, true), 10_000);
        assert_eq!(backlog_max(RequestKind::LeaseRevoke, false), 5000);
        assert_eq!(backlog_max(RequestKind::Put, true), 5000);
    }
}
