//! Calls of the second generation, and random sequences of them.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, bail};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use retcd_conformance::http::{HttpAnswer, HttpOpen, HttpQuestion, ask};
use retcd_conformance::{Server, eventually};
use serde_json::Value;

pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_etcd");

const FORM: &str = "application/x-www-form-urlencoded";

/// A server of ours with these flags, and the folder its data is in.
pub(crate) fn start(flags: &[&str]) -> anyhow::Result<(Server, tempfile::TempDir)> {
    Server::fresh(Path::new(OURS), flags)
}

/// A member's v2 API.
#[derive(Debug)]
pub(crate) struct V2 {
    address: SocketAddr,
}

impl V2 {
    pub(crate) fn of(server: &Server) -> anyhow::Result<Self> {
        Self::at(&server.endpoint())
    }

    pub(crate) fn at(endpoint: &str) -> anyhow::Result<Self> {
        Ok(Self { address: endpoint.strip_prefix("http://").context("no TLS here")?.parse()? })
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &str,
    ) -> anyhow::Result<HttpAnswer> {
        ask(self.address, method, &format!("/v2{path}"), kind, body)
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<HttpAnswer> {
        self.ask("GET", path, "", "")
    }

    /// As [`Self::ask`], with a header that says who asks, if it is not empty.
    pub(crate) fn ask_as(
        &self,
        authorization: Option<&str>,
        method: &str,
        path: &str,
        body: &str,
    ) -> anyhow::Result<HttpAnswer> {
        let kind = if body.starts_with('{') { "application/json" } else { FORM };
        let mut headers = Vec::new();
        headers.extend((!body.is_empty()).then_some(("Content-Type", kind)));
        headers.extend(authorization.map(|value| ("Authorization", value)));
        let path = format!("/v2{path}");
        let question = HttpQuestion { method, path: &path, headers: &headers, body };
        HttpOpen::question(self.address, &question)?.finish()
    }

    /// A question whose answer may take its time.
    pub(crate) fn begin(&self, path: &str) -> anyhow::Result<HttpOpen> {
        HttpOpen::begin(self.address, "GET", &format!("/v2{path}"), "", "")
    }

    /// `METHOD KEY [FORM]`.
    pub(crate) fn step(&self, step: &str) -> anyhow::Result<HttpAnswer> {
        let mut parts = step.splitn(3, ' ');
        let method = parts.next().context("no method")?;
        let key = parts.next().context("no key")?;
        let form = parts.next().unwrap_or_default();
        let kind = if form.is_empty() { "" } else { FORM };
        self.ask(method, &format!("/keys{key}"), kind, form)
    }
}

/// Waits until a member has written what it says of itself.
pub(crate) fn await_index(v2: &V2, index: &str) -> anyhow::Result<()> {
    eventually("it has applied all", || Ok(v2.get("/keys/")?.header("x-etcd-index") == index))
}

/// A body without what moves by itself.
pub(crate) fn without_ttl(body: &str) -> String {
    serde_json::from_str::<Value>(body).map_or_else(
        |_| body.to_owned(),
        |mut value| {
            settle(&mut value);
            value.to_string()
        },
    )
}

/// Listings in order, times as a mark only.
fn settle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match name.as_str() {
                    "expiration" | "ttl" => *value = Value::Null,
                    _ => settle(value),
                }
            }
        }
        Value::Array(nodes) => {
            nodes.iter_mut().for_each(settle);
            nodes.sort_by_key(|node| node["key"].to_string());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Seeds that are asked for.
pub(crate) fn seeds() -> anyhow::Result<Range<u64>> {
    let Ok(text) = std::env::var("V2_SEEDS") else { return Ok(0..20) };
    let (from, to) = text.split_once("..").context("V2_SEEDS is FROM..TO")?;
    Ok(from.parse()?..to.parse()?)
}

/// Calls in a sequence.
const CALLS: usize = 40;

/// Sends one sequence to both and compares every answer.
pub(crate) fn compare(ours: &V2, theirs: &V2, seed: u64) -> anyhow::Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut told = Vec::new();
    for _ in 0..CALLS {
        let call = Call::random(&mut random, seed, &told);
        told.push(format!("{call:?}"));
        let (left, right) = (call.run(ours), call.run(theirs));
        let story = || format!("seed {seed}:\n{}", told.join("\n"));
        let (left, right) = (left.with_context(story)?, right.with_context(story)?);
        if left != right {
            bail!("{}\nours: {left:#?}\netcd: {right:#?}", story());
        }
        if let Some(index) = left.headers.get("x-etcd-index") {
            let index = index.clone();
            told.last_mut().context("told above")?.push_str(&format!(" @{index}"));
        }
    }
    Ok(())
}

/// One call.
#[derive(Debug)]
enum Call {
    Plain {
        method: &'static str,
        path: String,
        form: String,
    },
    /// A watch, and a change that ends it if nothing before it did.
    Watch {
        path: String,
        poke: String,
    },
}

/// The newest index that an answer spoke of.
fn newest(told: &[String]) -> u64 {
    let index = |line: &String| line.rsplit_once('@').and_then(|(_, index)| index.parse().ok());
    told.iter().filter_map(index).max().unwrap_or(3)
}

impl Call {
    fn random(random: &mut SmallRng, seed: u64, told: &[String]) -> Self {
        let names = ["a", "b", "ab", "_h", "%C3%A9 x"];
        let mut key = format!("/s{seed}");
        for _ in 0..random.random_range(0..4) {
            let name = names.choose(random).expect("there are names").replace(' ', "%20");
            key.push_str(&format!("/{name}"));
        }
        let newest = newest(told);
        let index = newest.saturating_sub(random.random_range(0..12));
        if random.random_ratio(1, 10) {
            let recursive = random.random::<bool>();
            let path = format!("{key}?wait=true&recursive={recursive}&waitIndex={}", index.max(1));
            let form = "value=poke&prevExist=false";
            return Self::Watch { path, poke: format!("PUT {key} {form}") };
        }
        let values = ["", "x", "y", "%3Ca%3E%26%22", "+%E2%80%A8%01"];
        let value = values.choose(random).expect("there are values");
        let mut parameters = Vec::new();
        let mut maybe = |random: &mut SmallRng, of: u32, text: String| {
            if random.random_ratio(1, of) {
                parameters.push(text);
            }
        };
        let flags = ["true", "false", "t", "0", "no", ""];
        let flag = |random: &mut SmallRng, name: &str| {
            // Mostly a right one.
            let right = flags.len() - if random.random_ratio(1, 10) { 0 } else { 2 };
            let flag = flags[..right].choose(random).expect("there are flags");
            format!("{name}={flag}")
        };
        let method = *["GET", "GET", "PUT", "PUT", "PUT", "POST", "DELETE", "HEAD"]
            .choose(random)
            .expect("there are methods");
        maybe(random, 2, format!("value={value}"));
        let text = flag(random, "recursive");
        maybe(random, if method == "PUT" { 12 } else { 3 }, text);
        for (name, of) in [("dir", 5), ("prevExist", 4), ("noValueOnSuccess", 12), ("sorted", 6)] {
            let text = flag(random, name);
            maybe(random, of, text);
        }
        maybe(random, 6, format!("prevValue={value}"));
        maybe(random, 8, format!("prevIndex={index}"));
        maybe(random, 6, "ttl=100000".to_owned());
        maybe(random, 40, "ttl=x".to_owned());
        maybe(random, 12, "refresh=true".to_owned());
        maybe(random, 40, "quorum=true".to_owned());
        maybe(random, 60, "value=%zz".to_owned());
        let parameters = parameters.join("&");
        if ["PUT", "POST"].contains(&method) && random.random::<bool>() {
            Self::Plain { method, path: key, form: parameters }
        } else {
            let path = if parameters.is_empty() { key } else { format!("{key}?{parameters}") };
            Self::Plain { method, path, form: String::new() }
        }
    }

    /// The answer without what differs between two servers by nature.
    fn run(&self, v2: &V2) -> anyhow::Result<HttpAnswer> {
        let mut answer = match self {
            Self::Plain { method, path, form } => {
                let kind = if form.is_empty() { "" } else { FORM };
                v2.ask(method, &format!("/keys{path}"), kind, form)?
            }
            Self::Watch { path, poke } => {
                let open = v2.begin(&format!("/keys{path}"))?;
                let mut poked = open.head().status != 200;
                for form in
                    ["value=poke&prevExist=false", "value=poke&prevExist=true", "prevExist=true"]
                {
                    // It may have been there already, and a directory.
                    let poke = poke.replace("value=poke&prevExist=false", form);
                    poked |= v2.step(&poke)?.status < 300;
                }
                // Below a file nothing ever happens.
                if poked { open.finish()? } else { open.head().clone() }
            }
        };
        answer.body = without_ttl(&answer.body);
        for name in ["date", "content-length", "transfer-encoding", "connection"] {
            answer.headers.remove(name);
        }
        for name in ["x-etcd-cluster-id", "x-raft-index", "x-raft-term"] {
            if let Some(value) = answer.headers.get_mut(name) {
                "there".clone_into(value);
            }
        }
        Ok(answer)
    }
}
