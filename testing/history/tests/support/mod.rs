//! Good histories from a seed: concurrent clients of a perfect store, in made-up time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::mvccpb::Event;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use retcd_history::{
    Answer, Call, Final, History, Observation, Operation, Outcome, Store, WatchRecord,
};

const CLIENTS: u64 = 6;
const MEMBERS: u64 = 3;
pub const CLUSTER: u64 = 0xc1;
const SECOND: u64 = 1_000_000_000;

/// Something that will happen.
enum Next {
    Begin { client: u64 },
    Effect { index: usize },
    Expire { lease: i64 },
}

/// A perfect cluster with its clients.
pub struct World {
    random: SmallRng,
    now: u64,
    agenda: BTreeMap<(u64, u64), Next>,
    number: u64,
    store: Store,
    /// When each revision happened.
    times: BTreeMap<i64, u64>,
    /// What each member has applied, for serializable reads.
    applied: BTreeMap<u64, i64>,
    leases: BTreeMap<i64, u64>,
    compacted: i64,
    history: History,
    /// How long the answer takes, and whether it gets lost, per operation.
    fates: BTreeMap<usize, (u64, bool)>,
}

/// A history that every judge accepts.
pub fn good(seed: u64, operations: usize) -> History {
    let mut world = World {
        random: SmallRng::seed_from_u64(seed),
        now: 0,
        agenda: BTreeMap::new(),
        number: 0,
        store: Store::new(1, &[]),
        times: BTreeMap::from([(1, 0)]),
        applied: (0..MEMBERS).map(|member| (member, 1)).collect(),
        leases: BTreeMap::new(),
        compacted: 0,
        history: History::default(),
        fates: BTreeMap::new(),
    };
    for client in 0..CLIENTS {
        world.later(client, Next::Begin { client });
    }
    while let Some(((at, _), next)) = world.agenda.pop_first() {
        world.now = at;
        let more = world.history.operations.len() < operations;
        match next {
            Next::Begin { client } if more => world.begin(client),
            Next::Begin { .. } => {}
            Next::Effect { index } => world.effect(index),
            Next::Expire { lease } => world.expire(lease),
        }
    }
    world.finish()
}

impl World {
    fn later(&mut self, delay: u64, next: Next) {
        self.number += 1;
        self.agenda.insert((self.now + delay, self.number), next);
    }

    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        header_of(revision)
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("k{}", self.random.random_range(0..6)))
    }

    fn put(&mut self) -> pb::PutRequest {
        let lease = self.leases.keys().next_back().copied().unwrap_or(0);
        let lease = if self.random.random_bool(0.2) { lease } else { 0 };
        self.number += 1;
        pb::PutRequest {
            key: self.key(),
            value: Bytes::from(format!("v{}", self.number)),
            lease,
            prev_kv: self.random.random_bool(0.5),
            ..Default::default()
        }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let mut request = pb::RangeRequest { key: self.key(), ..Default::default() };
        if self.random.random_bool(0.6) {
            request.key = Bytes::from_static(b"k");
            request.range_end = Bytes::from_static(b"l");
        }
        request.serializable = self.random.random_bool(0.3);
        if !request.serializable && self.random.random_bool(0.2) {
            request.revision = self.random.random_range(1..=self.store.revision());
        }
        request
    }

    fn call(&mut self) -> Call {
        match self.random.random_range(0..100) {
            0..35 => Call::Put(self.put()),
            35..65 => Call::Range(self.range()),
            65..75 => Call::Delete(pb::DeleteRangeRequest {
                key: self.key(),
                range_end: Bytes::new(),
                prev_kv: self.random.random_bool(0.5),
            }),
            75..90 => Call::Txn(self.txn()),
            90..92 => Call::Compact(pb::CompactionRequest {
                revision: (self.store.revision() - 10).max(self.compacted + 1).max(2),
                physical: false,
            }),
            92..96 => {
                let id = i64::try_from(self.history.operations.len()).unwrap() + 1000;
                Call::Grant(pb::LeaseGrantRequest { id, ttl: 1 })
            }
            96..98 => {
                let id = self.leases.keys().next().copied().unwrap_or(1);
                Call::KeepAlive(pb::LeaseKeepAliveRequest { id })
            }
            _ => {
                let id = self.leases.keys().next().copied().unwrap_or(1);
                Call::Revoke(pb::LeaseRevokeRequest { id })
            }
        }
    }

    fn txn(&mut self) -> pb::TxnRequest {
        use pb::request_op::Request;
        let operation = |request| pb::RequestOp { request: Some(request) };
        let key = self.key();
        let pair = self.store.pair(&key, self.store.revision());
        let revision = pair.map_or(0, |pair| pair.mod_revision);
        let mut put = self.put();
        put.key = key.clone();
        let range = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let second = pb::PutRequest {
            key: Bytes::from(format!("{}x", String::from_utf8_lossy(&key))),
            value: put.value.clone(),
            ..Default::default()
        };
        pb::TxnRequest {
            compare: vec![pb::Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key,
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::ModRevision(revision)),
            }],
            success: vec![
                operation(Request::RequestPut(put)),
                operation(Request::RequestPut(second)),
            ],
            failure: vec![operation(Request::RequestRange(range))],
        }
    }

    fn begin(&mut self, client: u64) {
        let index = self.history.operations.len();
        let call = self.call();
        let before = self.random.random_range(1..3_000_000);
        let after = self.random.random_range(1..3_000_000);
        let lost = self.random.random_bool(0.06);
        let happens = !lost || self.random.random_bool(0.5);
        self.history.operations.push(Operation {
            client,
            member: self.random.random_range(0..MEMBERS),
            session: 0,
            invoked: self.now,
            returned: self.now + before + after,
            call,
            outcome: Outcome::Unknown("lost".to_owned()),
        });
        self.fates.insert(index, (after, lost));
        if happens {
            // What got lost may happen long after its client gave up.
            let late = if lost { self.random.random_range(0..20_000_000) } else { 0 };
            self.later(before + late, Next::Effect { index });
        }
        let pause = self.random.random_range(1..2_000_000);
        self.later(before + after + pause, Next::Begin { client });
    }

    fn effect(&mut self, index: usize) {
        let (_, lost) = self.fates[&index];
        let operation = self.history.operations[index].clone();
        let outcome = match &operation.call {
            Call::Range(request) => self.read(request, operation.member),
            Call::Put(request)
                if request.lease != 0 && !self.leases.contains_key(&request.lease) =>
            {
                Outcome::Refused("etcdserver: requested lease not found".to_owned())
            }
            Call::Compact(request) => {
                if request.revision <= self.compacted {
                    let text = "etcdserver: mvcc: required revision has been compacted";
                    Outcome::Refused(text.to_owned())
                } else if request.revision > self.store.revision() {
                    let text = "etcdserver: mvcc: required revision is a future revision";
                    Outcome::Refused(text.to_owned())
                } else {
                    self.compacted = request.revision;
                    let header = self.header(self.store.revision());
                    Outcome::Answered(Answer::Compact(pb::CompactionResponse { header }))
                }
            }
            Call::Grant(request) => {
                self.leases.insert(request.id, self.now + SECOND / 50);
                self.later(SECOND / 50, Next::Expire { lease: request.id });
                let header = self.header(self.store.revision());
                let (id, ttl) = (request.id, 0);
                let response = pb::LeaseGrantResponse { header, id, ttl, ..Default::default() };
                Outcome::Answered(Answer::Grant(response))
            }
            Call::KeepAlive(request) => {
                let id = request.id;
                let alive = self.leases.contains_key(&id);
                let header = self.header(self.store.revision());
                // A second is an age here: this lease does not end in this history.
                let ttl = i64::from(alive) * 5;
                if alive {
                    self.leases.insert(id, u64::MAX);
                }
                let response = pb::LeaseKeepAliveResponse { header, id, ttl };
                Outcome::Answered(Answer::KeepAlive(response))
            }
            Call::Revoke(request) if self.leases.remove(&request.id).is_none() => {
                Outcome::Refused("etcdserver: requested lease not found".to_owned())
            }
            Call::Put(_) | Call::Delete(_) | Call::Txn(_) | Call::Revoke(_) => {
                let leases: BTreeSet<i64> = self.leases.keys().copied().collect();
                if uses_dead_lease(&operation.call, &leases) {
                    Outcome::Refused("etcdserver: requested lease not found".to_owned())
                } else {
                    self.change(&operation.call)
                }
            }
            Call::TimeToLive(_) => unreachable!("not made"),
        };
        // Whoever answers with a revision has it.
        if !matches!(&operation.call, Call::Range(request) if request.serializable) {
            self.applied.insert(operation.member, self.store.revision());
        }
        if !lost {
            self.history.operations[index].outcome = outcome;
        }
    }

    fn change(&mut self, call: &Call) -> Outcome {
        let mut answer = self.store.apply(call).unwrap().answer;
        self.times.entry(self.store.revision()).or_insert(self.now);
        let header = self.header(self.store.revision());
        match &mut answer {
            Answer::Put(response) => response.header = header,
            Answer::Delete(response) => response.header = header,
            Answer::Txn(response) => response.header = header,
            Answer::Revoke(response) => response.header = header,
            other => unreachable!("{other:?}"),
        }
        Outcome::Answered(answer)
    }

    fn read(&mut self, request: &pb::RangeRequest, member: u64) -> Outcome {
        let newest = self.store.revision();
        let applied = self.applied[&member];
        let at =
            if request.serializable { self.random.random_range(applied..=newest) } else { newest };
        self.applied.insert(member, at.max(applied));
        if request.revision != 0 && request.revision < self.compacted {
            let text = "etcdserver: mvcc: required revision has been compacted";
            return Outcome::Refused(text.to_owned());
        }
        let executed = self.store.execute(&Call::Range(request.clone()), at).unwrap();
        let Answer::Range(mut response) = executed.answer else { unreachable!("a range") };
        response.header = self.header(at);
        Outcome::Answered(Answer::Range(response))
    }

    fn expire(&mut self, lease: i64) {
        if self.leases.get(&lease).is_some_and(|until| *until <= self.now) {
            self.leases.remove(&lease);
            self.change(&Call::Revoke(pb::LeaseRevokeRequest { id: lease }));
        }
    }

    fn finish(mut self) -> History {
        let everything = pb::WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: 2,
            prev_kv: true,
            ..Default::default()
        };
        let some = pb::WatchCreateRequest {
            key: Bytes::from_static(b"k1"),
            range_end: Bytes::from_static(b"k4"),
            ..Default::default()
        };
        self.watch(0, everything);
        self.watch(self.now / 3, some);
        let revision = self.store.revision();
        for member in 0..MEMBERS {
            self.history.finals.push(Final {
                member,
                revision,
                hash: 77,
                compact_revision: self.compacted,
                pairs: Some(self.store.pairs(revision)),
            });
        }
        self.history
    }

    fn watch(&mut self, opened: u64, request: pb::WatchCreateRequest) {
        let behind = self.times.values().take_while(|time| **time <= opened).count();
        let header = i64::try_from(behind).unwrap();
        let mut record = WatchRecord { client: 100, opened, request, ..Default::default() };
        let start = record.request.start_revision;
        let start = if start == 0 { header + 1 } else { start };
        let mut now = opened + 1;
        let answer = |received, revision, created, events| Observation {
            received,
            response: pb::WatchResponse {
                header: header_of(revision),
                created,
                events,
                ..Default::default()
            },
        };
        record.observations.push(answer(now, header, true, Vec::new()));
        let mut cursor = start - 1;
        while cursor < self.store.revision() {
            let last = self.store.revision().min(cursor + self.random.random_range(1..4));
            let events: Vec<Event> = self
                .store
                .log(cursor + 1..=last)
                .filter(|(_, event)| record.wants(&event.kv.as_ref().unwrap().key))
                .map(|(_, event)| Event {
                    prev_kv: event.prev_kv.clone().filter(|_| record.request.prev_kv),
                    ..event.clone()
                })
                .collect();
            now = now.max(self.times[&last] + self.random.random_range(0..5_000_000)) + 1;
            cursor = last;
            if cursor < header {
                if events.is_empty() {
                    continue;
                }
                record.observations.push(answer(now, header, false, events));
            } else if !events.is_empty() || self.random.random_bool(0.3) {
                record.observations.push(answer(now, last, false, events));
            }
        }
        record.caught_up = Some(cursor);
        self.history.watches.push(record);
    }
}

fn header_of(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: CLUSTER, member_id: 1, revision, raft_term: 2 })
}

fn uses_dead_lease(call: &Call, leases: &BTreeSet<i64>) -> bool {
    let Call::Txn(txn) = call else { return false };
    txn.success.iter().chain(&txn.failure).any(|operation| match &operation.request {
        Some(pb::request_op::Request::RequestPut(put)) => {
            put.lease != 0 && !leases.contains(&put.lease)
        }
        _ => false,
    })
}
