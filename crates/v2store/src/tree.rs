//! The nodes, by directory.
//!
//! Every directory stands in one map under its whole path, with its children by name; so nothing
//! here is as deep as the tree, and a listing is in order by itself.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2store/node.go, ttl_key_heap.go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{CLUSTER, KEYS, Nanos, NodeView, path};

/// What a file and a directory have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) expires: Option<Nanos>,
}

impl Meta {
    /// Of a node that is made at an index.
    pub(crate) fn new(index: u64, expires: Option<Nanos>) -> Self {
        Self { created: index, modified: index, expires }
    }
}

/// A node: a file with its value, or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    /// `None` for a directory.
    pub(crate) value: Option<Arc<str>>,
}

impl Node {
    pub(crate) fn is_dir(&self) -> bool {
        self.value.is_none()
    }

    pub(crate) fn view(&self, path: &str) -> NodeView {
        NodeView {
            key: path.to_owned(),
            value: self.value.clone(),
            dir: self.is_dir(),
            expires: self.meta.expires,
            modified: self.meta.modified,
            created: self.meta.created,
        }
    }
}

#[derive(Debug, Default)]
struct Dir {
    meta: Meta,
    children: BTreeMap<String, Child>,
}

#[derive(Debug)]
enum Child {
    File { meta: Meta, value: Arc<str> },
    Dir,
}

/// Why there is no node at a path; the path that is in the way or missing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    NotFound(String),
    NotDirectory(String),
}

#[derive(Debug)]
pub(crate) struct Tree {
    dirs: BTreeMap<String, Dir>,
    /// What ends, soonest first.
    expiring: BTreeSet<(Nanos, String)>,
}

impl Tree {
    /// Nothing but the namespaces.
    pub(crate) fn new() -> Self {
        let mut tree = Self { dirs: BTreeMap::new(), expiring: BTreeSet::new() };
        tree.dirs.insert("/".to_owned(), Dir::default());
        for namespace in [CLUSTER, KEYS] {
            tree.put(namespace, Node { meta: Meta::default(), value: None });
        }
        tree
    }

    /// Whether the node is one of those that must stay as they are.
    pub(crate) fn is_fixed(path: &str) -> bool {
        ["/", CLUSTER, KEYS].contains(&path)
    }

    pub(crate) fn get(&self, path: &str) -> Option<Node> {
        if let Some(dir) = self.dirs.get(path) {
            return Some(Node { meta: dir.meta, value: None });
        }
        let (parent, name) = path::split(path);
        match self.dirs.get(parent)?.children.get(name)? {
            Child::File { meta, value } => Some(Node { meta: *meta, value: Some(value.clone()) }),
            Child::Dir => unreachable!("directory {path} stands in its parent alone"),
        }
    }

    /// The node, or the first thing on the way to it that is wrong.
    pub(crate) fn find(&self, path: &str) -> Result<Node, Missing> {
        if let Some(node) = self.get(path) {
            return Ok(node);
        }
        for prefix in path::prefixes(path) {
            match self.get(prefix) {
                None => return Err(Missing::NotFound(prefix.to_owned())),
                Some(node) if !node.is_dir() => {
                    return Err(Missing::NotDirectory(prefix.to_owned()));
                }
                Some(_) => {}
            }
        }
        unreachable!("every part of {path} is there")
    }

    /// A file among the directories above a path.
    pub(crate) fn file_above(&self, path: &str) -> Option<String> {
        let (parent, _) = path::split(path);
        if self.dirs.contains_key(parent) {
            return None;
        }
        let is_file = |prefix: &&str| self.get(prefix).is_some_and(|node| !node.is_dir());
        path::prefixes(parent).find(is_file).map(ToOwned::to_owned)
    }

    /// Makes the directories above a path; which ones. There is no file among them.
    pub(crate) fn make_parents(&mut self, path: &str, index: u64) -> Vec<String> {
        let (parent, _) = path::split(path);
        if self.dirs.contains_key(parent) {
            return Vec::new();
        }
        let missing = path::prefixes(parent).filter(|prefix| !self.dirs.contains_key(*prefix));
        let missing: Vec<String> = missing.map(ToOwned::to_owned).collect();
        for path in &missing {
            self.put(path, Node { meta: Meta::new(index, None), value: None });
        }
        missing
    }

    /// Sets a node below an existing directory. A file takes the place of a file and a directory
    /// that of a file; a directory that is there keeps its children.
    pub(crate) fn put(&mut self, path: &str, node: Node) {
        self.forget_expiry(path);
        if let Some(expires) = node.meta.expires {
            self.expiring.insert((expires, path.to_owned()));
        }
        let (parent, name) = path::split(path);
        let parent = self.dirs.get_mut(parent).expect("parents are made before their children");
        let child = match node.value {
            Some(value) => Child::File { meta: node.meta, value },
            None => Child::Dir,
        };
        let is_dir = matches!(child, Child::Dir);
        parent.children.insert(name.to_owned(), child);
        if is_dir {
            self.dirs.entry(path.to_owned()).or_default().meta = node.meta;
        }
    }

    /// Removes a node and all below it; their paths, children before their directory.
    pub(crate) fn remove(&mut self, path: &str) -> Vec<String> {
        let mut removed = vec![path.to_owned()];
        let mut at = 0;
        // From each directory down; turned around at the end.
        while at < removed.len() {
            self.forget_expiry(&removed[at]);
            if let Some(dir) = self.dirs.remove(&removed[at]) {
                let parent = removed[at].clone();
                removed.extend(dir.children.keys().map(|name| path::join(&parent, name)));
                for (name, child) in dir.children {
                    if let Child::File { meta: Meta { expires: Some(expires), .. }, .. } = child
                        && !base::probe::mutant("v2-ends-outlive-their-directory")
                    {
                        self.expiring.remove(&(expires, path::join(&parent, &name)));
                    }
                }
            }
            at += 1;
        }
        let (parent, name) = path::split(path);
        if let Some(parent) = self.dirs.get_mut(parent) {
            parent.children.remove(name);
        }
        removed.reverse();
        removed
    }

    fn forget_expiry(&mut self, path: &str) {
        let expires = match self.dirs.get(path) {
            Some(dir) => dir.meta.expires,
            None => {
                let (parent, name) = path::split(path);
                match self.dirs.get(parent).and_then(|parent| parent.children.get(name)) {
                    Some(Child::File { meta, .. }) => meta.expires,
                    Some(Child::Dir) | None => None,
                }
            }
        };
        if let Some(expires) = expires {
            self.expiring.remove(&(expires, path.to_owned()));
        }
    }

    pub(crate) fn has_children(&self, path: &str) -> bool {
        self.dirs.get(path).is_some_and(|dir| !dir.children.is_empty())
    }

    /// The next node that ends, if it ends by then.
    pub(crate) fn expired(&self, cutoff: Nanos) -> Option<&str> {
        let (expires, path) = self.expiring.first()?;
        (*expires <= cutoff).then_some(path.as_str())
    }

    pub(crate) fn has_expiring(&self) -> bool {
        !self.expiring.is_empty()
    }

    /// What is in a directory, in order, hidden names too; each directory before what is in it. Of
    /// the whole subtree if `recursive`; names for which `skip` is true are left out with all below.
    pub(crate) fn list(
        &self,
        path: &str,
        recursive: bool,
        skip: impl Fn(&str) -> bool,
    ) -> Vec<(usize, NodeView)> {
        let mut listed = Vec::new();
        let Some(dir) = self.dirs.get(path) else { return listed };
        let mut open = vec![(path.to_owned(), dir.children.iter())];
        while let Some((parent, children)) = open.last_mut() {
            let Some((name, child)) = children.next() else {
                open.pop();
                continue;
            };
            if skip(name) {
                continue;
            }
            let path = path::join(parent, name);
            let depth = open.len();
            match child {
                Child::File { meta, value } => {
                    let node = Node { meta: *meta, value: Some(value.clone()) };
                    listed.push((depth, node.view(&path)));
                }
                Child::Dir => {
                    let dir = self.dirs.get(&path).expect("a directory stands in the map too");
                    let node = Node { meta: dir.meta, value: None };
                    listed.push((depth, node.view(&path)));
                    if recursive {
                        open.push((path, dir.children.iter()));
                    }
                }
            }
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(value: &str, expires: Option<Nanos>) -> Node {
        Node { meta: Meta::new(1, expires), value: Some(value.into()) }
    }

    fn tree() -> Tree {
        let mut tree = Tree::new();
        tree.make_parents("/1/a/b/c", 1);
        tree.put("/1/a/b/c", file("x", Some(7)));
        tree.put("/1/a/d", file("y", None));
        tree
    }

    #[test]
    fn what_is_missing_is_named() {
        let tree = tree();
        assert!(tree.find("/1/a/b").unwrap().is_dir());
        assert_eq!(tree.find("/1/a/x/y"), Err(Missing::NotFound("/1/a/x".into())));
        assert_eq!(tree.find("/1/a/d/y"), Err(Missing::NotDirectory("/1/a/d".into())));
        assert_eq!(tree.file_above("/1/a/d/y/z").as_deref(), Some("/1/a/d"));
        assert_eq!(tree.file_above("/1/q/y/z"), None);
    }

    #[test]
    fn a_subtree_goes_with_its_directory_and_its_expiries() {
        let mut tree = tree();
        assert_eq!(tree.expired(6), None);
        assert_eq!(tree.expired(7), Some("/1/a/b/c"));
        let removed = tree.remove("/1/a");
        assert_eq!(removed, ["/1/a/b/c", "/1/a/d", "/1/a/b", "/1/a"]);
        assert!(!tree.has_expiring());
        assert!(!tree.has_children(KEYS));
        assert_eq!(tree.find("/1/a"), Err(Missing::NotFound("/1/a".into())));
    }

    #[test]
    fn listings_are_in_order_and_may_skip() {
        let mut tree = tree();
        tree.put("/1/a/_h", file("z", None));
        let names = |listed: Vec<(usize, NodeView)>| -> Vec<(usize, String)> {
            listed.into_iter().map(|(depth, node)| (depth, node.key)).collect()
        };
        let all = names(tree.list(KEYS, true, path::is_hidden_name));
        let expected = [(1, "/1/a"), (2, "/1/a/b"), (3, "/1/a/b/c"), (2, "/1/a/d")];
        assert_eq!(all, expected.map(|(depth, path)| (depth, path.to_owned())));
        assert_eq!(names(tree.list(KEYS, false, |_| false)), [(1, "/1/a".to_owned())]);
    }
}
