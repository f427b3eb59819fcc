//! Answering a Range request: which rows are fetched, filtered, sorted and cut, in that order.
//!
//! A read in key order without filters passes stored bytes on and decodes nothing; every other
//! read fetches all rows of the range first. Source: etcd server/etcdserver/txn/range.go.

use std::cmp::Ordering;

use base::KeyRange;
use bytes::Bytes;
use mvcc::{RangeQuery, Row, Want};
use prost::Message as _;
use proto::etcdserverpb::RangeRequest;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::mvccpb::KeyValue;

use crate::RangeReply;
use crate::view::{Stop, View};

/// Answers a request that [`crate::check_range`] accepted. `revision` of the answer is the
/// store's; who reads inside a transaction knows better and replaces it.
pub(crate) fn read(view: &impl View, request: &RangeRequest) -> Result<RangeReply, Stop> {
    let order = Order::of(request);
    let filters = Filters::of(request);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit != 0);
    let result = view.range(&RangeQuery {
        keys: KeyRange::from_wire(request.key.clone(), request.range_end.clone()),
        at: (request.revision > 0).then_some(request.revision),
        limit: fetch_limit(limit, order, request, filters.is_some()),
        want: want(request),
    })?;
    let count = i64::try_from(result.count).expect("a count of keys in memory fits");
    let revision = result.revision;
    if request.count_only {
        return Ok(RangeReply { rows: Vec::new(), more: false, count, revision });
    }
    if order.is_stored() && filters.is_none() && !strips_values(request) {
        let more = limit.is_some_and(|limit| limit < result.count);
        return Ok(RangeReply { rows: result.rows, more, count, revision });
    }
    let mut rows: Vec<(KeyValue, Row)> =
        result.rows.into_iter().map(|row| (row.decode(), row)).collect();
    if let Some(filters) = filters {
        rows.retain(|(kv, _)| filters.accept(kv));
    }
    order.sort(&mut rows);
    let more = limit.is_some_and(|limit| limit < rows.len());
    rows.truncate(limit.unwrap_or(usize::MAX));
    let strip = strips_values(request);
    let rows = rows
        .into_iter()
        .map(|(mut kv, row)| {
            if !strip {
                return row;
            }
            kv.value = Bytes::new();
            Row(kv.encode_to_vec().into())
        })
        .collect();
    Ok(RangeReply { rows, more, count, revision })
}

/// How many rows to fetch. A custom order or a filter needs all of them. An order of `NONE` is
/// taken for the stored one here even if the target is not the key, as etcd does: it sorts the
/// first `limit + 1` rows.
fn fetch_limit(
    limit: Option<usize>,
    order: Order,
    request: &RangeRequest,
    filtered: bool,
) -> Option<usize> {
    if filtered {
        return None;
    }
    if order.is_stored() {
        return limit;
    }
    (request.sort_order() == SortOrder::None)
        .then(|| limit.map(|limit| limit.saturating_add(1)))
        .flatten()
}

fn want(request: &RangeRequest) -> Want {
    if request.count_only {
        Want::Count
    } else if request.keys_only && request.sort_target() != SortTarget::Value {
        Want::Keys
    } else {
        Want::Rows
    }
}

/// Whether values were fetched for sorting alone.
fn strips_values(request: &RangeRequest) -> bool {
    request.keys_only && request.sort_target() == SortTarget::Value
}

/// By what and in which direction rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    target: SortTarget,
    descending: bool,
}

impl Order {
    fn of(request: &RangeRequest) -> Self {
        Self {
            target: request.sort_target(),
            descending: request.sort_order() == SortOrder::Descend,
        }
    }

    /// Whether rows come from the store in this order.
    fn is_stored(self) -> bool {
        self.target == SortTarget::Key && !self.descending
    }

    /// Sorts rows that are in key order. Equal ones stay in key order in both directions.
    fn sort(self, rows: &mut [(KeyValue, Row)]) {
        if self.is_stored() {
            return;
        }
        rows.sort_by(|(left, _), (right, _)| {
            let ascending = self.compare(left, right);
            if self.descending { ascending.reverse() } else { ascending }
        });
    }

    fn compare(self, left: &KeyValue, right: &KeyValue) -> Ordering {
        match self.target {
            SortTarget::Key => left.key.cmp(&right.key),
            SortTarget::Version => left.version.cmp(&right.version),
            SortTarget::Create => left.create_revision.cmp(&right.create_revision),
            SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
            SortTarget::Value => left.value.cmp(&right.value),
        }
    }
}

/// Bounds on revisions, inclusive; 0 is no bound.
#[derive(Clone, Copy, Debug)]
struct Filters {
    mod_min: i64,
    mod_max: i64,
    create_min: i64,
    create_max: i64,
}

impl Filters {
    fn of(request: &RangeRequest) -> Option<Self> {
        let filters = Self {
            mod_min: request.min_mod_revision,
            mod_max: request.max_mod_revision,
            create_min: request.min_create_revision,
            create_max: request.max_create_revision,
        };
        let bounds = [filters.mod_min, filters.mod_max, filters.create_min, filters.create_max];
        bounds.iter().any(|bound| *bound != 0).then_some(filters)
    }

    fn accept(self, kv: &KeyValue) -> bool {
        let within = |value: i64, min: i64, max: i64| {
            (min == 0 || min <= value) && (max == 0 || value <= max)
        };
        within(kv.mod_revision, self.mod_min, self.mod_max)
            && within(kv.create_revision, self.create_min, self.create_max)
    }
}
