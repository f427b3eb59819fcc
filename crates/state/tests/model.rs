//! Random entries against a naive model, and the same entries twice.
//!
//! The model keeps every revision as a whole map and evaluates a transaction on copies, so it
//! shares no shortcut with what it checks.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

extern crate retcd_state as state;

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;
use pb::response_op::Response;
use proptest::prelude::*;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use state::auth::gate::Authorized;
use state::{Applied, Payload, Refusal, Reply};
use support::{Machine, compact, grant, internal_delete, internal_put, internal_txn, revoke};

type Keys = BTreeMap<Bytes, KeyValue>;

#[derive(Clone, Debug)]
enum Command {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(i64),
    Grant(i64, i64),
    Revoke(i64),
}

impl Command {
    fn payload(&self) -> Payload {
        match self {
            Self::Put(request) => internal_put(request.clone()),
            Self::Delete(request) => internal_delete(request.clone()),
            Self::Txn(request) => internal_txn(request.clone()),
            Self::Compact(revision) => compact(*revision),
            Self::Grant(id, ttl) => grant(*id, *ttl),
            Self::Revoke(id) => revoke(*id),
        }
    }
}

#[derive(Debug)]
struct Model {
    /// The keys as of each revision, from 1.
    history: Vec<Keys>,
    compacted: i64,
    leases: BTreeSet<i64>,
}

impl Model {
    fn new() -> Self {
        Self { history: vec![Keys::new(), Keys::new()], compacted: -1, leases: BTreeSet::new() }
    }

    fn revision(&self) -> i64 {
        i64::try_from(self.history.len()).unwrap() - 1
    }

    fn now(&self) -> &Keys {
        self.history.last().unwrap()
    }

    fn at(&self, revision: i64) -> &Keys {
        &self.history[usize::try_from(revision).unwrap()]
    }

    fn apply(&mut self, command: &Command) -> Applied {
        let applied = match command {
            Command::Put(request) => self.one(Request::RequestPut(request.clone())),
            Command::Delete(request) => self.one(Request::RequestDeleteRange(request.clone())),
            Command::Txn(request) => self.txn(request).map(Reply::Txn),
            Command::Compact(at) => self.compact(*at),
            Command::Grant(id, ttl) => self.grant(*id, *ttl),
            Command::Revoke(id) => self.revoke(*id),
        };
        match applied {
            Ok(reply) => Applied::Done(reply),
            Err(refusal) => Applied::Refused(refusal),
        }
    }

    /// A single request is a transaction of one operation.
    fn one(&mut self, request: Request) -> Result<Reply, Refusal> {
        let request = pb::TxnRequest { success: vec![support::op(request)], ..Default::default() };
        let mut response = self.txn(&request)?;
        let reply = match response.responses.pop().unwrap().response.unwrap() {
            Response::ResponsePut(response) => Reply::Put(response),
            Response::ResponseDeleteRange(response) => Reply::Delete(response),
            other @ (Response::ResponseRange(_) | Response::ResponseTxn(_)) => panic!("{other:?}"),
        };
        Ok(reply)
    }

    fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Refusal> {
        let path = self.path(request);
        self.check(&path)?;
        let mut keys = self.now().clone();
        let mut changed = false;
        let mut response = self.execute(&path, &mut keys, &mut changed);
        response.header = header(self.revision() + i64::from(changed));
        if changed {
            self.history.push(keys);
        }
        Ok(response)
    }

    /// The taken operations, each nested transaction replaced by its own taken ones.
    fn path(&self, request: &pb::TxnRequest) -> Taken {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &request.success } else { &request.failure };
        let steps = branch.iter().map(|operation| match operation.request.clone().unwrap() {
            Request::RequestTxn(request) => Step::Nested(self.path(&request)),
            request @ (Request::RequestRange(_)
            | Request::RequestPut(_)
            | Request::RequestDeleteRange(_)) => Step::Plain(request),
        });
        Taken { succeeded, steps: steps.collect() }
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let selected = select(self.now(), &compare.key, &compare.range_end);
        let is_value = compare.target() == CompareTarget::Value;
        if selected.is_empty() {
            return !is_value && relates(compare, &KeyValue::default());
        }
        selected.iter().all(|kv| relates(compare, kv))
    }

    fn check(&self, taken: &Taken) -> Result<(), Refusal> {
        for step in &taken.steps {
            match step {
                Step::Nested(nested) => self.check(nested)?,
                Step::Plain(Request::RequestRange(request)) => {
                    let revision = request.revision;
                    if revision != 0 && self.revision() < revision {
                        return Err(Refusal::FutureRevision);
                    }
                    if revision != 0 && revision < self.compacted {
                        return Err(Refusal::Compacted);
                    }
                }
                Step::Plain(Request::RequestPut(request)) => {
                    if request.lease != 0 && !self.leases.contains(&request.lease) {
                        return Err(Refusal::LeaseNotFound);
                    }
                    let ignores = request.ignore_value || request.ignore_lease;
                    if ignores && !self.now().contains_key(&request.key) {
                        return Err(Refusal::KeyNotFound);
                    }
                }
                Step::Plain(_) => {}
            }
        }
        Ok(())
    }

    fn execute(&self, taken: &Taken, keys: &mut Keys, changed: &mut bool) -> pb::TxnResponse {
        let mut responses = Vec::new();
        for step in &taken.steps {
            let response = match step {
                Step::Nested(nested) => {
                    let response = self.execute(nested, keys, changed);
                    Response::ResponseTxn(response)
                }
                Step::Plain(Request::RequestRange(request)) => {
                    let from =
                        if request.revision > 0 { self.at(request.revision) } else { &*keys };
                    let revision = self.revision() + i64::from(*changed);
                    Response::ResponseRange(range(from, request, revision))
                }
                Step::Plain(Request::RequestPut(request)) => {
                    *changed = true;
                    Response::ResponsePut(put(keys, request, self.revision() + 1))
                }
                Step::Plain(Request::RequestDeleteRange(request)) => {
                    let gone = select(keys, &request.key, &request.range_end);
                    keys.retain(|key, _| !gone.iter().any(|kv| kv.key == key));
                    *changed |= !gone.is_empty();
                    Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                        header: header(self.revision() + i64::from(*changed)),
                        deleted: i64::try_from(gone.len()).unwrap(),
                        prev_kvs: if request.prev_kv { gone } else { Vec::new() },
                    })
                }
                Step::Plain(Request::RequestTxn(_)) => unreachable!("replaced by its path"),
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        let header = Some(pb::ResponseHeader::default());
        pb::TxnResponse { header, succeeded: taken.succeeded, responses }
    }

    fn compact(&mut self, at: i64) -> Result<Reply, Refusal> {
        if at <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if self.revision() < at {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = at;
        Ok(Reply::Compact(pb::CompactionResponse { header: header(self.revision()) }))
    }

    fn grant(&mut self, id: i64, ttl: i64) -> Result<Reply, Refusal> {
        if !self.leases.insert(id) {
            return Err(Refusal::LeaseExists);
        }
        let header = header(self.revision());
        let response = pb::LeaseGrantResponse { header, id, ttl: ttl.max(2), ..Default::default() };
        Ok(Reply::LeaseGrant(response))
    }

    fn revoke(&mut self, id: i64) -> Result<Reply, Refusal> {
        if !self.leases.remove(&id) {
            return Err(Refusal::LeaseNotFound);
        }
        let mut keys = self.now().clone();
        keys.retain(|_, kv| kv.lease != id);
        if keys.len() != self.now().len() {
            self.history.push(keys);
        }
        let response = pb::LeaseRevokeResponse { header: header(self.revision()) };
        Ok(Reply::LeaseRevoke(base::LeaseId(id), response))
    }
}

struct Taken {
    succeeded: bool,
    steps: Vec<Step>,
}

enum Step {
    Plain(Request),
    Nested(Taken),
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn select(keys: &Keys, key: &Bytes, range_end: &Bytes) -> Vec<KeyValue> {
    let wanted = |candidate: &Bytes| match &range_end[..] {
        b"" => candidate == key,
        b"\0" => candidate >= key,
        end => candidate >= key && candidate[..] < *end,
    };
    keys.values().filter(|kv| wanted(&kv.key)).cloned().collect()
}

fn relates(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let ordering = match compare.target_union.as_ref().unwrap() {
        TargetUnion::Version(wanted) => kv.version.cmp(wanted),
        TargetUnion::CreateRevision(wanted) => kv.create_revision.cmp(wanted),
        TargetUnion::ModRevision(wanted) => kv.mod_revision.cmp(wanted),
        TargetUnion::Value(wanted) => kv.value.cmp(wanted),
        TargetUnion::Lease(wanted) => kv.lease.cmp(wanted),
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::NotEqual => ordering.is_ne(),
    }
}

fn put(keys: &mut Keys, request: &pb::PutRequest, main: i64) -> pb::PutResponse {
    let old = keys.get(&request.key).cloned();
    let before = old.clone().unwrap_or_default();
    let row = KeyValue {
        key: request.key.clone(),
        create_revision: old.as_ref().map_or(main, |old| old.create_revision),
        mod_revision: main,
        version: before.version + 1,
        value: if request.ignore_value { before.value } else { request.value.clone() },
        lease: if request.ignore_lease { before.lease } else { request.lease },
    };
    keys.insert(request.key.clone(), row);
    pb::PutResponse { header: header(main), prev_kv: old.filter(|_| request.prev_kv) }
}

fn range(keys: &Keys, request: &pb::RangeRequest, revision: i64) -> pb::RangeResponse {
    let mut kvs = select(keys, &request.key, &request.range_end);
    let count = i64::try_from(kvs.len()).unwrap();
    let header = header(revision);
    if request.count_only {
        return pb::RangeResponse { header, count, ..Default::default() };
    }
    let limit =
        if request.limit > 0 { usize::try_from(request.limit).unwrap() } else { usize::MAX };
    let is_bounded = |bound: i64| bound != 0;
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if request.sort_order() == SortOrder::None && !bounds.into_iter().any(is_bounded) {
        kvs.truncate(limit.saturating_add(1));
    }
    kvs.retain(|kv| {
        (bounds[0] == 0 || kv.mod_revision >= bounds[0])
            && (bounds[1] == 0 || kv.mod_revision <= bounds[1])
            && (bounds[2] == 0 || kv.create_revision >= bounds[2])
            && (bounds[3] == 0 || kv.create_revision <= bounds[3])
    });
    let descending = request.sort_order() == SortOrder::Descend;
    // Insertion sort, one by one in front of the first that must come later.
    let mut sorted: Vec<KeyValue> = Vec::new();
    for kv in kvs {
        let later = |other: &KeyValue| {
            let ordering = match request.sort_target() {
                SortTarget::Key => other.key.cmp(&kv.key),
                SortTarget::Version => other.version.cmp(&kv.version),
                SortTarget::Create => other.create_revision.cmp(&kv.create_revision),
                SortTarget::Mod => other.mod_revision.cmp(&kv.mod_revision),
                SortTarget::Value => other.value.cmp(&kv.value),
            };
            if descending { ordering.is_lt() } else { ordering.is_gt() }
        };
        let at = sorted.iter().position(later).unwrap_or(sorted.len());
        sorted.insert(at, kv);
    }
    let more = sorted.len() > limit;
    sorted.truncate(limit);
    if request.keys_only {
        for kv in &mut sorted {
            kv.value = Bytes::new();
            // The index knows no leases.
            if request.sort_target() != SortTarget::Value {
                kv.lease = 0;
            }
        }
    }
    pb::RangeResponse { header, kvs: sorted, more, count }
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a\0", "b", "c", "d"]).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "", "", "\0", "b", "c", "e"]).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "1", "2", "3"]).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = i64> {
    prop::sample::select(vec![0, 0, 1, 2, 3])
}

fn put_request() -> impl Strategy<Value = pb::PutRequest> {
    (key(), value(), lease(), any::<bool>(), 0..6).prop_map(
        |(key, value, lease, prev_kv, ignore)| {
            let (ignore_value, ignore_lease) = (ignore == 0, ignore == 1);
            pb::PutRequest {
                key,
                value: if ignore_value { Bytes::new() } else { value },
                lease: if ignore_lease { 0 } else { lease },
                prev_kv,
                ignore_value,
                ignore_lease,
            }
        },
    )
}

fn delete_request() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (key(), range_end(), any::<bool>())
        .prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest { key, range_end, prev_kv })
}

fn range_request() -> impl Strategy<Value = pb::RangeRequest> {
    let bound = || prop_oneof![4 => Just(0_i64), 1 => 2_i64..12];
    let shape = (key(), range_end(), 0_i64..4, prop_oneof![3 => Just(0_i64), 1 => -2_i64..15]);
    let sort = (0..3, 0..5, any::<bool>(), prop::bool::weighted(0.1));
    (shape, sort, (bound(), bound(), bound(), bound())).prop_map(|(shape, sort, bounds)| {
        let (key, range_end, limit, revision) = shape;
        let (sort_order, sort_target, keys_only, count_only) = sort;
        pb::RangeRequest {
            key,
            range_end,
            limit,
            revision,
            sort_order,
            sort_target,
            serializable: false,
            keys_only,
            count_only,
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
        }
    })
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    let union = prop_oneof![
        (0_i64..4).prop_map(TargetUnion::Version),
        (0_i64..9).prop_map(TargetUnion::CreateRevision),
        (0_i64..9).prop_map(TargetUnion::ModRevision),
        value().prop_map(TargetUnion::Value),
        lease().prop_map(TargetUnion::Lease),
    ];
    (key(), range_end(), 0..4, union).prop_map(|(key, range_end, result, union)| {
        let target = match union {
            TargetUnion::Version(_) => CompareTarget::Version,
            TargetUnion::CreateRevision(_) => CompareTarget::Create,
            TargetUnion::ModRevision(_) => CompareTarget::Mod,
            TargetUnion::Value(_) => CompareTarget::Value,
            TargetUnion::Lease(_) => CompareTarget::Lease,
        };
        pb::Compare { result, target: target as i32, key, range_end, target_union: Some(union) }
    })
}

/// Also what the check for duplicate keys would refuse: a log may hold it.
fn txn_request() -> impl Strategy<Value = pb::TxnRequest> {
    let plain = prop_oneof![
        3 => put_request().prop_map(Request::RequestPut),
        2 => delete_request().prop_map(Request::RequestDeleteRange),
        2 => range_request().prop_map(Request::RequestRange),
    ];
    let operation = plain.prop_recursive(2, 8, 3, |inner| {
        let branch = || prop::collection::vec(inner.clone().prop_map(support::op), 0..3);
        (prop::collection::vec(compare(), 0..2), branch(), branch()).prop_map(
            |(compare, success, failure)| {
                Request::RequestTxn(pb::TxnRequest { compare, success, failure })
            },
        )
    });
    let operation = operation.prop_map(support::op);
    let branch = prop::collection::vec(operation, 0..5);
    (prop::collection::vec(compare(), 0..3), branch.clone(), branch)
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => put_request().prop_map(Command::Put),
        3 => delete_request().prop_map(Command::Delete),
        6 => txn_request().prop_map(Command::Txn),
        1 => (-1_i64..12).prop_map(Command::Compact),
        2 => (1_i64..4, 0_i64..9).prop_map(|(id, ttl)| Command::Grant(id, ttl)),
        1 => (1_i64..4).prop_map(Command::Revoke),
    ]
}

/// A plain read, which takes a revision that is not positive for none.
fn check_read(machine: &Machine, model: &Model, request: &pb::RangeRequest) {
    let expected = if request.revision > model.revision() {
        Err(Refusal::FutureRevision)
    } else if request.revision > 0 && request.revision < model.compacted {
        Err(Refusal::Compacted)
    } else {
        let from = if request.revision > 0 { model.at(request.revision) } else { model.now() };
        Ok(range(from, request, model.revision()))
    };
    let got = machine.reads().range(Authorized::own(request)).map(|reply| pb::RangeResponse {
        header: header(reply.revision),
        kvs: reply.rows.iter().map(mvcc::Row::decode).collect(),
        more: reply.more,
        count: reply.count,
    });
    assert_eq!(got, expected, "{request:?}");
}

fn check_leases(machine: &Machine, model: &Model) {
    let leases: Vec<_> = machine.reads().leases().into_iter().map(|id| id.0).collect();
    assert_eq!(leases, model.leases.iter().copied().collect::<Vec<_>>());
    for id in &model.leases {
        let attached = model.now().values().filter(|kv| kv.lease == *id).map(|kv| kv.key.clone());
        let lease = machine.reads().lease(base::LeaseId(*id), true).unwrap();
        assert_eq!(lease.keys, attached.collect::<Vec<_>>(), "keys of lease {id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::Direct("tests/model.regressions"),
        )),
        ..ProptestConfig::default()
    })]

    /// KV-01..38, L-01..15: every answer and every read is the model's.
    #[test]
    fn answers_are_those_of_the_model(
        steps in prop::collection::vec((command(), range_request(), prop::bool::weighted(0.1)), 1..30),
    ) {
        let mut machine = Machine::new();
        let mut model = Model::new();
        for (command, read, reopen) in steps {
            let applied = machine.applied(command.payload());
            prop_assert_eq!(applied, model.apply(&command), "{:?}", command);
            if reopen {
                machine.reopen();
            }
            prop_assert_eq!(machine.revision(), model.revision());
            check_read(&machine, &model, &read);
            check_leases(&machine, &model);
        }
    }

    /// G5: the same entries, in batches of other sizes, with and without restarts and upkeep in
    /// between, lead to the same bytes.
    #[test]
    fn members_come_to_the_same_bytes(
        commands in prop::collection::vec(command(), 1..40),
        sizes in prop::collection::vec((1_usize..8, any::<bool>()), 1..10),
    ) {
        let mut one_by_one = Machine::new();
        let expected: Vec<_> =
            commands.iter().map(|command| one_by_one.applied(command.payload())).collect();
        let mut batched = Machine::new();
        let mut got = Vec::new();
        let mut rest = &commands[..];
        for (size, reopen) in sizes.into_iter().cycle() {
            let (batch, behind) = rest.split_at(size.min(rest.len()));
            rest = behind;
            let outcomes = batched.batch(batch.iter().map(Command::payload).collect());
            got.extend(outcomes.into_iter().map(|outcome| outcome.applied));
            if reopen {
                batched.reopen();
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(got, expected);
        for machine in [&mut one_by_one, &mut batched] {
            while machine.state.compact_step().unwrap() != mvcc::CompactStep::Idle {}
        }
        prop_assert_eq!(one_by_one.contents(), batched.contents());
    }

    /// G4: whatever a power cut leaves, the state is that of the applied index it is found with,
    /// and the log behind it leads to the same bytes.
    #[test]
    fn after_a_power_cut_the_log_leads_to_the_same_bytes(
        commands in prop::collection::vec((command(), prop::bool::weighted(0.2)), 1..30),
        seed in any::<u64>(),
    ) {
        let mut machine = Machine::new();
        let mut at_index = vec![Machine::new().contents()];
        let mut durable = 0;
        for (command, commit) in &commands {
            machine.applied(command.payload());
            at_index.push(machine.contents());
            if *commit {
                durable = machine.backend.commit().unwrap().durable.index.0;
            }
        }
        let mut found = machine.after_power_cut(seed);
        let applied = found.state.applied().index.0;
        prop_assert!(durable <= applied, "{durable} was durable, {applied} is applied");
        prop_assert_eq!(&found.contents(), &at_index[usize::try_from(applied).unwrap()]);
        let log = support::log(1, commands.iter().map(|(command, _)| command.payload()));
        found.state.apply(&log, &mut Vec::new()).unwrap();
        prop_assert_eq!(found.contents(), machine.contents());
    }
}
