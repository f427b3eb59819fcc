//! The store as the JSON that etcd 3.4 and 3.5 keep in their snapshot files.
//!
//! Source: interop 2.3; etcd v3.4.23 etcdserver/api/v2store (`SaveNoCopy`).

use crate::event::Shape;
use crate::history::EVENTS_MAX;
use crate::reader::Content;
use crate::tree::Tree;
use crate::{CLUSTER, NodeView, Store, json, path, when};

/// A node of the cluster's own part, which others keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// The whole path.
    pub path: String,
    /// A file's value; `None` for a directory.
    pub value: Option<String>,
}

impl Store {
    /// The tree with the cluster's own part, of which every directory stands before what is in it;
    /// the index, and the events.
    #[must_use]
    pub fn to_json(&self, cluster: &[ClusterNode]) -> Vec<u8> {
        let content = self.shared.content.read();
        let mut text = b"{\"Root\":".to_vec();
        write_root(&content, cluster, &mut text);
        text.extend_from_slice(b",\"WatcherHub\":{\"EventHistory\":{\"Queue\":");
        write_queue(&content, &mut text);
        let start =
            if content.history.events().next().is_some() { content.history.start() } else { 0 };
        let index = content.index;
        text.extend_from_slice(
            format!(
                ",\"StartIndex\":{start},\"LastIndex\":{index}}}}},\"CurrentIndex\":{index},\
                 \"CurrentVersion\":2}}"
            )
            .as_bytes(),
        );
        text
    }
}

/// A node whose JSON is begun.
struct Opened {
    dir: bool,
    listed: bool,
}

impl Opened {
    fn new(node: &NodeView, into: &mut Vec<u8>) -> Self {
        into.extend_from_slice(b"{\"Path\":");
        json::string(&node.key, into);
        into.extend_from_slice(b",\"CreatedIndex\":");
        json::number(node.created, into);
        into.extend_from_slice(b",\"ModifiedIndex\":");
        json::number(node.modified, into);
        into.extend_from_slice(b",\"ExpireTime\":");
        let expires = node.expires.map_or_else(|| when::NEVER.to_owned(), when::to_text);
        json::string(&expires, into);
        into.extend_from_slice(b",\"Value\":");
        json::string(node.value.as_deref().unwrap_or_default(), into);
        into.extend_from_slice(b",\"Children\":");
        into.extend_from_slice(if node.dir { b"{" } else { b"null" });
        Self { dir: node.dir, listed: false }
    }

    fn begin_child(&mut self, child: &NodeView, into: &mut Vec<u8>) {
        if std::mem::replace(&mut self.listed, true) {
            into.push(b',');
        }
        let (_, name) = path::split(&child.key);
        json::string(name, into);
        into.push(b':');
    }

    fn close(self, into: &mut Vec<u8>) {
        into.extend_from_slice(if self.dir { b"}}" } else { b"}" });
    }
}

/// Without recursion: trees may be deeper than a stack.
fn write_root(content: &Content, cluster: &[ClusterNode], into: &mut Vec<u8>) {
    let root = Tree::new().get("/").expect("the root is always there").view("/");
    let cluster = cluster.iter().map(cluster_view);
    let own = content.tree.list("/", true, |_| false);
    let own = own.into_iter().filter(|(_, node)| !path::is_within(&node.key, CLUSTER));
    let mut open = vec![Opened::new(&root, into)];
    let namespace = NodeView { key: CLUSTER.to_owned(), dir: true, ..NodeView::default() };
    for (depth, node) in std::iter::once((1, namespace)).chain(cluster).chain(own) {
        while open.len() > depth {
            open.pop().expect("the root is closed last").close(into);
        }
        open.last_mut().expect("the root is closed last").begin_child(&node, into);
        open.push(Opened::new(&node, into));
    }
    while let Some(last) = open.pop() {
        last.close(into);
    }
}

/// With its depth below the root. Indexes do not matter there, but 0 is that of the namespace.
fn cluster_view(node: &ClusterNode) -> (usize, NodeView) {
    let view = NodeView {
        key: node.path.clone(),
        value: node.value.as_deref().map(Into::into),
        dir: node.value.is_none(),
        expires: None,
        modified: 1,
        created: 1,
    };
    (node.path.matches('/').count(), view)
}

fn write_queue(content: &Content, into: &mut Vec<u8>) {
    into.extend_from_slice(b"{\"Events\":[");
    let mut size = 0;
    for event in content.history.events() {
        if size > 0 {
            into.push(b',');
        }
        // What was left then: an expiry itself tells more to whoever reads it.
        event.write(event.at.unwrap_or_default(), Shape::Stored, into);
        size += 1;
    }
    for at in size..EVENTS_MAX {
        into.extend_from_slice(if at == 0 { b"null" } else { b",null" });
    }
    let back = size % EVENTS_MAX;
    into.extend_from_slice(
        format!("],\"Size\":{size},\"Front\":0,\"Back\":{back},\"Capacity\":{EVENTS_MAX}}}")
            .as_bytes(),
    );
}
