//! Commands for keys (features 4.2).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command, client/keys.go.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::http::{Answer, Client, ClientError, Question, Until};
use super::print::{Node, Response};
use super::{Call, Code, Done, Failure, escape};
use crate::terminal::say;

const FORM: &str = "application/x-www-form-urlencoded";

/// A request for a key, being put together.
#[derive(Debug)]
pub(super) struct Asking {
    method: &'static str,
    key: String,
    query: BTreeMap<&'static str, String>,
    form: BTreeMap<&'static str, String>,
    is_once: bool,
}

impl Asking {
    pub(super) fn new(method: &'static str, key: &str) -> Self {
        let (query, form) = (BTreeMap::new(), BTreeMap::new());
        // What was deleted once is not found a second time.
        Self { method, key: key.to_owned(), query, form, is_once: method == "DELETE" }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.insert(name, value.to_string());
        self
    }

    fn query_if(self, wanted: bool, name: &'static str, value: impl ToString) -> Self {
        if wanted { self.query(name, value) } else { self }
    }

    /// Whether there must have been something, or must not.
    fn prev_exist(self, wanted: bool) -> Self {
        let asking = self.query("prevExist", wanted);
        // What was made once is there the second time.
        Self { is_once: !wanted, ..asking }
    }

    /// A previous value and index; empty and 0 for any.
    fn previous(self, value: &str, index: i64) -> Self {
        self.query_if(!value.is_empty(), "prevValue", value).query_if(
            index != 0,
            "prevIndex",
            index.cast_unsigned(),
        )
    }

    pub(super) fn value(mut self, value: &str) -> Self {
        self.form.insert("value", value.to_owned());
        self
    }

    /// Seconds to live; none, or less, for ever.
    pub(super) fn ttl(mut self, seconds: i64) -> Self {
        if 0 < seconds {
            self.form.insert("ttl", seconds.to_string());
        }
        self
    }

    fn question(&self) -> Question {
        let key = &self.key;
        let slash = if key.is_empty() || key.starts_with('/') { "" } else { "/" };
        let has_body = self.method == "PUT" || self.method == "POST";
        let query = escape::form(&self.query);
        Question {
            method: self.method,
            path: escape::path(&escape::canonical(&format!("/v2/keys{slash}{key}"))),
            query: if query.is_empty() { query } else { format!("?{query}") },
            content_type: if self.method == "GET" { "" } else { FORM },
            body: has_body.then(|| escape::form(&self.form)),
            waits: self.query.contains_key("wait"),
            is_once: self.is_once,
        }
    }

    /// Asks; `Ok(None)` for an answer without a body.
    pub(super) async fn send(
        &self,
        client: &Client,
        until: Until,
    ) -> Result<Option<Response>, Failure> {
        let answered = client.ask(&self.question(), until).await;
        let failed = |error: ClientError| Failure::client(Code::Server, &error);
        let Answer { status, index, body, .. } = answered.map_err(failed)?;
        if matches!(status, 200 | 201) && body.is_empty() {
            return Ok(None);
        }
        Response::read(status, &body, &index).map(Some)
    }

    /// Asks within the command's time.
    pub(super) async fn run(&self, client: &Client) -> Result<Response, Failure> {
        let response = self.send(client, client.deadline()).await?;
        response.ok_or_else(|| Failure::error(Code::Server, "client: response body is empty"))
    }
}

/// CTL2-21.
fn value(call: &Call) -> Result<String, Failure> {
    if let Some(value) = call.argument(1) {
        return Ok(value.to_owned());
    }
    let mut text = Vec::new();
    match std::io::stdin().lock().read_to_end(&mut text) {
        Ok(len) if len > 0 => Ok(String::from_utf8_lossy(&text).into_owned()),
        Ok(_) | Err(_) => Err(Failure::error(Code::BadArguments, "value required")),
    }
}

fn reading(call: &Call, key: &str) -> Asking {
    Asking::new("GET", key)
        .query("quorum", call.own.is_set("quorum"))
        .query("recursive", call.own.is_set("recursive"))
        .query("sorted", call.own.is_set("sort"))
}

/// CTL2-31.
pub(super) async fn get(call: &Call) -> Done {
    let client = call.connect().await?;
    let response = reading(call, call.key()?).run(&client).await?;
    if response.node().is_dir() {
        return Err(Failure::arguments(format!("{}: is a directory", response.node().key())));
    }
    response.print(call.format());
    Ok(())
}

/// CTL2-39.
pub(super) async fn list(call: &Call) -> Done {
    let client = call.connect().await?;
    let response = reading(call, call.argument(0).unwrap_or("/")).run(&client).await?;
    if call.format() != "simple" {
        response.print(call.format());
        return Ok(());
    }
    let node = response.node();
    if !node.is_dir() {
        say!("{}", node.key());
    }
    let mut open: Vec<Node<'_>> = node.nodes().collect();
    open.reverse();
    while let Some(node) = open.pop() {
        let end = if node.is_dir() && call.own.is_set("p") { "/" } else { "" };
        say!("{}{end}", node.key());
        let at = open.len();
        open.extend(node.nodes());
        open[at..].reverse();
    }
    Ok(())
}

async fn put(call: &Call, client: &Client, asking: Asking) -> Done {
    let response = asking.ttl(call.own.int("ttl")).run(client).await?;
    response.print(call.format());
    Ok(())
}

/// CTL2-30.
pub(super) async fn set(call: &Call) -> Done {
    let client = call.connect().await?;
    let key = call.key()?;
    let value = value(call)?;
    let previous = call.own.text("swap-with-value").unwrap_or_default();
    let asking = Asking::new("PUT", key).previous(previous, call.own.int("swap-with-index"));
    put(call, &client, asking.value(&value)).await
}

/// CTL2-32.
pub(super) async fn make(call: &Call) -> Done {
    let client = call.connect().await?;
    let key = call.key()?;
    let value = value(call)?;
    let asking = if call.own.is_set("in-order") {
        Asking::new("POST", key)
    } else {
        Asking::new("PUT", key).prev_exist(false)
    };
    put(call, &client, asking.value(&value)).await
}

/// CTL2-33.
pub(super) async fn update(call: &Call) -> Done {
    let client = call.connect().await?;
    let key = call.key()?;
    let value = value(call)?;
    put(call, &client, Asking::new("PUT", key).prev_exist(true).value(&value)).await
}

/// CTL2-35 to CTL2-37.
pub(super) async fn directory(call: &Call, prev_exist: Option<bool>) -> Done {
    let client = call.connect().await?;
    let asking = Asking::new("PUT", call.key()?).query("dir", true);
    let asking = match prev_exist {
        Some(prev_exist) => asking.prev_exist(prev_exist),
        None => asking,
    };
    let response = asking.ttl(call.own.int("ttl")).run(&client).await?;
    if call.format() != "simple" {
        response.print(call.format());
    }
    Ok(())
}

/// CTL2-34.
pub(super) async fn remove(call: &Call) -> Done {
    let client = call.connect().await?;
    let own = &call.own;
    let asking = Asking::new("DELETE", call.key()?)
        .previous(own.text("with-value").unwrap_or_default(), own.int("with-index"))
        .query_if(own.is_set("dir"), "dir", true)
        .query_if(own.is_set("recursive"), "recursive", true);
    removed(call, &client, &asking).await
}

/// CTL2-38.
pub(super) async fn remove_directory(call: &Call) -> Done {
    let client = call.connect().await?;
    removed(call, &client, &Asking::new("DELETE", call.key()?).query("dir", true)).await
}

async fn removed(call: &Call, client: &Client, asking: &Asking) -> Done {
    let response = asking.run(client).await?;
    if !response.node().is_dir() || call.format() != "simple" {
        response.print(call.format());
    }
    Ok(())
}
