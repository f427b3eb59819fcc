//! The same random requests to two servers; every response is compared.
//!
//! A sequence comes from a seed. Ids, terms and times are taken out of the responses, everything
//! else must be equal, errors with code and text. Watches run beside the requests; at the end of a
//! sequence the events each delivered must be the same, however they were grouped.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{self as pb, compare, request_op, response_op};
use proto::mvccpb::Event;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// How long one answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Clients of one server.
#[derive(Clone, Debug)]
pub struct Side {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

/// A request of a sequence.
#[derive(Clone, Debug)]
enum Call {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    TimeToLive(pb::LeaseTimeToLiveRequest),
    HashKv(pb::HashKvRequest),
}

/// What a server said, without what may differ.
type Answer = Result<String, String>;

impl Side {
    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect().await?;
        let unlimited = usize::MAX;
        Ok(Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(unlimited),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(unlimited),
            maintenance: MaintenanceClient::new(channel),
        })
    }

    async fn ask(&mut self, call: Call) -> anyhow::Result<Answer> {
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, self.answer(call.clone())).await;
        answer.with_context(|| format!("no answer to {call:?}"))
    }

    async fn answer(&mut self, call: Call) -> Answer {
        match call {
            Call::Range(request) => show(self.kv.range(request).await, |r| clean(&mut r.header)),
            Call::Put(request) => show(self.kv.put(request).await, |r| clean(&mut r.header)),
            Call::Delete(request) => {
                show(self.kv.delete_range(request).await, |r| clean(&mut r.header))
            }
            Call::Txn(request) => show(self.kv.txn(request).await, |r| {
                clean(&mut r.header);
                r.responses.iter_mut().for_each(clean_inner);
            }),
            Call::Compact(request) => {
                show(self.kv.compact(request).await, |r| clean(&mut r.header))
            }
            Call::Grant(request) => {
                show(self.lease.lease_grant(request).await, |r| clean(&mut r.header))
            }
            Call::Revoke(request) => {
                show(self.lease.lease_revoke(request).await, |r| clean(&mut r.header))
            }
            Call::TimeToLive(request) => show(self.lease.lease_time_to_live(request).await, |r| {
                clean(&mut r.header);
                r.ttl = r.ttl.signum();
                // Go gives them in any order.
                r.keys.sort();
            }),
            Call::HashKv(request) => show(self.maintenance.hash_kv(request).await, |r| {
                clean(&mut r.header);
                // A field of 3.6.
                r.hash_revision = 0;
            }),
        }
    }

    /// The newest revision.
    ///
    /// # Errors
    ///
    /// The server's.
    pub async fn revision(&mut self) -> anyhow::Result<i64> {
        let request = pb::RangeRequest { key: Bytes::from_static(b"x"), ..Default::default() };
        let header = self.kv.range(request).await?.into_inner().header;
        Ok(header.context("an answer has a header")?.revision)
    }
}

fn show<R: std::fmt::Debug>(
    answer: Result<tonic::Response<R>, Status>,
    clean: impl FnOnce(&mut R),
) -> Answer {
    match answer {
        Ok(response) => {
            let mut response = response.into_inner();
            clean(&mut response);
            Ok(format!("{response:?}"))
        }
        Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
    }
}

fn clean(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    }
}

fn clean_inner(response: &mut pb::ResponseOp) {
    if let Some(response_op::Response::ResponseTxn(txn)) = &mut response.response {
        clean(&mut txn.header);
        txn.responses.iter_mut().for_each(clean_inner);
    }
}

/// What sequences are made of.
#[derive(Debug)]
struct Maker {
    random: SmallRng,
    revision: i64,
    compacted: i64,
    lease_base: i64,
    /// Whether the sequence asks for hashes; then its compactions wait for their rows to go.
    hashes: bool,
    /// Whether the sequence compacts; otherwise it watches history.
    compacts: bool,
}

/// Keys are few, so that everything meets everything.
const KEYS: [&[u8]; 10] =
    [b"a", b"aa", b"ab", b"b", b"c", b"d\0", b"d\0\0", b"e", b"\xff", b"\xff\xff"];

const LEASES: i64 = 4;

impl Maker {
    fn key(&mut self) -> Bytes {
        Bytes::from_static(KEYS[self.random.random_range(0..KEYS.len())])
    }

    fn range_end(&mut self, key: &Bytes) -> Bytes {
        match self.random.random_range(0..6) {
            0..3 => Bytes::new(),
            3 => Bytes::from_static(b"\0"),
            4 => self.key(),
            _ => {
                let mut end = key.to_vec();
                let last = end.last_mut().expect("keys are not empty");
                *last = last.saturating_add(1);
                end.into()
            }
        }
    }

    fn value(&mut self) -> Bytes {
        let len = self.random.random_range(0..20);
        (0..len).map(|_| self.random.random_range(b'a'..=b'z')).collect()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn lease(&mut self) -> i64 {
        self.lease_base + self.random.random_range(1..=LEASES)
    }

    fn some_revision(&mut self) -> i64 {
        self.random.random_range(self.compacted.saturating_sub(2)..=self.revision + 2)
    }

    fn range(&mut self) -> pb::RangeRequest {
        let key = if self.chance(2) { Bytes::new() } else { self.key() };
        let range_end = if key.is_empty() { Bytes::new() } else { self.range_end(&key) };
        let mut request = pb::RangeRequest { key, range_end, ..Default::default() };
        if self.chance(30) {
            request.limit = self.random.random_range(0..5);
        }
        if self.chance(25) {
            request.revision = self.some_revision();
        }
        if self.chance(30) {
            request.sort_order = self.random.random_range(0..3);
            request.sort_target = self.random.random_range(0..5);
        }
        request.serializable = self.chance(30);
        request.count_only = self.chance(10);
        if self.chance(10) {
            request.min_mod_revision = self.some_revision().max(0);
        }
        if self.chance(10) {
            request.max_create_revision = self.some_revision().max(0);
        }
        request
    }

    fn put(&mut self) -> pb::PutRequest {
        let mut request =
            pb::PutRequest { key: self.key(), value: self.value(), ..Default::default() };
        if self.chance(25) {
            request.lease = self.lease();
        }
        request.prev_kv = self.chance(30);
        if self.chance(8) {
            request.ignore_value = true;
            // With both the lease and the key missing, 3.5 names the key inside a txn and 3.7, as
            // we do, the lease.
            request.lease = 0;
            if self.chance(90) {
                request.value = Bytes::new();
            }
        }
        if self.chance(8) {
            request.ignore_lease = true;
            if self.chance(90) {
                request.lease = 0;
            }
        }
        if self.chance(1) {
            request.key = Bytes::new();
        }
        request
    }

    /// `in_txn`: not to the last key. 3.5 and 3.7 do not notice when such a deletion and a put of
    /// the same transaction meet; a compaction there then loses the put's row, and the first read
    /// of it ends the process (etcd: mvcc/key_index.go, `doCompact`).
    fn delete(&mut self, in_txn: bool) -> pb::DeleteRangeRequest {
        let key = self.key();
        let mut range_end = self.range_end(&key);
        if in_txn && range_end[..] == [0] {
            range_end = Bytes::new();
        }
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.chance(40) }
    }

    fn compare(&mut self) -> pb::Compare {
        let key = self.key();
        let range_end = if self.chance(20) { self.range_end(&key) } else { Bytes::new() };
        let number = self.random.random_range(0..4);
        let revision = self.some_revision();
        let target = self.random.random_range(0..5);
        let target_union = match target {
            0 => compare::TargetUnion::Version(number),
            1 => compare::TargetUnion::CreateRevision(if self.chance(50) { 0 } else { revision }),
            2 => compare::TargetUnion::ModRevision(if self.chance(50) { 0 } else { revision }),
            3 => compare::TargetUnion::Value(self.value()),
            _ => compare::TargetUnion::Lease(if self.chance(50) { 0 } else { self.lease() }),
        };
        pb::Compare {
            result: self.random.random_range(0..4),
            target,
            key,
            range_end,
            target_union: Some(target_union),
        }
    }

    fn ops(&mut self, depth: usize) -> Vec<pb::RequestOp> {
        let count = self.random.random_range(0..4);
        let mut ops = Vec::new();
        for _ in 0..count {
            let request = match self.random.random_range(0..10) {
                0..4 => request_op::Request::RequestPut(self.put()),
                4..6 => request_op::Request::RequestDeleteRange(self.delete(true)),
                6 if depth < 2 => request_op::Request::RequestTxn(self.txn(depth + 1)),
                _ => request_op::Request::RequestRange(self.range()),
            };
            ops.push(pb::RequestOp { request: Some(request) });
        }
        ops
    }

    fn txn(&mut self, depth: usize) -> pb::TxnRequest {
        let compares = self.random.random_range(0..3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn call(&mut self) -> Call {
        match self.random.random_range(0..100) {
            0..25 => Call::Range(self.range()),
            25..55 => Call::Put(self.put()),
            55..65 => Call::Delete(self.delete(false)),
            65..85 => Call::Txn(self.txn(0)),
            85..88 => {
                if !self.compacts {
                    return Call::Range(self.range());
                }
                // After a compaction at 0, etcd answers for ever with its hash when asked for the
                // newest one; that is not worth copying.
                let revision = self.some_revision().max(1);
                Call::Compact(pb::CompactionRequest { revision, physical: self.hashes })
            }
            88..92 => Call::Grant(pb::LeaseGrantRequest { ttl: 100_000, id: self.lease() }),
            92..95 => Call::Revoke(pb::LeaseRevokeRequest { id: self.lease() }),
            95..97 => Call::TimeToLive(pb::LeaseTimeToLiveRequest { id: self.lease(), keys: true }),
            // What a hash covers depends on whether the last compaction has removed its rows.
            _ if !self.hashes => Call::Range(self.range()),
            _ => {
                let revision = if self.chance(50) { 0 } else { self.some_revision().max(0) };
                Call::HashKv(pb::HashKvRequest { revision })
            }
        }
    }
}

/// A watch that runs beside a sequence.
struct Watching {
    // Closing the request side would end the stream.
    _requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watching {
    async fn begin(side: &mut Side, creates: &[pb::WatchCreateRequest]) -> anyhow::Result<Self> {
        let (requests, stream) = mpsc::channel(creates.len().max(1));
        for create in creates {
            let union = RequestUnion::CreateRequest(create.clone());
            requests.send(pb::WatchRequest { request_union: Some(union) }).await?;
        }
        let answers = side.watch.watch(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { _requests: requests, answers })
    }

    /// Everything each watch was told, until the first one, which watches the closing key, has
    /// seen it and `ended` others have said so too.
    async fn collect(mut self, watches: usize, last: i64) -> anyhow::Result<Vec<Told>> {
        let mut told: Vec<Told> = (0..watches).map(|_| Told::default()).collect();
        let mut open = watches;
        while open > 0 {
            let next = tokio::time::timeout(ANSWER_TIME_MAX, self.answers.message()).await;
            let Ok(next) = next else { bail!("watches did not reach {last}: {told:?}") };
            let response = next?.context("the stream goes on")?;
            let id = usize::try_from(response.watch_id).context("watches have an id")?;
            let told = &mut told[id];
            if response.canceled {
                told.canceled = Some((response.compact_revision, response.cancel_reason));
                open -= 1;
            }
            for event in response.events {
                let closing = event.kv.as_ref().is_some_and(|kv| kv.mod_revision == last);
                told.events.push(event);
                open -= usize::from(closing);
            }
        }
        Ok(told)
    }
}

/// What one watch delivered.
#[derive(Debug, Default, PartialEq)]
struct Told {
    events: Vec<Event>,
    canceled: Option<(i64, String)>,
}

/// Runs one sequence of `calls` requests against both; an error tells where they differ.
///
/// # Errors
///
/// A difference, or a server that does not answer.
pub async fn run(left: &mut Side, right: &mut Side, seed: u64, calls: usize) -> anyhow::Result<()> {
    let revision = left.revision().await?;
    anyhow::ensure!(revision == right.revision().await?, "they begin at different revisions");
    let lease_base = i64::try_from(seed % (1 << 40)).context("40 bits fit")? * 16 + 16;
    let random = SmallRng::seed_from_u64(seed);
    let mut maker = Maker {
        random,
        revision,
        compacted: revision,
        lease_base,
        hashes: seed.is_multiple_of(2),
        compacts: !seed.is_multiple_of(3),
    };
    let watches: Vec<pb::WatchCreateRequest> =
        (0..4).map(|_| watch(&mut maker, revision)).collect();
    let watching =
        (Watching::begin(left, &watches).await?, Watching::begin(right, &watches).await?);
    for number in 0..calls {
        let call = maker.call();
        let answers = (left.ask(call.clone()).await?, right.ask(call.clone()).await?);
        if answers.0 != answers.1 && !same_refusal(&call, &answers) {
            bail!(
                "seed {seed}, call {number}: {call:?}\n left: {:?}\nright: {:?}",
                answers.0,
                answers.1
            );
        }
        if let (Call::Compact(compact), Ok(_)) = (&call, &answers.0) {
            maker.compacted = maker.compacted.max(compact.revision);
        }
        maker.revision = left.revision().await?;
    }
    close(left, right, watching, watches.len(), seed).await
}

/// A transaction in which several operations cannot be done is refused for one of them: 3.5 looks
/// at its puts before its ranges, 3.7 and we go in order.
fn same_refusal(call: &Call, answers: &(Answer, Answer)) -> bool {
    const CHECKS: [&str; 4] = [
        "InvalidArgument: etcdserver: key not found",
        "NotFound: etcdserver: requested lease not found",
        "OutOfRange: etcdserver: mvcc: required revision has been compacted",
        "OutOfRange: etcdserver: mvcc: required revision is a future revision",
    ];
    let is_check = |answer: &Answer| matches!(answer, Err(text) if CHECKS.contains(&text.as_str()));
    matches!(call, Call::Txn(_)) && is_check(&answers.0) && is_check(&answers.1)
}

/// Every watch covers the closing key, so that its end can be seen.
fn watch(maker: &mut Maker, revision: i64) -> pb::WatchCreateRequest {
    let filters = match maker.random.random_range(0..4) {
        0 => vec![pb::watch_create_request::FilterType::Nodelete as i32],
        _ => Vec::new(),
    };
    pb::WatchCreateRequest {
        key: maker.key(),
        range_end: Bytes::from_static(b"\0"),
        start_revision: match maker.random.random_range(0..4) {
            0 | 1 => 0,
            2 => revision + 1,
            // History, and perhaps some of it compacted; but none while the watch catches up.
            _ if maker.compacts => revision + 1,
            _ => (revision - maker.random.random_range(0..30)).max(1),
        },
        prev_kv: maker.chance(50),
        filters,
        ..Default::default()
    }
}

async fn close(
    left: &mut Side,
    right: &mut Side,
    watching: (Watching, Watching),
    watches: usize,
    seed: u64,
) -> anyhow::Result<()> {
    let closing = Call::Put(pb::PutRequest {
        key: Bytes::from_static(b"\xff\xff\xff"),
        value: Bytes::from(seed.to_string()),
        ..Default::default()
    });
    let answers = (left.ask(closing.clone()).await?, right.ask(closing).await?);
    anyhow::ensure!(answers.0 == answers.1, "seed {seed}: closing: {answers:?}");
    let last = left.revision().await?;
    let told = (
        watching.0.collect(watches, last).await.context("left")?,
        watching.1.collect(watches, last).await.context("right")?,
    );
    for (id, (left, right)) in told.0.iter().zip(&told.1).enumerate() {
        if left != right {
            bail!("seed {seed}, watch {id}:\n left: {left:?}\nright: {right:?}");
        }
    }
    Ok(())
}
