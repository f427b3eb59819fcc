//! Commands for keys (features 4.2).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command, client/keys.go.

use std::io::Read as _;

use url::form_urlencoded::Serializer;

use super::http::{Answer, Question};
use super::print::{Node, Response};
use super::{Call, Code, Done, Failure};
use crate::terminal::say;

const FORM: &str = "application/x-www-form-urlencoded";

/// A request for a key, being put together.
struct Asking {
    method: &'static str,
    key: String,
    query: Serializer<'static, String>,
    form: Serializer<'static, String>,
}

impl Asking {
    fn new(method: &'static str, key: &str) -> Self {
        let new = || Serializer::new(String::new());
        Self { method, key: key.to_owned(), query: new(), form: new() }
    }

    fn query(mut self, name: &str, value: &str) -> Self {
        self.query.append_pair(name, value);
        self
    }

    fn query_if(self, wanted: bool, name: &str, value: &str) -> Self {
        if wanted { self.query(name, value) } else { self }
    }

    fn form(mut self, name: &str, value: &str) -> Self {
        self.form.append_pair(name, value);
        self
    }

    fn ttl(self, call: &Call) -> Self {
        let ttl = call.own.number("ttl");
        if ttl > 0 { self.form("ttl", &ttl.to_string()) } else { self }
    }

    async fn send(mut self, call: &Call) -> Result<Response, Failure> {
        let waits = self.query.finish();
        let question = Question {
            method: self.method,
            path: format!("/v2/keys{}?{waits}", path(&self.key)),
            content_type: if self.method == "PUT" || self.method == "POST" { FORM } else { "" },
            body: self.form.finish(),
            waits: waits.starts_with("wait=true"),
        };
        let answered = call.client.ask(&question).await;
        let Answer { index, body, .. } = answered.map_err(|error| {
            // Only the first question of a command tells a broken connection apart.
            Failure { code: Code::Server, ..Failure::of(&error) }
        })?;
        Response::read(&body, &index)
    }
}

/// CTL2-20.
fn path(key: &str) -> String {
    let mut url = url::Url::parse("http://host/").expect("a URL");
    url.path_segments_mut()
        .expect("it has a path")
        .clear()
        .extend(key.split('/').filter(|part| !part.is_empty()));
    url.path().to_owned()
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
    let flag = |name: &str| if call.own.is_set(name) { "true" } else { "false" };
    Asking::new("GET", key)
        .query_if(call.own.is_set("quorum"), "quorum", "true")
        .query("recursive", flag("recursive"))
        .query("sorted", flag("sort"))
}

/// CTL2-31.
pub(super) async fn get(call: &Call) -> Done {
    let response = reading(call, call.key()?).send(call).await?;
    if response.node().is_dir() {
        let text = format!("{}: is a directory", response.node().key());
        return Err(Failure::plain(Code::BadArguments, text));
    }
    response.print(call.format());
    Ok(())
}

/// CTL2-39.
pub(super) async fn list(call: &Call) -> Done {
    let response = reading(call, call.argument(0).unwrap_or("/")).send(call).await?;
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

async fn put(call: &Call, asking: Asking) -> Done {
    asking.ttl(call).send(call).await?.print(call.format());
    Ok(())
}

/// CTL2-30.
pub(super) async fn set(call: &Call) -> Done {
    let key = call.key()?;
    let value = value(call)?;
    let previous = call.own.text("swap-with-value").unwrap_or_default();
    let index = call.own.number("swap-with-index");
    let asking = Asking::new("PUT", key)
        .query_if(!previous.is_empty(), "prevValue", previous)
        .query_if(index != 0, "prevIndex", &index.to_string())
        .form("value", &value);
    put(call, asking).await
}

/// CTL2-32.
pub(super) async fn make(call: &Call) -> Done {
    let key = call.key()?;
    let value = value(call)?;
    let asking = if call.own.is_set("in-order") {
        Asking::new("POST", key)
    } else {
        Asking::new("PUT", key).query("prevExist", "false")
    };
    put(call, asking.form("value", &value)).await
}

/// CTL2-33.
pub(super) async fn update(call: &Call) -> Done {
    let key = call.key()?;
    let value = value(call)?;
    put(call, Asking::new("PUT", key).query("prevExist", "true").form("value", &value)).await
}

/// CTL2-35 to CTL2-37.
pub(super) async fn directory(call: &Call, prev_exist: Option<bool>) -> Done {
    let asking = Asking::new("PUT", call.key()?).query("dir", "true");
    let asking = match prev_exist {
        Some(prev_exist) => asking.query("prevExist", &prev_exist.to_string()),
        None => asking,
    };
    let response = asking.ttl(call).send(call).await?;
    if call.format() != "simple" {
        response.print(call.format());
    }
    Ok(())
}

/// CTL2-34.
pub(super) async fn remove(call: &Call) -> Done {
    let own = &call.own;
    let (previous, index) = (own.text("with-value").unwrap_or_default(), own.number("with-index"));
    let asking = Asking::new("DELETE", call.key()?)
        .query_if(!previous.is_empty(), "prevValue", previous)
        .query_if(index != 0, "prevIndex", &index.to_string())
        .query_if(own.is_set("dir"), "dir", "true")
        .query_if(own.is_set("recursive"), "recursive", "true");
    removed(call, asking).await
}

/// CTL2-38.
pub(super) async fn remove_directory(call: &Call) -> Done {
    removed(call, Asking::new("DELETE", call.key()?).query("dir", "true")).await
}

async fn removed(call: &Call, asking: Asking) -> Done {
    let response = asking.send(call).await?;
    if !response.node().is_dir() || call.format() != "simple" {
        response.print(call.format());
    }
    Ok(())
}

/// What a watch waits for next.
struct Waiting<'c> {
    call: &'c Call,
    key: &'c str,
    index: u64,
}

impl<'c> Waiting<'c> {
    fn new(call: &'c Call) -> Result<Self, Failure> {
        let after = call.own.number("after-index");
        let index = if after > 0 { after + 1 } else { 0 };
        Ok(Self { call, key: call.key()?, index })
    }

    async fn next(&mut self) -> Result<Response, Failure> {
        let recursive = if self.call.own.is_set("recursive") { "true" } else { "false" };
        let asking = Asking::new("GET", self.key)
            .query("wait", "true")
            .query_if(self.index > 0, "waitIndex", &self.index.to_string())
            .query("recursive", recursive);
        let response = asking.send(self.call).await?;
        self.index = response.node().modified() + 1;
        Ok(response)
    }
}

/// CTL2-40.
pub(super) async fn watch(call: &Call) -> Done {
    let mut waiting = Waiting::new(call)?;
    loop {
        let response = waiting.next().await?;
        if response.node().is_dir() {
            continue;
        }
        if call.own.is_set("recursive") {
            say!("[{}] {}", response.action(), response.node().key());
        }
        response.print(call.format());
        if !call.own.is_set("forever") {
            return Ok(());
        }
    }
}

/// CTL2-41.
pub(super) async fn exec_watch(call: &Call) -> Done {
    let rest: Vec<&String> = call.own.rest.iter().filter(|word| *word != "--").collect();
    let [_, program, arguments @ ..] = &rest[..] else {
        return Err(Failure::error(Code::BadArguments, "key and command to exec required"));
    };
    let mut waiting = Waiting::new(call)?;
    loop {
        let response = waiting.next().await?;
        let node = response.node();
        if node.is_dir() {
            eprintln!("Ignored dir {} change", node.key());
            continue;
        }
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .env("ETCD_WATCH_ACTION", response.action())
            .env("ETCD_WATCH_MODIFIED_INDEX", node.modified().to_string())
            .env("ETCD_WATCH_KEY", node.key())
            .env("ETCD_WATCH_VALUE", node.value())
            .spawn();
        let mut child =
            child.map_err(|error| Failure::plain(Code::BadArguments, format!("{error}")))?;
        // The next change does not wait for it.
        tokio::spawn(async move { child.wait().await });
    }
}
