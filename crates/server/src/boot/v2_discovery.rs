//! v2 discovery: the founders of a cluster find each other in the v2 keys of another etcd.
//!
//! Below the URL of a token, `_config/size` says how many founders there are. Each creates a key with
//! its id that holds `NAME=URL,...`, and waits until so many are there; the first ones by creation
//! are the cluster, whoever comes later is refused. Where etcd puts what an event tells into its
//! list, this looks at the whole token again, so that no event can be missed or taken twice.
//! Source: etcd v3.4.23 etcdserver/api/v2discovery/discovery.go; features SRV-190, SRV-191.

mod exchange;

use std::time::Duration;

use base::MemberId;
use http::StatusCode;
use serde::Deserialize;

use self::exchange::{Answer, Exchange, ExchangeError, Question};
use crate::config::InitialCluster;

pub(crate) use self::exchange::PlaceError;

/// For a question that is answered at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long nothing may come of a wait before it is asked anew: connections die unseen.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// After each wait: what ends at once, whyever, must not become a flood of questions.
const WAIT_PAUSE: Duration = Duration::from_millis(200);

/// Waits between attempts grow up to two to this power, in seconds.
const BACKOFF_POWER_MAX: u32 = 8;

/// v2's codes for a key that is missing and for one that is there.
const KEY_NOT_FOUND: u16 = 100;
const KEY_EXISTS: u16 = 105;

/// Why a token does not lead to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The URL or the proxy's.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Nobody made a place for this token.
    #[error(
        "discovery: size key not found; put the number of members at {url}/_config/size first, or \
         use a token that its service gave"
    )]
    SizeNotFound {
        /// The token's.
        url: String,
    },
    /// What stands there is no size.
    #[error(
        "discovery: size key is bad; {url}/_config/size must hold a number of members above 0, not \
         {value:?}"
    )]
    BadSize {
        /// The token's.
        url: String,
        /// What is there.
        value: String,
    },
    /// The answer is none of a v2 API.
    #[error(
        "discovery: bad discovery endpoint; {url} does not answer as etcd's v2 keys do; write \
         --discovery like http://HOST:PORT/v2/keys/TOKEN"
    )]
    BadEndpoint {
        /// What was asked.
        url: String,
    },
    /// Enough others were here before.
    #[error(
        "discovery: cluster is full: {size} other members have registered with this token; do not \
         reuse discovery token; generate a new one to bootstrap a cluster"
    )]
    Full {
        /// How many there may be.
        size: usize,
    },
    /// This member was here before, and lost what it knew.
    #[error(
        "discovery: found duplicate id; a member with this name and these URLs has registered at \
         {url} already; check the data directory if it was started then, else generate a new token"
    )]
    DuplicateId {
        /// Its key.
        url: String,
    },
    /// Two founders of one name.
    #[error(
        "discovery: found duplicate name in {cluster}; give every member a name of its own and \
         generate a new token"
    )]
    DuplicateName {
        /// What they registered.
        cluster: String,
    },
    /// What founders wrote is no cluster.
    #[error("discovery: invalid peer URL in {0:?}")]
    InvalidUrl(String),
    /// The service refuses.
    #[error("discovery: {url} answers {code}: {message} ({cause})")]
    Refused {
        /// What was asked.
        url: String,
        /// v2's code.
        code: u16,
        /// v2's text.
        message: String,
        /// What it is about.
        cause: String,
    },
}

/// What may pass, and what will not.
#[derive(Debug)]
enum Trouble {
    Passing(ExchangeError),
    Final(TokenError),
}

/// Registers this member (`config` is `NAME=URL,...`) with the token at `url`, asked through `proxy`
/// if that is not empty, waits for the others and gives them all in the form of
/// `--initial-cluster`. Tries for ever while the service cannot be reached, as etcd does.
///
/// # Errors
///
/// See [`TokenError`].
pub(super) async fn join(
    url: &str,
    proxy: &str,
    own: MemberId,
    config: &str,
) -> Result<String, TokenError> {
    let mut service = Service::new(url, proxy)?;
    let own = own.to_string();
    service.check(&own).await?;
    service.register(&own, config).await?;
    loop {
        let registry = service.check(&own).await?;
        if registry.size <= registry.members.len() {
            return service.finish(&registry);
        }
        service.wait(&registry).await?;
    }
}

/// The founders of a cluster, in the form of `--initial-cluster`, for somebody who is none of them
/// (SRV-170); waits until they have all registered.
///
/// # Errors
///
/// See [`TokenError`].
pub(crate) async fn founders_of_token(url: &str, proxy: &str) -> Result<String, TokenError> {
    let mut service = Service::new(url, proxy)?;
    loop {
        let registry = service.look().await?;
        if registry.size <= registry.members.len() {
            return service.finish(&registry);
        }
        service.wait(&registry).await?;
    }
}

/// A node as v2 shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    key: String,
    value: String,
    nodes: Vec<Node>,
    created_index: u64,
}

#[derive(Debug, Deserialize)]
struct Event {
    node: Node,
}

/// A refusal as v2 shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refusal {
    error_code: u16,
    #[serde(default)]
    message: String,
    #[serde(default)]
    cause: String,
}

/// What the service holds of one token.
#[derive(Debug)]
struct Registry {
    /// How many founders there are to be.
    size: usize,
    /// Id and `NAME=URL,...`, by creation.
    members: Vec<(String, String)>,
    /// v2's index when it was looked at.
    index: u64,
}

impl Registry {
    fn new(size: usize, token: Node, index: u64) -> Self {
        let mut nodes = token.nodes;
        nodes.sort_by_key(|node| node.created_index);
        let members = nodes.into_iter().filter_map(|node| {
            let id = node.key.rsplit('/').next().unwrap_or_default();
            (id != "_config").then(|| (id.to_owned(), node.value))
        });
        Self { size, members: members.collect(), index }
    }

    /// The founders as far as they are known.
    fn founders(&self) -> &[(String, String)] {
        &self.members[..self.size.min(self.members.len())]
    }

    /// Whether this member is a founder, or may still become one.
    fn has_room(&self, own: &str) -> bool {
        self.members.len() < self.size || self.founders().iter().any(|(id, _)| id == own)
    }

    /// The founders in the form of `--initial-cluster`.
    fn cluster(&self) -> Result<String, TokenError> {
        let values: Vec<&str> = self.founders().iter().map(|(_, value)| value.as_str()).collect();
        let cluster = values.join(",");
        match InitialCluster::parse(&cluster) {
            Err(_) => Err(TokenError::InvalidUrl(cluster)),
            Ok(parsed) if parsed.members().count() != self.size => {
                Err(TokenError::DuplicateName { cluster })
            }
            Ok(_) => Ok(cluster),
        }
    }
}

/// The service of one token.
struct Service<'a> {
    url: &'a str,
    exchange: Exchange,
    failures: u32,
}

impl<'a> Service<'a> {
    fn new(url: &'a str, proxy: &str) -> Result<Self, TokenError> {
        let url = url.trim_end_matches('/');
        Ok(Self { url, exchange: Exchange::new(url, proxy)?, failures: 0 })
    }

    /// As [`Self::look`], if there is room for this member.
    async fn check(&mut self, own: &str) -> Result<Registry, TokenError> {
        let registry = self.look().await?;
        if registry.has_room(own) {
            return Ok(registry);
        }
        Err(TokenError::Full { size: registry.size })
    }

    /// Who has registered, and how many may.
    async fn look(&mut self) -> Result<Registry, TokenError> {
        loop {
            match self.look_once().await {
                Ok(registry) => {
                    self.failures = 0;
                    return Ok(registry);
                }
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => {
                    self.back_off("cluster status check", &error).await;
                }
            }
        }
    }

    async fn look_once(&self) -> Result<Registry, Trouble> {
        let size = match self.get("/_config/size?quorum=true").await {
            Ok((event, _)) => event.node.value,
            Err(Trouble::Final(TokenError::Refused { code: KEY_NOT_FOUND, .. })) => {
                let url = self.url.to_owned();
                return Err(Trouble::Final(TokenError::SizeNotFound { url }));
            }
            Err(error) => return Err(error),
        };
        let Some(size) = size.parse().ok().filter(|size| 0 < *size) else {
            let url = self.url.to_owned();
            return Err(Trouble::Final(TokenError::BadSize { url, value: size }));
        };
        let (token, index) = self.get("?quorum=true").await?;
        Ok(Registry::new(size, token.node, index))
    }

    /// Creates this member's key. Whoever cannot know whether that was done asks again: then a key
    /// that holds what was to be written is its own.
    async fn register(&mut self, own: &str, config: &str) -> Result<(), TokenError> {
        let key = format!("/{own}");
        let mut is_unsure = false;
        loop {
            let question = Question {
                rest: &format!("{key}?prevExist=false"),
                form: Some(("value", config)),
                timeout: REQUEST_TIMEOUT,
            };
            let error = match self.ask(&question).await {
                Ok(_) => break,
                Err(Trouble::Passing(error)) => error,
                Err(Trouble::Final(TokenError::Refused { code: KEY_EXISTS, .. })) => {
                    match self.get(&format!("{key}?quorum=true")).await {
                        Ok((event, _)) if is_unsure && event.node.value == config => break,
                        Err(Trouble::Passing(error)) => error,
                        Ok(_) | Err(Trouble::Final(_)) => {
                            let url = format!("{}{key}", self.url);
                            return Err(TokenError::DuplicateId { url });
                        }
                    }
                }
                Err(Trouble::Final(error)) => return Err(error),
            };
            is_unsure = true;
            self.back_off("register member itself", &error).await;
        }
        self.failures = 0;
        tracing::info!(
            "discovery-url" = self.url,
            "self" = own,
            "found self from discovery server"
        );
        Ok(())
    }

    /// Waits for something to change behind what was seen.
    async fn wait(&mut self, seen: &Registry) -> Result<(), TokenError> {
        tracing::info!(
            "discovery-url" = self.url,
            "found-peers" = seen.members.len(),
            "needed-peers" = seen.size - seen.members.len(),
            "found peers from discovery server; waiting for more"
        );
        let next = seen.index.saturating_add(1);
        let question = Question {
            rest: &format!("?wait=true&recursive=true&waitIndex={next}"),
            form: None,
            timeout: WAIT_MAX,
        };
        match self.ask(&question).await {
            // A refusal may mean that the event is forgotten already: the next look tells.
            Ok(_) | Err(Trouble::Final(TokenError::Refused { .. })) => {
                tokio::time::sleep(WAIT_PAUSE).await;
            }
            Err(Trouble::Passing(error)) => {
                self.back_off("waiting for other nodes", &error).await;
            }
            Err(Trouble::Final(error)) => return Err(error),
        }
        Ok(())
    }

    fn finish(&self, registry: &Registry) -> Result<String, TokenError> {
        for (peer, _) in registry.founders() {
            tracing::info!("discovery-url" = self.url, peer, "found peer from discovery server");
        }
        tracing::info!(
            "discovery-url" = self.url,
            "found-peers" = registry.founders().len(),
            "found all needed peers from discovery server"
        );
        registry.cluster()
    }

    async fn get(&self, rest: &str) -> Result<(Event, u64), Trouble> {
        let question = Question { rest, form: None, timeout: REQUEST_TIMEOUT };
        let answer = self.ask(&question).await?;
        let event = serde_json::from_slice(&answer.body).map_err(|_| self.bad_endpoint(rest))?;
        Ok((event, answer.index))
    }

    /// An answer with a good status.
    async fn ask(&self, question: &Question<'_>) -> Result<Answer, Trouble> {
        let answer = self.exchange.ask(question).await.map_err(Trouble::Passing)?;
        if answer.status.is_server_error() {
            return Err(Trouble::Passing(ExchangeError::Status(answer.status)));
        }
        if matches!(answer.status, StatusCode::OK | StatusCode::CREATED) {
            return Ok(answer);
        }
        let refusal = serde_json::from_slice::<Refusal>(&answer.body);
        let Refusal { error_code: code, message, cause } =
            refusal.map_err(|_| self.bad_endpoint(question.rest))?;
        let url = format!("{}{}", self.url, question.rest);
        Err(Trouble::Final(TokenError::Refused { url, code, message, cause }))
    }

    fn bad_endpoint(&self, rest: &str) -> Trouble {
        Trouble::Final(TokenError::BadEndpoint { url: format!("{}{rest}", self.url) })
    }

    async fn back_off(&mut self, reason: &str, error: &ExchangeError) {
        self.failures += 1;
        let pause = Duration::from_secs(1 << self.failures.min(BACKOFF_POWER_MAX));
        let error: &(dyn std::error::Error + 'static) = error;
        tracing::warn!(
            url = self.url,
            reason,
            backoff = format!("{pause:?}"),
            error,
            "retry connecting to discovery service"
        );
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(size: usize, members: &[(&str, &str, u64)]) -> Registry {
        let node = |(id, value, created): &(&str, &str, u64)| {
            format!("{{\"key\":\"/t/{id}\",\"value\":\"{value}\",\"createdIndex\":{created}}}")
        };
        let nodes: Vec<String> = members.iter().map(node).collect();
        let text =
            format!("{{\"node\":{{\"key\":\"/t\",\"dir\":true,\"nodes\":[{}]}}}}", nodes.join(","));
        Registry::new(size, serde_json::from_str::<Event>(&text).unwrap().node, 9)
    }

    /// SRV-190.
    #[test]
    fn the_first_by_creation_are_the_cluster() {
        let found = registry(
            2,
            &[
                ("c", "c=http://c:1", 9),
                ("a", "a=http://a:1", 8),
                ("_config", "", 4),
                ("b", "b=http://b:1,b=http://b:2", 7),
            ],
        );
        assert_eq!(found.cluster().unwrap(), "b=http://b:1,b=http://b:2,a=http://a:1");
        assert!(found.has_room("a") && found.has_room("b") && !found.has_room("c"));
        assert!(!found.has_room("d"));
        assert!(registry(2, &[("a", "a=http://a:1", 8)]).has_room("d"));
    }

    /// SRV-190.
    #[test]
    fn what_is_no_cluster_is_refused() {
        let twice = registry(2, &[("1", "a=http://a:1", 1), ("2", "a=http://b:1", 2)]);
        assert!(matches!(twice.cluster(), Err(TokenError::DuplicateName { .. })));
        let wrong = registry(1, &[("1", "nonsense", 1)]);
        assert!(matches!(wrong.cluster(), Err(TokenError::InvalidUrl(_))));
    }
}
