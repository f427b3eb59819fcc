//! What happened to a node, or what a read found, and the JSON of it.
//!
//! Source: etcd v3.4.23 etcdserver/api/v2store/{event,node_extern}.go.

use std::sync::Arc;

use crate::{KEYS, Nanos, json, when};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read.
    Get,
    /// Made, and was not there before.
    Create,
    /// Made or replaced.
    Set,
    /// Changed, and was there before.
    Update,
    /// Removed.
    Delete,
    /// Changed, being as expected.
    CompareAndSwap,
    /// Removed, being as expected.
    CompareAndDelete,
    /// Removed when its time was over.
    Expire,
}

impl Action {
    /// All, in the order of the rows' numbers.
    pub(crate) const ALL: [Self; 8] = [
        Self::Get,
        Self::Create,
        Self::Set,
        Self::Update,
        Self::Delete,
        Self::CompareAndSwap,
        Self::CompareAndDelete,
        Self::Expire,
    ];

    /// The name that clients know.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Set => "set",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::CompareAndSwap => "compareAndSwap",
            Self::CompareAndDelete => "compareAndDelete",
            Self::Expire => "expire",
        }
    }

    /// By name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// A node as an event shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The whole path, with the namespace.
    pub key: String,
    /// A file's value; none for a directory, and for what was removed.
    pub value: Option<Arc<str>>,
    /// Whether it is a directory.
    pub dir: bool,
    /// When it ends.
    pub expires: Option<Nanos>,
    /// The index of its last change.
    pub modified: u64,
    /// The index at which it was made.
    pub created: u64,
}

/// A change, or what a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// With which node; of a change, as it is after it.
    pub node: NodeView,
    /// As it was before.
    pub prev_node: Option<NodeView>,
    /// What a read lists below the node, each directory before what is in it, with the depth: 1 for
    /// the node's own children.
    pub below: Vec<(usize, NodeView)>,
    /// The store's index: of a change the change's own, of a read the newest then.
    pub index: u64,
    /// When it happened, if whoever asked for it said so.
    pub at: Option<Nanos>,
    /// Whether it only gave a node more time, of which nobody is told.
    pub refresh: bool,
}

/// How much of an event its JSON tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// For users: keys without their namespace.
    Users,
    /// Everything, as a snapshot keeps it.
    Stored,
}

impl Event {
    /// Whether the node was not there before (V2-011).
    #[must_use]
    pub fn is_created(&self) -> bool {
        match self.action {
            Action::Create => true,
            Action::Set => self.prev_node.is_none(),
            Action::Get
            | Action::Update
            | Action::Delete
            | Action::CompareAndSwap
            | Action::CompareAndDelete
            | Action::Expire => false,
        }
    }

    /// The body of an answer, with a newline at the end; keys without the users' namespace. What is
    /// left of a time to live counts from [`Event::at`], or from `now` if that is not known.
    #[must_use]
    pub fn to_json(&self, now: Nanos) -> Vec<u8> {
        let mut text = Vec::with_capacity(256);
        self.write(now, Shape::Users, &mut text);
        text.push(b'\n');
        text
    }

    /// As [`Event::to_json`], and of a change that leaves a value nothing but its name (V2-033).
    #[must_use]
    pub fn to_json_without_value(&self, now: Nanos) -> Vec<u8> {
        match self.action {
            Action::Set | Action::Create | Action::Update | Action::CompareAndSwap => {
                format!("{{\"action\":\"{}\"}}\n", self.action.name()).into_bytes()
            }
            Action::Get | Action::Delete | Action::CompareAndDelete | Action::Expire => {
                self.to_json(now)
            }
        }
    }

    pub(crate) fn write(&self, now: Nanos, shape: Shape, into: &mut Vec<u8>) {
        let now = self.at.unwrap_or(now);
        into.extend_from_slice(b"{\"action\":\"");
        into.extend_from_slice(self.action.name().as_bytes());
        into.extend_from_slice(b"\",\"node\":");
        self.write_tree(now, shape, into);
        if let Some(before) = &self.prev_node {
            into.extend_from_slice(b",\"prevNode\":");
            let more = before.open(now, shape, into);
            before.close(more, into);
        }
        if self.refresh && shape == Shape::Stored {
            into.extend_from_slice(b",\"refresh\":true");
        }
        into.push(b'}');
    }

    /// The node with what is below it. Without recursion: trees may be deeper than a stack.
    fn write_tree(&self, now: Nanos, shape: Shape, into: &mut Vec<u8>) {
        let mut open = vec![Opened::new(&self.node, now, shape, into)];
        for (depth, node) in &self.below {
            while open.len() > *depth {
                open.pop().expect("the depth of the first is 1").close(into);
            }
            let parent = open.last_mut().expect("the depth of the first is 1");
            parent.begin_child(into);
            open.push(Opened::new(node, now, shape, into));
        }
        while let Some(last) = open.pop() {
            last.close(into);
        }
    }
}

/// A node whose JSON is begun.
struct Opened<'e> {
    node: &'e NodeView,
    /// Whether a comma is due.
    more: bool,
    /// Whether the list of its children is begun.
    listed: bool,
}

impl<'e> Opened<'e> {
    fn new(node: &'e NodeView, now: Nanos, shape: Shape, into: &mut Vec<u8>) -> Self {
        Self { node, more: node.open(now, shape, into), listed: false }
    }

    fn begin_child(&mut self, into: &mut Vec<u8>) {
        if self.listed || self.more {
            into.push(b',');
        }
        if !self.listed {
            into.extend_from_slice(b"\"nodes\":[");
        }
        self.listed = true;
        self.more = true;
    }

    fn close(self, into: &mut Vec<u8>) {
        if self.listed {
            into.push(b']');
        }
        self.node.close(self.more, into);
    }
}

impl NodeView {
    /// Writes up to where the list of what is below would follow; whether a comma is due.
    fn open(&self, now: Nanos, shape: Shape, into: &mut Vec<u8>) -> bool {
        into.push(b'{');
        let mut more = false;
        let mut field = |name: &str, into: &mut Vec<u8>| {
            if std::mem::replace(&mut more, true) {
                into.push(b',');
            }
            into.push(b'"');
            into.extend_from_slice(name.as_bytes());
            into.extend_from_slice(b"\":");
        };
        let key = match shape {
            Shape::Users => self.key.strip_prefix(KEYS).unwrap_or(&self.key),
            Shape::Stored => &self.key,
        };
        if !key.is_empty() {
            field("key", into);
            json::string(key, into);
        }
        if let Some(value) = &self.value {
            field("value", into);
            json::string(value, into);
        }
        if self.dir {
            field("dir", into);
            into.extend_from_slice(b"true");
        }
        if let Some(expires) = self.expires {
            field("expiration", into);
            json::string(&when::to_text(expires), into);
            let left = when::seconds_left(expires, now);
            if left != 0 {
                field("ttl", into);
                json::number(left, into);
            }
        }
        more
    }

    fn close(&self, mut more: bool, into: &mut Vec<u8>) {
        for (name, index) in [("modifiedIndex", self.modified), ("createdIndex", self.created)] {
            if index == 0 {
                continue;
            }
            if std::mem::replace(&mut more, true) {
                into.push(b',');
            }
            into.push(b'"');
            into.extend_from_slice(name.as_bytes());
            into.extend_from_slice(b"\":");
            json::number(index, into);
        }
        into.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(key: &str, value: &str) -> NodeView {
        let value = Some(value.into());
        NodeView { key: key.into(), value, modified: 4, created: 4, ..NodeView::default() }
    }

    fn dir(key: &str) -> NodeView {
        NodeView { key: key.into(), dir: true, modified: 2, created: 2, ..NodeView::default() }
    }

    fn get(node: NodeView, below: Vec<(usize, NodeView)>) -> String {
        let event = Event {
            action: Action::Get,
            node,
            prev_node: None,
            below,
            index: 9,
            at: None,
            refresh: false,
        };
        String::from_utf8(event.to_json(0)).unwrap()
    }

    /// V2-040 to V2-043.
    #[test]
    fn reads_look_as_etcds() {
        assert_eq!(
            get(file("/1/message", "Hello"), Vec::new()),
            "{\"action\":\"get\",\"node\":{\"key\":\"/message\",\"value\":\"Hello\",\
             \"modifiedIndex\":4,\"createdIndex\":4}}\n"
        );
        let root = NodeView { key: "/1".into(), dir: true, ..NodeView::default() };
        assert_eq!(get(root.clone(), Vec::new()), "{\"action\":\"get\",\"node\":{\"dir\":true}}\n");
        let below = vec![
            (1, dir("/1/a")),
            (2, dir("/1/a/b")),
            (3, file("/1/a/b/c", "")),
            (2, file("/1/a/d", "x")),
            (1, file("/1/e", "y")),
        ];
        let file = |key: &str, value: &str| {
            format!(
                "{{\"key\":\"{key}\",\"value\":\"{value}\",\"modifiedIndex\":4,\"createdIndex\":4}}"
            )
        };
        let end = "\"modifiedIndex\":2,\"createdIndex\":2}";
        assert_eq!(
            get(root, below),
            format!(
                "{{\"action\":\"get\",\"node\":{{\"dir\":true,\"nodes\":[\
                 {{\"key\":\"/a\",\"dir\":true,\"nodes\":[\
                 {{\"key\":\"/a/b\",\"dir\":true,\"nodes\":[{}],{end},{}],{end},{}]}}}}\n",
                file("/a/b/c", ""),
                file("/a/d", "x"),
                file("/e", "y")
            )
        );
    }

    #[test]
    fn a_tree_deeper_than_any_stack_is_written() {
        let below = (1..200_000).map(|depth| (depth, dir("/1/d"))).collect();
        let text = get(dir("/1"), below);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
