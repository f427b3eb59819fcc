//! `member` (CTL2-54 to CTL2-58).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command/member_commands.go, client/members.go.

use std::fmt;

use base::MemberUrl;
use cli::quote::quote;
use serde_json::{Value, json};

use super::http::{Answer, Client, ClientError, Question, Until};
use super::{Call, Code, Done, Failure, escape};
use crate::terminal::say;

/// A member, as the members tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    name: String,
    peer_urls: Vec<String>,
    pub(super) client_urls: Vec<String>,
}

impl Member {
    fn read(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let list = |name: &str| {
            let texts = value[name].as_array().into_iter().flatten().filter_map(Value::as_str);
            texts.map(ToOwned::to_owned).collect()
        };
        Self {
            id: text("id"),
            name: text("name"),
            peer_urls: list("peerURLs"),
            client_urls: list("clientURLs"),
        }
    }
}

/// Why the members' API gave nothing.
#[derive(Debug)]
pub(super) enum ApiError {
    Client(ClientError),
    /// In the words of people.
    Said(String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Said(text) => f.write_str(text),
        }
    }
}

impl ApiError {
    pub(super) fn unexpected(status: u16) -> Self {
        Self::Said(format!("unexpected status code {status}"))
    }

    /// With all that is known.
    pub(super) fn failure(&self, code: Code) -> Failure {
        match self {
            Self::Client(error) => Failure::client(code, error),
            Self::Said(text) => Failure::error(code, text),
        }
    }

    /// What most commands print.
    fn plain(self) -> Failure {
        Failure::arguments(self)
    }
}

/// Asks for JSON with JSON; `path` is not escaped.
pub(super) async fn ask(
    client: &Client,
    method: &'static str,
    path: &str,
    body: Option<&Value>,
    until: Until,
) -> Result<(u16, Value), ApiError> {
    let question = Question {
        method,
        path: escape::path(&escape::canonical(path)),
        content_type: if body.is_some() { "application/json" } else { "" },
        body: body.map(Value::to_string),
        ..Question::default()
    };
    let Answer { status, body, .. } =
        client.ask(&question, until).await.map_err(ApiError::Client)?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// What an answer that tells why not tells.
pub(super) fn message(status: u16, body: &Value) -> ApiError {
    if !body.is_object() {
        return ApiError::unexpected(status);
    }
    ApiError::Said(body["message"].as_str().unwrap_or_default().to_owned())
}

/// All members.
pub(super) async fn members(client: &Client, until: Until) -> Result<Vec<Member>, ApiError> {
    let (status, body) = ask(client, "GET", "/v2/members", None, until).await?;
    if status != 200 {
        return Err(ApiError::unexpected(status));
    }
    Ok(body["members"].as_array().into_iter().flatten().map(Member::read).collect())
}

async fn leader(client: &Client, until: Until) -> Result<Member, ApiError> {
    let (status, body) = ask(client, "GET", "/v2/members/leader", None, until).await?;
    if status == 200 { Ok(Member::read(&body)) } else { Err(ApiError::unexpected(status)) }
}

/// CTL2-54.
pub(super) async fn list(call: &Call) -> Done {
    if !call.own.rest.is_empty() {
        return Err(Failure::arguments("No arguments accepted"));
    }
    let client = call.connect().await?;
    let until = client.deadline();
    let members = members(&client, until).await.map_err(ApiError::plain)?;
    let leader = leader(&client, until).await;
    let leader =
        leader.map_err(|error| Failure::arguments(format!("Failed to get leader:  {error}")))?;
    for Member { id, name, peer_urls, client_urls } in &members {
        let peers = peer_urls.join(",");
        if name.is_empty() {
            say!("{id}[unstarted]: peerURLs={peers}");
            continue;
        }
        let (clients, leads) = (client_urls.join(","), *id == leader.id);
        say!("{id}: name={name} peerURLs={peers} clientURLs={clients} isLeader={leads}");
    }
    Ok(())
}

/// The request body that tells peer URLs.
fn peer_urls(texts: &[&str]) -> Result<Value, Failure> {
    let urls: Result<Vec<MemberUrl>, _> = texts.iter().map(|text| MemberUrl::parse(text)).collect();
    let mut urls = urls.map_err(Failure::arguments)?;
    urls.sort();
    let texts: Vec<&str> = urls.iter().map(MemberUrl::as_str).collect();
    Ok(json!({ "peerURLs": texts }))
}

/// CTL2-55.
pub(super) async fn add(call: &Call) -> Done {
    let [name, url] = &call.own.rest[..] else {
        return Err(Failure::arguments("Provide a name and a single member peerURL"));
    };
    let client = call.connect().await?;
    let until = client.deadline();
    let asked = peer_urls(&[url])?;
    let answered = ask(&client, "POST", "/v2/members", Some(&asked), until).await;
    let (status, body) = answered.map_err(ApiError::plain)?;
    if status != 201 {
        let error =
            if status == 409 { message(status, &body) } else { ApiError::unexpected(status) };
        return Err(error.plain());
    }
    let id = Member::read(&body).id;
    say!("Added member named {name} with ID {id} to cluster");
    let members = members(&client, until).await.map_err(ApiError::plain)?;
    let mut cluster = Vec::new();
    for member in &members {
        let called = if member.id == id { name } else { &member.name };
        cluster.extend(member.peer_urls.iter().map(|url| format!("{called}={url}")));
    }
    say!("\nETCD_NAME={}", quote(name.as_bytes()));
    say!("ETCD_INITIAL_CLUSTER={}", quote(cluster.join(",").as_bytes()));
    say!("ETCD_INITIAL_CLUSTER_STATE=\"existing\"");
    Ok(())
}

/// CTL2-56.
pub(super) async fn remove(call: &Call) -> Done {
    let [wanted] = &call.own.rest[..] else {
        return Err(Failure::arguments("Provide a single member ID"));
    };
    let client = call.connect().await?;
    let until = client.deadline();
    let members = members(&client, until).await.map_err(|error| {
        Failure::arguments(format!("Error while verifying ID against known members: {error}"))
    })?;
    for member in members.iter().filter(|member| member.name == *wanted) {
        eprintln!(
            "Found a member named {wanted}; if this is correct, please use its ID, eg:\n\tetcdctl \
             member remove {}\nFor more details, read the documentation at https://github.com/\
             etcd-io/etcd/blob/master/Documentation/runtime-configuration.md#remove-a-member\n",
            member.id
        );
    }
    if !members.iter().any(|member| member.id == *wanted) {
        let text = format!("Couldn't find a member in the cluster with an ID of {wanted}.");
        return Err(Failure::arguments(text));
    }
    let answered = ask(&client, "DELETE", &format!("/v2/members/{wanted}"), None, until).await;
    let error = match answered {
        Ok((204 | 410, _)) => {
            say!("Removed member {wanted} from cluster");
            return Ok(());
        }
        Ok((status, _)) => ApiError::unexpected(status),
        Err(error) => error,
    };
    let text = format!("Received an error trying to remove member {wanted}: {error}");
    Err(Failure { text, code: Code::BadArguments })
}

/// CTL2-57.
pub(super) async fn update(call: &Call) -> Done {
    let [id, urls] = &call.own.rest[..] else {
        return Err(Failure::arguments(
            "Provide an ID and a list of comma separated peerURL \
             (0xabcd http://example.com,http://example1.com)",
        ));
    };
    let client = call.connect().await?;
    let asked = peer_urls(&urls.split(',').collect::<Vec<_>>())?;
    let path = format!("/v2/members/{id}");
    let answered = ask(&client, "PUT", &path, Some(&asked), client.deadline()).await;
    match answered.map_err(ApiError::plain)? {
        (204, _) => {
            say!("Updated member with ID {id} in cluster");
            Ok(())
        }
        (status @ (404 | 409), body) => Err(message(status, &body).plain()),
        (status, _) => Err(ApiError::unexpected(status).plain()),
    }
}
