//! Answers of the keys API, and how they are printed (CTL2-22 to CTL2-24).

use serde_json::{Map, Value, json};

use super::{Code, Failure};
use crate::terminal::say;

/// An answer with the index that came in its head.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) body: Value,
    pub(super) index: u64,
}

/// A node of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a>(&'a Value);

impl<'a> Node<'a> {
    fn text(self, name: &str) -> &'a str {
        self.0[name].as_str().unwrap_or_default()
    }

    /// The root has none.
    pub(super) fn key(self) -> &'a str {
        self.text("key")
    }

    pub(super) fn value(self) -> &'a str {
        self.text("value")
    }

    pub(super) fn is_dir(self) -> bool {
        self.0["dir"].as_bool().unwrap_or_default()
    }

    pub(super) fn modified(self) -> u64 {
        self.0["modifiedIndex"].as_u64().unwrap_or_default()
    }

    pub(super) fn nodes(self) -> impl Iterator<Item = Node<'a>> {
        self.0["nodes"].as_array().into_iter().flatten().map(Node)
    }

    /// As the original's own structure is written.
    fn to_json(self) -> Value {
        let mut fields = Map::new();
        fields.insert("key".into(), self.key().into());
        if self.is_dir() {
            fields.insert("dir".into(), true.into());
        }
        fields.insert("value".into(), self.value().into());
        let nodes = self.0["nodes"]
            .as_array()
            .map(|nodes| Value::Array(nodes.iter().map(|node| Node(node).to_json()).collect()));
        fields.insert("nodes".into(), nodes.unwrap_or_default());
        for name in ["createdIndex", "modifiedIndex"] {
            fields.insert(name.into(), self.0[name].as_u64().unwrap_or_default().into());
        }
        for name in ["expiration", "ttl"] {
            if let Some(value) = self.0.get(name) {
                fields.insert(name.into(), value.clone());
            }
        }
        Value::Object(fields)
    }
}

impl Response {
    pub(super) fn action(&self) -> &str {
        self.body["action"].as_str().unwrap_or_default()
    }

    pub(super) fn node(&self) -> Node<'_> {
        Node(&self.body["node"])
    }

    fn previous(&self) -> Option<Node<'_>> {
        self.body.get("prevNode").map(Node)
    }

    pub(super) fn print(&self, format: &str) {
        let node = self.node();
        let deleted = self.action() == "delete";
        match format {
            "simple" if deleted => {
                say!("PrevNode.Value: {}", self.previous().map_or("", Node::value));
            }
            "simple" => say!("{}", node.value()),
            "extended" => {
                say!("Key: {}", node.key());
                say!("Created-Index: {}", node.0["createdIndex"].as_u64().unwrap_or_default());
                say!("Modified-Index: {}", node.modified());
                if let Some(previous) = self.previous() {
                    say!("PrevNode.Value: {}", previous.value());
                }
                say!("TTL: {}", node.0["ttl"].as_i64().unwrap_or_default());
                say!("Index: {}", self.index);
                if !deleted {
                    say!("\n{}", node.value());
                }
            }
            "json" => {
                let previous = self.previous().map(Node::to_json).unwrap_or_default();
                let node = node.to_json();
                let whole = json!({ "action": self.action(), "node": node, "prevNode": previous });
                say!("{whole}");
            }
            format => eprintln!("Unsupported output format: {format}"),
        }
    }

    /// Reads an answer of the keys API; etcd's own errors become ours (CTL2-14).
    pub(super) fn read(body: &[u8], index: &str) -> Result<Self, Failure> {
        let body: Value = serde_json::from_slice(body).map_err(|_| {
            Failure::error(Code::Server, "client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint")
        })?;
        if let Some(code) = body.get("errorCode") {
            let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            let (message, cause, index) = (text("message"), text("cause"), &body["index"]);
            let text = format!("{code}: {message} ({cause}) [{index}]");
            return Err(Failure::error(Code::Server, text));
        }
        Ok(Self { body, index: index.parse().unwrap_or_default() })
    }
}
