//! Clients that do everything at once to a few keys, and watches on every member.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use history::{Answer, Call};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Cluster;
use super::process::chance;
use super::recorded::RecordedClient;
use super::recorder::Recorder;
use super::watcher::{Habits, Watcher};

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Clients of each member that was up at the beginning.
    pub pinned: usize,
    /// Clients of all members together.
    pub roaming: usize,
    /// Pause between two calls of a client.
    pub pause: Duration,
    /// After which an unanswered call is given up.
    pub timeout: Duration,
    /// How many keys there are.
    pub keys: u32,
    /// Bytes of a value, at least.
    pub value_len: usize,
    /// Whether somebody forgets history now and then.
    pub compacts: bool,
    /// Spares watches two bugs of etcd's older lines: before 3.4.25 an answer about progress may
    /// be ahead of the events, before 3.4.34 and 3.5.16 a compaction loses the deletion at its own
    /// revision.
    pub spares_old_etcd: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            pinned: 1,
            roaming: 2,
            pause: Duration::from_millis(5),
            timeout: Duration::from_secs(2),
            keys: 10,
            value_len: 0,
            compacts: true,
            spares_old_etcd: false,
        }
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) options: LoadOptions,
    pub(crate) watchers: Vec<Watcher>,
    clients: Vec<JoinHandle<()>>,
    /// The newest revision any client saw.
    newest: Arc<AtomicI64>,
    stop: watch::Sender<bool>,
}

/// Compactions stay as far behind.
const HISTORY_KEPT: i64 = 100;

impl Load {
    /// Starts clients of all members that are up.
    ///
    /// # Errors
    ///
    /// There are no members.
    pub async fn start(cluster: &Cluster, options: LoadOptions) -> anyhow::Result<Self> {
        let (stop, _) = watch::channel(false);
        let mut load = Self {
            recorder: Arc::default(),
            options,
            watchers: Vec::new(),
            clients: Vec::new(),
            newest: Arc::new(AtomicI64::new(1)),
            stop,
        };
        for member in cluster.up() {
            load.join(cluster, member).await?;
        }
        for _ in 0..options.roaming {
            load.add_client(cluster, None).await?;
        }
        Ok(load)
    }

    /// Clients and watches of one more member, which is up and has no learner's limits.
    ///
    /// # Errors
    ///
    /// Its address is none.
    pub async fn join(&mut self, cluster: &Cluster, member: usize) -> anyhow::Result<()> {
        for _ in 0..self.options.pinned {
            self.add_client(cluster, Some(member)).await?;
        }
        self.add_watches(cluster, member);
        Ok(())
    }

    /// The history so far.
    #[must_use]
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    fn add_watches(&mut self, cluster: &Cluster, member: usize) {
        let endpoint = cluster.member(member).endpoint();
        let everything = pb::WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: 2,
            prev_kv: true,
            ..Default::default()
        };
        let some = pb::WatchCreateRequest {
            key: Bytes::from_static(b"key1"),
            range_end: Bytes::from_static(b"key5"),
            progress_notify: true,
            ..Default::default()
        };
        let future = pb::WatchCreateRequest {
            key: Bytes::from_static(b"key"),
            range_end: Bytes::from_static(b"kez"),
            start_revision: 200,
            filters: vec![pb::watch_create_request::FilterType::Nodelete as i32],
            ..Default::default()
        };
        for (request, asks) in [(everything, true), (some, false), (future, false)] {
            let habits = Habits {
                asks_progress: asks && !self.options.spares_old_etcd,
                skips_compacted: self.options.spares_old_etcd,
            };
            let recorder = &self.recorder;
            let watcher = Watcher::start(recorder, member, endpoint.to_owned(), request, habits);
            self.watchers.push(watcher);
        }
    }

    async fn add_client(&mut self, cluster: &Cluster, member: Option<usize>) -> anyhow::Result<()> {
        let client = self.client(cluster, member).await?;
        let person = Person {
            client,
            options: self.options,
            random: SmallRng::seed_from_u64(chance()),
            recorder: Arc::clone(&self.recorder),
            newest: Arc::clone(&self.newest),
            lease: 0,
        };
        self.clients.push(tokio::spawn(person.live(self.stop.subscribe())));
        Ok(())
    }

    /// Another client that records here.
    ///
    /// # Errors
    ///
    /// There are no members.
    pub async fn client(
        &self,
        cluster: &Cluster,
        member: Option<usize>,
    ) -> anyhow::Result<RecordedClient> {
        let endpoints = match member {
            Some(member) => vec![cluster.member(member).endpoint().to_owned()],
            None => cluster.endpoints(),
        };
        let (recorder, timeout) = (&self.recorder, self.options.timeout);
        RecordedClient::connect(recorder, cluster.lives(), endpoints, member, timeout).await
    }

    /// Waits until as many more calls were answered.
    ///
    /// # Errors
    ///
    /// They are not in time.
    pub async fn await_answers(&self, cluster: &Cluster, more: usize) -> anyhow::Result<()> {
        let wanted = self.recorder.counts().1 + more;
        let began = std::time::Instant::now();
        while self.recorder.counts().1 < wanted {
            anyhow::ensure!(
                began.elapsed() < super::PATIENCE,
                "only {} of {wanted} answers:\n{}",
                self.recorder.counts().1,
                cluster.logs()
            );
            tokio::time::sleep(super::POLL).await;
        }
        Ok(())
    }

    /// Lets the clients finish their calls; the watches go on.
    pub(crate) async fn stop_clients(&mut self) {
        self.stop.send_replace(true);
        for client in self.clients.drain(..) {
            // A client that panicked has said so.
            client.await.ok();
        }
    }
}

/// One client's habits.
struct Person {
    client: RecordedClient,
    options: LoadOptions,
    random: SmallRng,
    recorder: Arc<Recorder>,
    /// The newest revision any client saw.
    newest: Arc<AtomicI64>,
    /// The lease it holds.
    lease: i64,
}

impl Person {
    async fn live(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let call = self.next();
            let revoked = matches!(call, Call::Revoke(_));
            let answer = self.client.call(call).await;
            if let Some(answer) = &answer {
                self.newest.fetch_max(answer.revision(), Ordering::AcqRel);
            }
            match answer {
                Some(Answer::Grant(grant)) => self.lease = grant.id,
                Some(Answer::KeepAlive(answer)) if answer.ttl <= 0 => self.lease = 0,
                Some(
                    Answer::KeepAlive(_)
                    | Answer::Range(_)
                    | Answer::Put(_)
                    | Answer::Delete(_)
                    | Answer::Txn(_)
                    | Answer::Compact(_)
                    | Answer::Revoke(_)
                    | Answer::TimeToLive(_),
                )
                | None => {}
            }
            if revoked {
                self.lease = 0;
            }
            tokio::time::sleep(self.options.pause).await;
        }
    }

    fn next(&mut self) -> Call {
        match self.random.random_range(0..100) {
            0..35 => Call::Put(self.put()),
            35..60 => Call::Range(self.range()),
            60..68 => Call::Delete(pb::DeleteRangeRequest {
                key: self.key(),
                range_end: Bytes::new(),
                prev_kv: self.random.random_bool(0.5),
            }),
            68..85 => Call::Txn(self.txn()),
            85..87 if self.options.compacts => {
                let newest = self.newest.load(Ordering::Acquire);
                let revision = (newest - HISTORY_KEPT).max(1);
                Call::Compact(pb::CompactionRequest { revision, physical: false })
            }
            85..92 if self.lease == 0 => {
                let ttl = self.random.random_range(2..20);
                let id = i64::try_from(self.recorder.number()).unwrap_or(i64::MAX);
                Call::Grant(pb::LeaseGrantRequest { ttl, id: 1_000_000 + id })
            }
            85..89 if self.lease != 0 => {
                Call::KeepAlive(pb::LeaseKeepAliveRequest { id: self.lease })
            }
            89..91 if self.lease != 0 => {
                let request = pb::LeaseTimeToLiveRequest { id: self.lease, keys: false };
                Call::TimeToLive(request)
            }
            91..92 if self.lease != 0 => Call::Revoke(pb::LeaseRevokeRequest { id: self.lease }),
            _ => Call::Range(self.range()),
        }
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("key{}", self.random.random_range(0..self.options.keys)))
    }

    fn put(&mut self) -> pb::PutRequest {
        let mut value = format!("value{}", self.recorder.number()).into_bytes();
        value.resize(value.len().max(self.options.value_len), b'.');
        pb::PutRequest {
            key: self.key(),
            value: value.into(),
            lease: if self.random.random_bool(0.3) { self.lease } else { 0 },
            prev_kv: self.random.random_bool(0.3),
            ..Default::default()
        }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let mut request = pb::RangeRequest { key: self.key(), ..Default::default() };
        if self.random.random_bool(0.5) {
            request.key = Bytes::from_static(b"key");
            request.range_end = Bytes::from_static(b"kez");
            request.limit = self.random.random_range(0..6);
        }
        request.serializable = self.random.random_bool(0.4);
        if self.random.random_bool(0.1) {
            let newest = self.newest.load(Ordering::Acquire);
            request.revision = (newest - self.random.random_range(0..HISTORY_KEPT * 2)).max(1);
        }
        request
    }

    /// Swaps two keys' owners if the first is as it was guessed.
    fn txn(&mut self) -> pb::TxnRequest {
        use pb::request_op::Request;
        let operation = |request| pb::RequestOp { request: Some(request) };
        let (mut first, mut second) = (self.put(), self.put());
        let number = self.random.random_range(1..self.options.keys);
        first.key = Bytes::from_static(b"key0");
        second.key = Bytes::from(format!("key{number}"));
        let everything = pb::RangeRequest {
            key: Bytes::from_static(b"key"),
            range_end: Bytes::from_static(b"kez"),
            ..Default::default()
        };
        pb::TxnRequest {
            compare: vec![pb::Compare {
                result: CompareResult::Less as i32,
                target: CompareTarget::Version as i32,
                key: second.key.clone(),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::Version(self.random.random_range(1..8))),
            }],
            success: vec![
                operation(Request::RequestPut(first)),
                operation(Request::RequestPut(second.clone())),
            ],
            failure: vec![
                operation(Request::RequestRange(everything)),
                operation(Request::RequestDeleteRange(pb::DeleteRangeRequest {
                    key: second.key,
                    range_end: Bytes::new(),
                    prev_kv: true,
                })),
            ],
        }
    }
}
