//! Which row of the third generation a node of the second is: `PREFIX/DDD/k/PATH` for a file, with a
//! slash behind it for a directory, where DDD is the number of levels. So what is directly in a
//! directory is one range. `PREFIX/act` says with every change what was done.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2v3/store.go (`mkPathDepth`), whose rows these are.

use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use v2store::NodeView;
use v2store::text::{of_bytes, to_bytes};

/// `/DDD/k/`.
const MIDDLE_LEN: usize = 7;

/// Rows below one prefix.
#[derive(Debug)]
pub(super) struct Layout {
    prefix: Vec<u8>,
}

/// The second generation's index of a revision.
pub(super) fn index_of(revision: i64) -> u64 {
    u64::try_from(revision - 1).unwrap_or(0)
}

/// The directories that are always there.
pub(super) fn is_fixed(path: &str) -> bool {
    matches!(path, "" | "/" | "/0" | "/1")
}

/// The directories above a path that are made and go, from the nearest.
pub(super) fn above(path: &str) -> impl Iterator<Item = &str> {
    let parents = path.rmatch_indices('/').map(|(at, _)| &path[..at]);
    parents.take_while(|path| !is_fixed(path))
}

/// Whether who looks at `seen` does not see what is at `path` below it (V2-062).
pub(super) fn is_hidden_from(seen: &str, path: &str) -> bool {
    let below = path.strip_prefix(seen).unwrap_or_default();
    below.split('/').any(|name| name.starts_with('_'))
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.as_bytes().to_vec() }
    }

    /// The row of what was done last.
    pub(super) fn action(&self) -> Bytes {
        [&self.prefix, &b"/act"[..]].concat().into()
    }

    /// All rows.
    pub(super) fn all(&self) -> (Bytes, Bytes) {
        ([&self.prefix, &b"/"[..]].concat().into(), [&self.prefix, &b"0"[..]].concat().into())
    }

    pub(super) fn file(&self, path: &str) -> Bytes {
        self.row(path, 0, b"")
    }

    pub(super) fn dir(&self, path: &str) -> Bytes {
        self.row(path, 0, b"/")
    }

    /// What is so many levels below a directory.
    pub(super) fn level(&self, path: &str, depth: usize) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.row(path, depth, b"/"),
            // The character behind the slash.
            range_end: self.row(path, depth, b"0"),
            ..pb::RangeRequest::default()
        }
    }

    fn row(&self, path: &str, depth: usize, end: &[u8]) -> Bytes {
        let levels = path.matches('/').count() + depth;
        let middle = format!("/{levels:03}/k/");
        [&self.prefix, middle.as_bytes(), &to_bytes(path), end].concat().into()
    }

    /// The path of a row; `None` for one that is no node's.
    pub(super) fn path(&self, key: &[u8]) -> Option<String> {
        let rest = key.strip_prefix(self.prefix.as_slice())?;
        let (middle, path) = rest.split_at_checked(MIDDLE_LEN)?;
        let is_node = middle.starts_with(b"/") && middle.ends_with(b"/k/");
        let path = path.strip_suffix(b"/").unwrap_or(path);
        (is_node && path.starts_with(b"/")).then(|| of_bytes(path))
    }

    /// A node as its row shows it.
    pub(super) fn view(&self, row: &KeyValue) -> NodeView {
        let dir = row.key.ends_with(b"/");
        NodeView {
            key: self.path(&row.key).unwrap_or_default(),
            value: (!dir).then(|| Arc::from(of_bytes(&row.value))),
            dir,
            expires: None,
            modified: index_of(row.mod_revision),
            created: index_of(row.create_revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-180.
    #[test]
    fn rows_are_those_of_etcds_emulation() {
        let layout = Layout::new("/__v2");
        assert_eq!(layout.file("/1/a/b"), "/__v2/003/k//1/a/b");
        assert_eq!(layout.dir("/1/a"), "/__v2/002/k//1/a/");
        assert_eq!(layout.level("/1/a", 1).key, "/__v2/003/k//1/a/");
        assert_eq!(layout.level("/1/a", 1).range_end, "/__v2/003/k//1/a0");
        assert_eq!(layout.path(b"/__v2/002/k//1/a/").as_deref(), Some("/1/a"));
        for key in [&b"/__v2/act"[..], b"/__v2/002/k/", b"/other/002/k//1/a"] {
            assert_eq!(layout.path(key), None);
        }
        assert_eq!(above("/1/a/b/c").collect::<Vec<_>>(), ["/1/a/b", "/1/a"]);
        assert_eq!(above("/1/a").count(), 0);
        assert!(is_hidden_from("/1", "/1/_a/b") && !is_hidden_from("/1/_a", "/1/_a/b"));
    }
}
