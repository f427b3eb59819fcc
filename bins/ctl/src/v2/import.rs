//! `import`: the keys of a snapshot file, set one by one in a running cluster.
//!
//! Three kinds of files are understood: what etcd 0.4 wrote, the bare tree inside it, and the `.snap`
//! files that members have written since. Hidden keys are left out unless they are named. A time to
//! live is at least five minutes, so that nothing is gone before the import is over.
//!
//! etcd: v3.0.0 etcdctl/ctlv2/command/import_snap_command.go (removed in 3.1); the file's layout:
//! etcd v2.3 migrate/snapshot.go.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{raftpb, snappb};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::http::Client;
use super::keys::Asking;
use super::{Call, Done, Failure, log};
use crate::terminal::say;

/// Seconds that every imported key lives at least.
const TTL_SECONDS_MIN: i64 = 300;

/// A key to be set.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    path: String,
    value: String,
    /// Seconds; 0 for ever.
    ttl: i64,
}

pub(super) async fn run(call: &Call) -> Done {
    let path = call.own.text("snap").unwrap_or_default();
    if path.is_empty() {
        say!("no snapshot file provided (use --snap)");
        return Err(Failure { text: String::new(), code: super::Code::BadArguments });
    }
    let Ok(bytes) = std::fs::read(Path::new(path)) else {
        say!("cannot read snapshot file {path}");
        return Err(Failure { text: String::new(), code: super::Code::BadArguments });
    };
    let root = root(&bytes).ok_or_else(|| {
        Failure::arguments(format!(
            "{path} is no snapshot: neither etcd 0.4's file nor a .snap file of a member"
        ))
    })?;
    let clients = match call.own.int("c") {
        0 => 10,
        count => usize::try_from(count).unwrap_or(1),
    };
    let client = call.connect().await?;
    say!("starting to import snapshot {path} with {clients} clients");
    let mut keys = Vec::new();
    collect(&root, "/", false, &mut keys);
    for hidden in call.own.texts("hidden") {
        let node = hidden
            .split('/')
            .filter(|part| !part.is_empty())
            .try_fold(&root, |node, part| node["Children"].get(part));
        let node = node.ok_or_else(|| Failure::arguments(format!("there is no key {hidden}")))?;
        collect(node, &super::escape::canonical(hidden), true, &mut keys);
    }
    let mut setting = futures_util::stream::iter(keys.iter().map(|key| set(&client, key)))
        .buffer_unordered(clients);
    while let Some(done) = setting.next().await {
        done?;
    }
    say!("finished importing {} keys", keys.len());
    Ok(())
}

async fn set(client: &Client, key: &Key) -> Done {
    log::line(&format!("copying key: {}", key.path));
    let mut ttl = key.ttl;
    if ttl != 0 && ttl < TTL_SECONDS_MIN {
        log::line(&format!("extending key {}'s ttl to {TTL_SECONDS_MIN} seconds", key.path));
        ttl = TTL_SECONDS_MIN;
    }
    let asking = Asking::new("PUT", &key.path).value(&key.value).ttl(ttl);
    asking.run(client).await.map(drop).map_err(|failure| {
        let text = format!("failed to copy key {}: {}", key.path, failure.text);
        Failure { text, ..failure }
    })
}

/// The node that users' keys hang from.
fn root(bytes: &[u8]) -> Option<Value> {
    let tree = snap_file(bytes).or_else(|| json(bytes)).or_else(|| {
        // etcd 0.4 wrote a line with a checksum first.
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        json(&bytes[end + 1..])
    })?;
    let root = tree.get("Root").filter(|root| root.is_object())?;
    // Members keep their own part beside the users'.
    let is_split = root["Children"].get("0").is_some() && root["Children"].get("1").is_some();
    Some(if is_split { root["Children"]["1"].clone() } else { root.clone() })
}

/// A tree, or etcd 0.4's frame around one.
fn json(bytes: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    if value.get("Root").is_some() {
        return Some(value);
    }
    let state = value.get("state").or_else(|| value.get("State"))?.as_str()?;
    serde_json::from_slice(&STANDARD.decode(state).ok()?).ok()
}

/// The tree in a member's file.
fn snap_file(bytes: &[u8]) -> Option<Value> {
    let outer = snappb::Snapshot::decode(bytes).ok()?;
    let inner = raftpb::Snapshot::decode(outer.data?).ok()?;
    serde_json::from_slice(&inner.data?).ok()
}

/// Notes the keys below a node, and the hidden ones only if the node was named.
fn collect(node: &Value, path: &str, is_named: bool, keys: &mut Vec<Key>) {
    let Some(children) = node["Children"].as_object() else {
        let value = node["Value"].as_str().unwrap_or_default().to_owned();
        keys.push(Key { path: path.to_owned(), value, ttl: ttl(node) });
        return;
    };
    log::line(&format!("entering dir: {path}"));
    for (name, child) in sorted(children) {
        if is_named || !name.starts_with('_') {
            let path = format!("{}/{name}", path.trim_end_matches('/'));
            // Below a named node only what is not hidden again.
            collect(child, &path, false, keys);
        }
    }
}

fn sorted(children: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut children: Vec<_> = children.iter().collect();
    children.sort_unstable_by_key(|(name, _)| *name);
    children
}

/// Seconds that are left; 0 for ever, and one for what is over.
fn ttl(node: &Value) -> i64 {
    let expires =
        node["ExpireTime"].as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let Some(expires) = expires.filter(|expires| 1970 < expires.year()) else { return 0 };
    (expires - OffsetDateTime::now_utc()).whole_seconds().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = r#"{"Root":{"Path":"/","Children":{"a":{"Path":"/a","Value":"1","Children":null,
        "ExpireTime":"0001-01-01T00:00:00Z"},"_h":{"Children":{"x":{"Value":"2",
        "ExpireTime":"2015-01-01T00:00:00Z"}}},"d":{"Children":{}}}}}"#;

    fn found(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        collect(&root(bytes).unwrap(), "/", false, &mut keys);
        keys
    }

    #[test]
    fn three_kinds_of_files_have_the_same_keys() {
        let expected = [Key { path: "/a".to_owned(), value: "1".to_owned(), ttl: 0 }];
        assert_eq!(found(TREE.as_bytes()), expected);
        let framed =
            format!("0badcafe\n{{\"lastIndex\":9,\"state\":\"{}\"}}", STANDARD.encode(TREE));
        assert_eq!(found(framed.as_bytes()), expected);
        let split = TREE.replacen(
            "\"Children\":{",
            "\"Children\":{\"0\":{\"Children\":{}},\"1\":{\"Children\":{",
            1,
        );
        let split = format!("{}}}}}}}", split.strip_suffix('}').unwrap());
        let inner = raftpb::Snapshot { data: Some(split.into()), ..Default::default() };
        let outer = snappb::Snapshot { crc: None, data: Some(inner.encode_to_vec().into()) };
        assert_eq!(found(&outer.encode_to_vec()), expected);
        assert!(root(b"{}").is_none() && root(b"").is_none());
    }

    #[test]
    fn hidden_keys_come_only_if_named_and_live_on_a_little() {
        let root = root(TREE.as_bytes()).unwrap();
        let mut keys = Vec::new();
        collect(&root["Children"]["_h"], "/_h", true, &mut keys);
        let expected = Key { path: "/_h/x".to_owned(), value: "2".to_owned(), ttl: 1 };
        assert_eq!(keys, [expected]);
    }
}
