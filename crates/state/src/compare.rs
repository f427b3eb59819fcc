//! Whether a transaction's condition holds.
//!
//! Source: etcd server/etcdserver/txn/txn.go.

use std::cmp::Ordering;

use base::KeyRange;
use mvcc::{RangeQuery, Want};
use proto::etcdserverpb::Compare;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::mvccpb::KeyValue;

use crate::view::{Stop, View};

/// Whether every condition holds; the first that does not ends the search. Each is one range, which
/// `ranges` counts.
pub(crate) fn all_hold(
    view: &impl View,
    compares: &[Compare],
    ranges: &mut u64,
) -> Result<bool, Stop> {
    for compare in compares {
        *ranges += 1;
        if !holds(view, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A range compare holds if it holds for every key. A missing key counts as zero, except that no
/// value equals, exceeds or differs from a missing one.
fn holds(view: &impl View, compare: &Compare) -> Result<bool, Stop> {
    // A number that this release does not know compares as equal, as in etcd.
    let target = CompareTarget::try_from(compare.target).ok();
    let result = view.range(&RangeQuery {
        keys: KeyRange::from_wire(compare.key.clone(), compare.range_end.clone()),
        at: None,
        limit: None,
        want: want(target),
    })?;
    if result.rows.is_empty() {
        let missing = KeyValue::default();
        return Ok(target != Some(CompareTarget::Value) && matches(compare, target, &missing));
    }
    Ok(result.rows.iter().all(|row| matches(compare, target, &row.decode())))
}

/// Revisions and versions are in the index; the rest needs the row.
fn want(target: Option<CompareTarget>) -> Want {
    match target {
        Some(CompareTarget::Value | CompareTarget::Lease) => Want::Rows,
        Some(CompareTarget::Version | CompareTarget::Create | CompareTarget::Mod) | None => {
            Want::Keys
        }
    }
}

fn matches(compare: &Compare, target: Option<CompareTarget>, kv: &KeyValue) -> bool {
    let ordering = order(compare.target_union.as_ref(), target, kv);
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering == Ordering::Equal,
        Ok(CompareResult::NotEqual) => ordering != Ordering::Equal,
        Ok(CompareResult::Greater) => ordering == Ordering::Greater,
        Ok(CompareResult::Less) => ordering == Ordering::Less,
        Err(_) => true,
    }
}

/// The key's field against the wanted one. A wanted value of another target's type is zero.
fn order(wanted: Option<&TargetUnion>, target: Option<CompareTarget>, kv: &KeyValue) -> Ordering {
    match target {
        Some(CompareTarget::Value) => {
            let value = if let Some(TargetUnion::Value(value)) = wanted { &value[..] } else { &[] };
            kv.value[..].cmp(value)
        }
        Some(CompareTarget::Version) => {
            let Some(TargetUnion::Version(version)) = wanted else { return kv.version.cmp(&0) };
            kv.version.cmp(version)
        }
        Some(CompareTarget::Create) => {
            let Some(TargetUnion::CreateRevision(revision)) = wanted else {
                return kv.create_revision.cmp(&0);
            };
            kv.create_revision.cmp(revision)
        }
        Some(CompareTarget::Mod) => {
            let Some(TargetUnion::ModRevision(revision)) = wanted else {
                return kv.mod_revision.cmp(&0);
            };
            kv.mod_revision.cmp(revision)
        }
        Some(CompareTarget::Lease) => {
            let Some(TargetUnion::Lease(lease)) = wanted else { return kv.lease.cmp(&0) };
            kv.lease.cmp(lease)
        }
        None => Ordering::Equal,
    }
}
