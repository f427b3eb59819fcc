//! The union of what several permissions allow, for one kind of access of one user.
//!
//! Two permissions that overlap or touch cover a requested range together. A key is compared
//! as bytes; the empty key is none and is never covered.
//!
//! Source: etcd: server/auth/range_perm_cache.go, pkg/adt/interval_tree.go.

use bytes::Bytes;
use proto::authpb::Permission;

use super::tree::Tree;

/// Where a range ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Before this key.
    Before(Bytes),
    /// Behind the last key there can be.
    Never,
}

impl End {
    /// Reads the pair as permissions and requests are written.
    fn of(key: &Bytes, range_end: &Bytes) -> Self {
        match &range_end[..] {
            [] => Self::Before([&key[..], &[0]].concat().into()),
            [0] => Self::Never,
            _ => Self::Before(range_end.clone()),
        }
    }

    pub(super) fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < &end[..],
            Self::Never => true,
        }
    }
}

/// One range that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) start: Bytes,
    pub(super) end: End,
}

/// What is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Disjoint and not touching, in order.
    merged: Vec<Range>,
    /// As granted.
    granted: Tree,
}

impl Ranges {
    /// The union of permissions, whatever their kind.
    pub(crate) fn union<'p>(permissions: impl Iterator<Item = &'p Permission>) -> Self {
        let mut ranges: Vec<Range> = permissions.filter_map(range).collect();
        let mut granted = Tree::default();
        for range in &ranges {
            granted.insert(range.clone());
        }
        ranges.sort_unstable();
        let mut merged: Vec<Range> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.end.is_behind(&range.start) || touches(last, &range) => {
                    last.end = last.end.clone().max(range.end);
                }
                Some(_) | None => merged.push(range),
            }
        }
        Self { merged, granted }
    }

    /// Whether everything that `key` and `range_end` of a request name is allowed.
    pub(crate) fn cover(&self, key: &Bytes, range_end: &Bytes) -> bool {
        if key.is_empty() {
            return false;
        }
        let end = End::of(key, range_end);
        if !end.is_behind(key) {
            return self.cover_inverted(key, &end);
        }
        let after = self.merged.partition_point(|range| range.start <= *key);
        let Some(range) = after.checked_sub(1).map(|before| &self.merged[before]) else {
            return false;
        };
        end <= range.end
    }

    /// A range whose end is not behind its key holds nothing. All the same every member must judge
    /// it alike, and etcd's lets it pass where it finds a permission around the key.
    fn cover_inverted(&self, key: &Bytes, end: &End) -> bool {
        let End::Before(end) = end else { return false };
        self.granted.finds(key, end)
    }
}

fn touches(last: &Range, next: &Range) -> bool {
    matches!(&last.end, End::Before(end) if *end == next.start)
}

/// What a permission allows; `None` if that is nothing, as it can only have been stored by a release
/// that did not look.
fn range(permission: &Permission) -> Option<Range> {
    let start = permission.key.clone();
    let end = End::of(&start, &permission.range_end);
    (!start.is_empty() && end.is_behind(&start)).then_some(Range { start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(permissions: &[(&'static str, &'static str)]) -> Ranges {
        let permissions: Vec<_> = permissions
            .iter()
            .map(|(key, end)| Permission {
                perm_type: 0,
                key: (*key).into(),
                range_end: (*end).into(),
            })
            .collect();
        Ranges::union(permissions.iter())
    }

    fn covers(ranges: &Ranges, key: &'static str, end: &'static str) -> bool {
        ranges.cover(&key.into(), &end.into())
    }

    ///
    #[test]
    fn ranges_that_overlap_or_touch_cover_together() {
        let union = ranges(&[("a", "c"), ("b", "e"), ("e", "g"), ("k", "")]);
        assert!(covers(&union, "a", "g"));
        assert!(covers(&union, "f", ""));
        assert!(covers(&union, "k", ""));
        assert!(covers(&union, "k", "k\0"));
        assert!(!covers(&union, "g", ""));
        assert!(!covers(&union, "a", "h"));
        assert!(!covers(&union, "k", "l"));
        assert!(!covers(&union, "a", "\0"));
    }

    /// W-15: "from this key on" is more than any end.
    #[test]
    fn only_an_open_end_covers_an_open_end() {
        let union = ranges(&[("m", "\0")]);
        assert!(covers(&union, "m", "\0"));
        assert!(covers(&union, "z", "\0"));
        assert!(covers(&union, "m", "zzzz"));
        assert!(!covers(&union, "l", "\0"));
        assert!(!covers(&ranges(&[("a", "zzzz")]), "a", "\0"));
        assert!(covers(&ranges(&[("\0", "\0")]), "\0", "\0"));
    }

    /// as etcd 3.7.1 answers.
    #[test]
    fn an_inverted_range_needs_a_permission_around_its_key_that_etcd_finds() {
        let union = ranges(&[("a", "m"), ("m", "z")]);
        for (key, end) in [("d", "b"), ("d", "d"), ("d", "a"), ("p", "b"), ("p", "p")] {
            assert!(covers(&union, key, end), "{key} {end}");
        }
        assert!(!covers(&union, "p", "a"));
        assert!(!covers(&union, "zz", "b"));
        assert!(!covers(&union, "", ""));
        // The one in the middle is the root: etcd does not look below it if it lies between.
        let union = ranges(&[("a", "z"), ("c", "d"), ("e", "f")]);
        assert!(covers(&union, "d", "cc"));
        assert!(!covers(&union, "d", "b"));
        assert!(!covers(&union, "d", "c"));
    }

    #[test]
    fn what_allows_nothing_is_left_out() {
        assert_eq!(ranges(&[("", "\0"), ("c", "a"), ("", "")]), Ranges::default());
    }
}
