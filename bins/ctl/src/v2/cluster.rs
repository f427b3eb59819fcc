//! Commands for the cluster (features 4.3).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command/{cluster_health,member_commands}.go.

use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use super::http::{Answer, Question};
use super::{Call, Code, Done, Failure};
use crate::terminal::say;

/// Between two looks of `cluster-health --forever`.
const PAUSE: Duration = Duration::from_secs(10);

fn question(method: &'static str, path: &str, body: &Value) -> Question {
    let has_body = !body.is_null();
    Question {
        method,
        path: path.to_owned(),
        content_type: if has_body { "application/json" } else { "" },
        body: if has_body { body.to_string() } else { String::new() },
        waits: false,
    }
}

/// An answer of the members API; its errors have a message.
async fn ask(call: &Call, asked: &Question) -> Result<Value, Failure> {
    let plain = |text: String| Failure::plain(Code::BadArguments, text);
    let answered = call.client.ask(asked).await;
    let Answer { status, body, .. } = answered.map_err(|error| plain(error.with_details()))?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status < 300 { Ok(body) } else { Err(plain(text(&body, "message").to_owned())) }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn list<'v>(value: &'v Value, name: &str) -> Vec<&'v str> {
    value[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

async fn members(call: &Call) -> Result<Vec<Value>, Failure> {
    let answer = ask(call, &question("GET", "/v2/members", &Value::Null)).await?;
    Ok(answer["members"].as_array().cloned().unwrap_or_default())
}

/// CTL2-50 to CTL2-53.
pub(super) async fn health(call: &Call) -> Done {
    let asked = question("GET", "/v2/members", &Value::Null);
    let members = match call.client.ask(&asked).await {
        Ok(answer) => serde_json::from_slice::<Value>(&answer.body).unwrap_or_default(),
        Err(error) => {
            say!("cluster may be unhealthy: failed to list members");
            return Err(Failure::error(Code::Server, error.with_details()));
        }
    };
    let members = members["members"].as_array().cloned().unwrap_or_default();
    loop {
        let mut healthy = 0;
        for member in &members {
            healthy += usize::from(is_healthy(call, member).await);
        }
        let is_well = healthy == members.len();
        match healthy {
            _ if is_well => say!("cluster is healthy"),
            0 => say!("cluster is unavailable"),
            _ => say!("cluster is degraded"),
        }
        if !call.own.is_set("forever") {
            return if is_well { Ok(()) } else { Err(Failure::plain(Code::NotHealthy, "")) };
        }
        say!("\nnext check after 10 second...\n");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn is_healthy(call: &Call, member: &Value) -> bool {
    let (id, urls) = (text(member, "id"), list(member, "clientURLs"));
    if urls.is_empty() {
        say!("member {id} is unreachable: no available published client urls");
        return false;
    }
    for url in &urls {
        let asked = question("GET", "/health", &Value::Null);
        let answered = match Url::parse(url) {
            Ok(parsed) => call.client.ask_one(&parsed, &asked).await,
            Err(error) => Err(error.to_string()),
        };
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) => {
                let error = format!("Get \"{url}/health\": {error}");
                say!("failed to check the health of member {id} on {url}: {error}");
                continue;
            }
        };
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let is_well = said["health"] == "true" || said["health"] == true;
        if is_well {
            say!("member {id} is healthy: got healthy result from {url}");
        } else {
            say!("member {id} is unhealthy: got unhealthy result from {url}");
        }
        return is_well;
    }
    say!("member {id} is unreachable: [{}] are all unreachable", urls.join(" "));
    false
}

/// CTL2-54 to CTL2-57.
pub(super) async fn member(call: &mut Call) -> Done {
    if call.own.rest.is_empty() {
        let text = "etcdctl member: one of list, add, remove, update is needed";
        return Err(Failure::plain(Code::BadArguments, text));
    }
    let verb = call.own.rest.remove(0);
    call.client.sync(&call.global).await?;
    match verb.as_str() {
        "list" => list_members(call).await,
        "add" => add(call).await,
        "remove" => remove(call).await,
        "update" => update(call).await,
        verb => Err(Failure::plain(Code::Unknown, format!("No help topic for '{verb}'"))),
    }
}

async fn list_members(call: &Call) -> Done {
    if !call.own.rest.is_empty() {
        return Err(Failure::plain(Code::BadArguments, "No arguments accepted"));
    }
    let members = members(call).await?;
    let leader = ask(call, &question("GET", "/v2/members/leader", &Value::Null)).await;
    let leader = leader.map_err(|failure| {
        Failure::plain(failure.code, format!("Failed to get leader:  {}", failure.text))
    })?;
    for member in &members {
        let (id, name) = (text(member, "id"), text(member, "name"));
        let peers = list(member, "peerURLs").join(",");
        if name.is_empty() {
            say!("{id}[unstarted]: peerURLs={peers}");
            continue;
        }
        let clients = list(member, "clientURLs").join(",");
        let leads = id == text(&leader, "id");
        say!("{id}: name={name} peerURLs={peers} clientURLs={clients} isLeader={leads}");
    }
    Ok(())
}

async fn add(call: &Call) -> Done {
    let [name, url] = &call.own.rest[..] else {
        let text = "Provide a name and a single member peerURL";
        return Err(Failure::plain(Code::BadArguments, text));
    };
    let added = ask(call, &question("POST", "/v2/members", &json!({ "peerURLs": [url] }))).await?;
    let id = text(&added, "id");
    say!("Added member named {name} with ID {id} to cluster");
    let members = members(call).await?;
    let mut conf = Vec::new();
    for member in &members {
        let called = if text(member, "id") == id { name.as_str() } else { text(member, "name") };
        conf.extend(list(member, "peerURLs").iter().map(|url| format!("{called}={url}")));
    }
    say!("\nETCD_NAME={name:?}");
    say!("ETCD_INITIAL_CLUSTER={:?}", conf.join(","));
    say!("ETCD_INITIAL_CLUSTER_STATE=\"existing\"");
    Ok(())
}

async fn remove(call: &Call) -> Done {
    let [wanted] = &call.own.rest[..] else {
        return Err(Failure::plain(Code::BadArguments, "Provide a single member ID"));
    };
    let members = members(call).await?;
    for member in members.iter().filter(|member| text(member, "name") == wanted) {
        let id = text(member, "id");
        eprintln!(
            "Found a member named {wanted}; if this is correct, please use its ID, eg:\n\
             \tetcdctl member remove {id}"
        );
    }
    if !members.iter().any(|member| text(member, "id") == wanted) {
        let text = format!("Couldn't find a member in the cluster with an ID of {wanted}.");
        return Err(Failure::plain(Code::BadArguments, text));
    }
    let asked = question("DELETE", &format!("/v2/members/{wanted}"), &Value::Null);
    ask(call, &asked).await.map_err(|Failure { text, code }| {
        let text = format!("Received an error trying to remove member {wanted}: {text}");
        Failure { text, code }
    })?;
    say!("Removed member {wanted} from cluster");
    Ok(())
}

async fn update(call: &Call) -> Done {
    let [id, urls] = &call.own.rest[..] else {
        let text = "Provide an ID and a list of comma separated peerURL \
                    (0xabcd http://example.com,http://example1.com)";
        return Err(Failure::plain(Code::BadArguments, text));
    };
    let urls: Vec<&str> = urls.split(',').collect();
    let path = format!("/v2/members/{id}");
    ask(call, &question("PUT", &path, &json!({ "peerURLs": urls }))).await?;
    say!("Updated member with ID {id} in cluster");
    Ok(())
}
