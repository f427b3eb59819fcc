//! What is asked of the server: the kinds of workload and the requests they consist of.
//!
//! Not how they are sent (`load.rs`) or measured (`measurement.rs`).
//!
//! Source of the kinds: etcd: tools/benchmark/cmd.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::template::{Template, key_mark, stamp_mark};

pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The kinds of request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One key is written.
    Put,
    /// Like `Put`, with the time of sending in the value, for watchers.
    StampedPut,
    /// Keys are written in order, each once, `batch` in a txn.
    Fill {
        /// Keys per txn.
        batch: u32,
    },
    /// A range of `keys` keys from a random one on.
    Range {
        /// Keys between start and end.
        keys: u32,
        /// Rows in the answer; 0 is all.
        limit: u32,
        /// Answered from the member's own state.
        serializable: bool,
    },
    /// A comparison that holds, and a put.
    Txn,
    /// Gets and puts in a random order.
    Mixed {
        /// How many in a hundred are gets.
        read_percent: u32,
    },
    /// A lease is granted.
    LeaseGrant,
    /// One of the given leases is kept alive, on a stream that stays open.
    LeaseKeepAlive {
        /// The leases.
        leases: Arc<[i64]>,
    },
}

/// A kind with the sizes of its keys and values.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// What is asked.
    pub(crate) kind: Kind,
    /// Bytes of a key.
    pub(crate) key_size: usize,
    /// Bytes of a value.
    pub(crate) value_size: usize,
    /// How many different keys there are.
    pub(crate) key_space: u64,
    /// Keys in order instead of at random.
    pub(crate) sequential: bool,
}

/// Makes the requests of one connection.
#[derive(Debug)]
pub(crate) struct Generator {
    templates: Vec<Prepared>,
    read_percent: u32,
    keys: Keys,
    random: SmallRng,
}

/// One kind of message of a workload.
#[derive(Debug)]
struct Prepared {
    path: &'static str,
    template: Template,
    response_bytes_min: usize,
}

/// How the number of a request's first key is chosen.
#[derive(Debug)]
enum Keys {
    Random { first_max: u64 },
    Ordered { shared: Arc<AtomicU64>, step: u64, first_max: u64 },
}

/// One request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The method.
    pub(crate) path: &'static str,
    /// The encoded message.
    pub(crate) message: &'a [u8],
    /// An answer below this length is wrong: rows are missing.
    pub(crate) response_bytes_min: usize,
}

/// Seconds that leases of the lease workloads live.
pub(crate) const LEASE_SECONDS: i64 = 600;
const VALUE_SEED: u64 = 0x5eed;

impl Workload {
    /// How many requests write every key once.
    pub(crate) fn fill_requests(&self) -> u64 {
        if let Kind::Fill { batch } = self.kind {
            return self.key_space.div_ceil(u64::from(batch));
        }
        self.key_space
    }

    /// Whether requests go over a stream that stays open.
    pub(crate) fn keeps_streams(&self) -> bool {
        matches!(self.kind, Kind::LeaseKeepAlive { .. })
    }

    /// The generator of connection `number`; `shared` numbers the keys of ordered workloads.
    pub(crate) fn generator(&self, number: u64, shared: &Arc<AtomicU64>) -> Generator {
        let read_percent =
            if let Kind::Mixed { read_percent } = self.kind { read_percent } else { 0 };
        let ordered =
            |step: u64, first_max| Keys::Ordered { shared: Arc::clone(shared), step, first_max };
        let last = self.key_space.saturating_sub(1);
        let keys = match &self.kind {
            Kind::Fill { batch } => {
                ordered(u64::from(*batch), self.key_space.saturating_sub(u64::from(*batch)))
            }
            Kind::LeaseKeepAlive { leases } => ordered(1, leases.len() as u64 - 1),
            Kind::Range { keys, .. } => {
                let first_max = self.key_space.saturating_sub(u64::from(*keys));
                if self.sequential { ordered(1, first_max) } else { Keys::Random { first_max } }
            }
            Kind::Put | Kind::StampedPut | Kind::Txn | Kind::Mixed { .. } | Kind::LeaseGrant => {
                if self.sequential {
                    ordered(1, last)
                } else {
                    Keys::Random { first_max: last }
                }
            }
        };
        Generator {
            templates: self.templates(),
            read_percent,
            keys,
            random: SmallRng::seed_from_u64(number),
        }
    }

    fn templates(&self) -> Vec<Prepared> {
        match &self.kind {
            Kind::Put => vec![self.prepare(PUT, &self.put(0), 0)],
            Kind::StampedPut => {
                let mut put = self.put(0);
                let mut value = put.value.to_vec();
                value.truncate(value.len().saturating_sub(stamp_mark().len()));
                put.value = [&stamp_mark()[..], &value].concat().into();
                vec![self.prepare(PUT, &put, 0)]
            }
            Kind::Fill { batch } => {
                let success = (0..*batch).map(|delta| operation(self.put(delta))).collect();
                let txn = TxnRequest { success, ..TxnRequest::default() };
                vec![self.prepare(TXN, &txn, 0)]
            }
            Kind::Range { keys, limit, serializable } => {
                let rows = if *limit == 0 { *keys } else { *limit };
                let range = self.range(*keys, *limit, *serializable);
                vec![self.prepare(RANGE, &range, rows as usize * self.value_size)]
            }
            Kind::Txn => {
                // A version is never below zero, so the comparison costs what it costs and holds.
                let compare = Compare {
                    result: CompareResult::Greater.into(),
                    target: CompareTarget::Version.into(),
                    key: key_mark(self.key_size, 0).into(),
                    target_union: Some(TargetUnion::Version(-1)),
                    ..Compare::default()
                };
                let success = vec![operation(self.put(0))];
                let txn = TxnRequest { compare: vec![compare], success, failure: Vec::new() };
                vec![self.prepare(TXN, &txn, 0)]
            }
            Kind::Mixed { .. } => vec![
                self.prepare(PUT, &self.put(0), 0),
                self.prepare(RANGE, &self.range(1, 0, false), self.value_size),
            ],
            Kind::LeaseGrant => {
                let grant = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
                vec![self.prepare(LEASE_GRANT, &grant, 0)]
            }
            Kind::LeaseKeepAlive { leases } => leases
                .iter()
                .map(|id| self.prepare(LEASE_KEEP_ALIVE, &LeaseKeepAliveRequest { id: *id }, 0))
                .collect(),
        }
    }

    fn prepare(&self, path: &'static str, message: &impl Message, rows: usize) -> Prepared {
        let template = Template::new(message.encode_to_vec(), self.key_size);
        Prepared { path, template, response_bytes_min: rows }
    }

    fn put(&self, delta: u32) -> PutRequest {
        PutRequest {
            key: key_mark(self.key_size, delta).into(),
            value: value(self.value_size),
            ..PutRequest::default()
        }
    }

    fn range(&self, keys: u32, limit: u32, serializable: bool) -> RangeRequest {
        let single = keys == 1;
        let end = if single { Vec::new() } else { key_mark(self.key_size, keys) };
        RangeRequest {
            key: key_mark(self.key_size, 0).into(),
            range_end: end.into(),
            limit: i64::from(limit),
            serializable,
            ..RangeRequest::default()
        }
    }
}

impl Generator {
    /// The next request. `stamp` is the time that stamped values carry.
    pub(crate) fn next(&mut self, stamp: u64) -> Request<'_> {
        let number = match &self.keys {
            Keys::Random { first_max } => self.random.random_range(0..=*first_max),
            Keys::Ordered { shared, step, first_max } => {
                let number = shared.fetch_add(*step, Ordering::Relaxed);
                // The last batch of a fill overlaps the one before; other orders start again.
                if *step > 1 { number.min(*first_max) } else { number % (first_max + 1) }
            }
        };
        let which = if self.read_percent > 0 {
            usize::from(self.random.random_range(0..100) < self.read_percent)
        } else if self.templates.len() > 1 {
            usize::try_from(number).expect("one of the leases")
        } else {
            0
        };
        let prepared = &mut self.templates[which];
        Request {
            path: prepared.path,
            message: prepared.template.fill(number, stamp),
            response_bytes_min: prepared.response_bytes_min,
        }
    }

    /// Whether requests carry the time of their sending.
    pub(crate) fn is_stamped(&self) -> bool {
        self.templates[0].template.has_stamp()
    }
}

/// Letters and digits in a random order, the same for every run: not compressible, and free of
/// the bytes that mark places in templates.
fn value(len: usize) -> Bytes {
    let mut random = SmallRng::seed_from_u64(VALUE_SEED);
    (0..len).map(|_| random.sample(rand::distr::Alphanumeric)).collect()
}

fn operation(put: PutRequest) -> RequestOp {
    RequestOp { request: Some(Operation::RequestPut(put)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{key, stamp};

    fn workload(kind: Kind) -> Workload {
        Workload { kind, key_size: 16, value_size: 32, key_space: 10, sequential: false }
    }

    fn generator(kind: Kind) -> Generator {
        workload(kind).generator(1, &Arc::default())
    }

    #[test]
    fn random_puts_stay_in_the_key_space() {
        let mut generator = generator(Kind::Put);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let request = generator.next(0);
            let put = PutRequest::decode(request.message).unwrap();
            assert_eq!((request.path, put.value.len()), (PUT, 32));
            seen.insert(put.key);
        }
        let all: Vec<_> = (0..10).map(|number| Bytes::from(key(16, number))).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
    }

    #[test]
    fn fill_writes_every_key_with_the_last_batch_overlapping() {
        let workload = workload(Kind::Fill { batch: 4 });
        let mut generator = workload.generator(0, &Arc::default());
        assert_eq!(workload.fill_requests(), 3);
        let mut starts = Vec::new();
        for _ in 0..3 {
            let txn = TxnRequest::decode(generator.next(0).message).unwrap();
            assert_eq!(txn.success.len(), 4);
            let Some(Operation::RequestPut(put)) = &txn.success[0].request else { panic!() };
            starts.push(put.key.clone());
        }
        assert_eq!(starts, [key(16, 0), key(16, 4), key(16, 6)]);
    }

    #[test]
    fn ranges_expect_their_rows() {
        let mut generator = generator(Kind::Range { keys: 10, limit: 3, serializable: true });
        let request = generator.next(0);
        assert_eq!(request.response_bytes_min, 3 * 32);
        let range = RangeRequest::decode(request.message).unwrap();
        assert_eq!((&range.key[..], range.limit), (&key(16, 0)[..], 3));
        assert_eq!(&range.range_end[..], &key(16, 10)[..]);
        assert!(range.serializable);
    }

    #[test]
    fn mixed_share_of_reads_is_as_asked() {
        let mut generator = generator(Kind::Mixed { read_percent: 90 });
        let reads = (0..2000).filter(|_| generator.next(0).path == RANGE).count();
        assert!((1720..1880).contains(&reads), "{reads}");
    }

    #[test]
    fn stamped_value_keeps_its_size() {
        let mut generator = generator(Kind::StampedPut);
        assert!(generator.is_stamped());
        let put = PutRequest::decode(generator.next(123).message).unwrap();
        assert_eq!((put.value.len(), stamp(&put.value)), (32, Some(123)));
    }

    #[test]
    fn keep_alives_take_the_leases_in_turn() {
        let mut generator = generator(Kind::LeaseKeepAlive { leases: [7, 8].into() });
        let ids = [0; 3]
            .map(|stamp| LeaseKeepAliveRequest::decode(generator.next(stamp).message).unwrap().id);
        assert_eq!(ids, [7, 8, 7]);
    }
}
