//! Answers of the keys API, and how they are printed (CTL2-14, CTL2-22 to CTL2-24).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command/format.go, client/keys.go.

use std::fmt::Write as _;

use cli::json::GoJson as _;
use serde_json::Value;

use super::{Code, Failure};
use crate::terminal::say;

/// An answer with the index that came in its head.
#[derive(Debug)]
pub(super) struct Response {
    body: Value,
    index: u64,
}

/// A node of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a>(&'a Value);

impl<'a> Node<'a> {
    fn text(self, name: &str) -> &'a str {
        self.0[name].as_str().unwrap_or_default()
    }

    fn number(self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_default()
    }

    fn ttl(self) -> i64 {
        self.0["ttl"].as_i64().unwrap_or_default()
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
        self.number("modifiedIndex")
    }

    pub(super) fn nodes(self) -> impl Iterator<Item = Node<'a>> {
        self.0["nodes"].as_array().into_iter().flatten().map(Node)
    }

    /// As the original's own structure is written, which is not what members write.
    fn write(self, out: &mut String) {
        out.push_str("{\"key\":");
        self.key().write(out);
        if self.is_dir() {
            out.push_str(",\"dir\":true");
        }
        out.push_str(",\"value\":");
        self.value().write(out);
        out.push_str(",\"nodes\":");
        if self.0["nodes"].is_array() {
            for (at, node) in self.nodes().enumerate() {
                out.push(if at == 0 { '[' } else { ',' });
                node.write(out);
            }
            out.push_str(if self.nodes().next().is_none() { "[]" } else { "]" });
        } else {
            out.push_str("null");
        }
        for name in ["createdIndex", "modifiedIndex"] {
            write!(out, ",\"{name}\":{}", self.number(name)).expect("writing to a string");
        }
        if let Some(expiration) = self.0["expiration"].as_str() {
            out.push_str(",\"expiration\":");
            expiration.write(out);
        }
        if self.ttl() != 0 {
            write!(out, ",\"ttl\":{}", self.ttl()).expect("writing to a string");
        }
        out.push('}');
    }
}

impl Response {
    /// Reads an answer; a member's own errors become ours.
    pub(super) fn read(status: u16, body: &[u8], index: &str) -> Result<Self, Failure> {
        let body: Option<Value> = serde_json::from_slice(body).ok();
        let Some(body) = body.filter(Value::is_object) else {
            let text = "client: response is invalid json. The endpoint is probably not valid etcd \
                        cluster endpoint";
            return Err(Failure::error(Code::Server, text));
        };
        if !matches!(status, 200 | 201) {
            let text = |name: &str| body[name].as_str().unwrap_or_default();
            let number = |name: &str| body[name].as_u64().unwrap_or_default();
            let (message, cause) = (text("message"), text("cause"));
            let (code, index) = (number("errorCode"), number("index"));
            let text = format!("{code}: {message} ({cause}) [{index}]");
            return Err(Failure::error(Code::Server, text));
        }
        Ok(Self { body, index: index.parse().unwrap_or_default() })
    }

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
        match format {
            "simple" if self.action() == "delete" => {
                say!("PrevNode.Value: {}", self.previous().map_or("", Node::value));
            }
            "simple" => say!("{}", self.node().value()),
            "extended" => self.print_extended(),
            "json" => say!("{}", self.to_json()),
            format => eprintln!("Unsupported output format: {format}"),
        }
    }

    fn print_extended(&self) {
        let node = self.node();
        say!("Key: {}", node.key());
        say!("Created-Index: {}", node.number("createdIndex"));
        say!("Modified-Index: {}", node.modified());
        if let Some(previous) = self.previous() {
            say!("PrevNode.Value: {}", previous.value());
        }
        say!("TTL: {}", node.ttl());
        say!("Index: {}", self.index);
        if self.action() != "delete" {
            say!("\n{}", node.value());
        }
    }

    fn to_json(&self) -> String {
        let mut out = String::from("{\"action\":");
        self.action().write(&mut out);
        out.push_str(",\"node\":");
        self.node().write(&mut out);
        out.push_str(",\"prevNode\":");
        match self.previous() {
            Some(previous) => previous.write(&mut out),
            None => out.push_str("null"),
        }
        out.push('}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTL2-22.
    #[test]
    fn json_is_the_clients_structure() {
        let body = "{\"action\":\"get\",\"node\":{\"dir\":true,\"nodes\":[{\"key\":\"/a\",\
                    \"value\":\"<\",\"expiration\":\"E\",\"ttl\":5,\"modifiedIndex\":4,\
                    \"createdIndex\":3}]}}";
        let response = Response::read(200, body.as_bytes(), "9").unwrap();
        assert_eq!(
            response.to_json(),
            "{\"action\":\"get\",\"node\":{\"key\":\"\",\"dir\":true,\"value\":\"\",\"nodes\":[\
             {\"key\":\"/a\",\"value\":\"\\u003c\",\"nodes\":null,\"createdIndex\":3,\
             \"modifiedIndex\":4,\"expiration\":\"E\",\"ttl\":5}],\"createdIndex\":0,\
             \"modifiedIndex\":0},\"prevNode\":null}"
        );
    }

    /// CTL2-14.
    #[test]
    fn error_has_two_blanks() {
        let body = br#"{"errorCode":100,"message":"Key not found","cause":"/key","index":8}"#;
        let failure = Response::read(404, body, "8").unwrap_err();
        assert_eq!(failure.text, "Error:  100: Key not found (/key) [8]\n");
        assert_eq!(failure.code, Code::Server);
    }
}
