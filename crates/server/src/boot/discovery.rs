//! v3 discovery: the founders of a cluster find each other in the keys of another cluster.
//!
//! `/_etcd/registry/<token>/_config/size` says how many founders there are. Each founder writes
//! `NAME=URL,...` under `/_etcd/registry/<token>/members/<id>` and waits until so many are there; the
//! first ones by creation are the cluster, whoever comes later is refused.
//! Source: etcd server/etcdserver/api/v3discovery/discovery.go.

use std::time::Duration;

use base::MemberId;
use client::{Client, Credentials, Options, TlsOptions, WatchOptions};
use proto::etcdserverpb::{PutRequest, RangeRequest};
use proto::mvccpb::KeyValue;

use super::v2_discovery::TokenError;
use crate::config::{Discovery, InitialCluster};

/// Why a discovery service does not lead to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Nobody made a place for this token.
    #[error(
        "discovery: size key not found; put the number of members at {key} in the discovery \
         service first"
    )]
    SizeNotFound {
        /// Where it should be.
        key: String,
    },
    /// M12.
    #[error(
        "discovery: size key is bad; {key} must hold a number of members above 0, not {value:?}"
    )]
    BadSize {
        /// Where it is.
        key: String,
        /// What is there.
        value: String,
    },
    /// M12.
    #[error(
        "discovery: cluster is full: {size} other members have registered with this token; do not \
         reuse discovery token; generate a new one to bootstrap a cluster"
    )]
    Full {
        /// How many there may be.
        size: usize,
    },
    /// Not all founders have registered.
    #[error(
        "discovery: {found} of {size} members have registered with this token; start the others \
         first"
    )]
    Incomplete {
        /// How many have.
        found: usize,
        /// How many there must be.
        size: usize,
    },
    /// What founders wrote is no cluster.
    #[error("discovery: invalid peer URL in {0:?}")]
    InvalidUrl(String),
    /// With v2 discovery.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The service cannot be used at all.
    #[error("connecting to the discovery service")]
    Connect(#[source] client::Error),
}

impl DiscoveryError {
    /// Whether there are members enough without this one.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Token(TokenError::Full { .. }))
    }
}

/// A founder as it registered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registered {
    key: String,
    /// `NAME=URL,...`
    value: String,
    create_revision: i64,
}

/// Why what stands under a key counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum IgnoredError {
    #[error("invalid peer info returned from discovery service")]
    Info,
    #[error("found duplicate peer from discovery service")]
    Duplicate,
}

/// Registers this member (`config` is `NAME=URL,...`), waits for the others and gives them all in the
/// form of `--initial-cluster`. Tries for ever while the service cannot be reached, as etcd does.
///
/// # Errors
///
/// See [`DiscoveryError`].
pub(super) async fn join(
    settings: &Discovery,
    own: MemberId,
    config: &str,
) -> Result<String, DiscoveryError> {
    let mut service = Service::connect(settings, own).await?;
    let joined = service.join(config).await;
    match &joined {
        Ok(cluster) => tracing::info!(
            "discovery-token" = settings.token,
            "discovery-endpoints" = settings.endpoints.join(","),
            cluster,
            "discovery joined cluster successfully"
        ),
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = error;
            tracing::warn!(
                "discovery-token" = settings.token,
                "discovery-endpoints" = settings.endpoints.join(","),
                error,
                "discovery failed to join cluster"
            );
        }
    }
    joined
}

/// The founders of a cluster that is complete, in the form of `--initial-cluster`, for somebody who
/// is none of them (SRV-170).
///
/// # Errors
///
/// See [`DiscoveryError`]; also [`DiscoveryError::Incomplete`].
pub(crate) async fn founders_of(settings: &Discovery) -> Result<String, DiscoveryError> {
    let mut service = Service::connect(settings, MemberId::NONE).await?;
    let (registry, size, _) = service.look().await?;
    if registry.members.len() < size {
        return Err(DiscoveryError::Incomplete { found: registry.members.len(), size });
    }
    registry.cluster(size)
}

struct Service<'a> {
    settings: &'a Discovery,
    client: Client,
    own: MemberId,
    failures: u32,
}

/// What the service holds of one cluster.
#[derive(Debug, Default)]
struct Registry {
    /// By creation.
    members: Vec<Registered>,
}

impl Registry {
    fn add(&mut self, pair: &KeyValue) -> Result<(), IgnoredError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (key, value) = (text(&pair.key), text(&pair.value));
        if !value.contains('=') {
            return Err(IgnoredError::Info);
        }
        if self.members.iter().any(|member| member.key == key) {
            return Err(IgnoredError::Duplicate);
        }
        self.members.push(Registered { key, value, create_revision: pair.create_revision });
        self.members.sort_by_key(|member| member.create_revision);
        Ok(())
    }

    /// Adds and says so.
    fn take(&mut self, pair: &KeyValue) {
        let member_key = String::from_utf8_lossy(&pair.key);
        let member_info = String::from_utf8_lossy(&pair.value);
        let (member_key, member_info) = (member_key.trim(), member_info.trim());
        match self.add(pair) {
            Ok(()) => tracing::info!(
                "memberKey" = member_key,
                "memberInfo" = member_info,
                "found peer from discovery service"
            ),
            Err(error) => {
                tracing::warn!("memberKey" = member_key, "memberInfo" = member_info, "{error}")
            }
        }
    }

    /// Whether this member is among the first, or may still become one of them.
    fn has_room(&self, own_key: &str, size: usize) -> bool {
        self.members.iter().take(size).any(|member| member.key == own_key)
            || self.members.len() < size
    }

    /// The first members in the form of `--initial-cluster`.
    fn cluster(&self, size: usize) -> Result<String, DiscoveryError> {
        let first: Vec<&str> =
            self.members.iter().take(size).map(|member| member.value.as_str()).collect();
        let text = first.join(",");
        match InitialCluster::parse(&text) {
            Ok(_) => Ok(text),
            Err(_) => Err(DiscoveryError::InvalidUrl(text)),
        }
    }
}

/// How many of the founders there are to be; a text that is no such number is given back.
fn parse_size(value: &[u8]) -> Result<usize, String> {
    let text = String::from_utf8_lossy(value).into_owned();
    let size = text.parse::<i64>().ok().and_then(|size| usize::try_from(size).ok());
    size.filter(|size| 0 < *size).ok_or(text)
}

/// Waits between attempts grow up to two to this power, in seconds.
const BACKOFF_POWER_MAX: u32 = 8;

impl<'a> Service<'a> {
    async fn connect(settings: &'a Discovery, own: MemberId) -> Result<Self, DiscoveryError> {
        let mut options = Options::new(settings.endpoints.clone());
        options.dial_timeout = settings.dial_timeout;
        options.command_timeout = Some(settings.request_timeout);
        options.keep_alive_time = settings.keepalive_time;
        options.keep_alive_timeout = settings.keepalive_timeout;
        options.tls = tls(settings);
        options.credentials = credentials(settings);
        let client = Client::connect(options).await.map_err(DiscoveryError::Connect)?;
        Ok(Self { settings, client, own, failures: 0 })
    }

    async fn join(&mut self, config: &str) -> Result<String, DiscoveryError> {
        self.check().await?;
        self.register(config).await;
        let (mut registry, size, revision) = self.check().await?;
        if registry.members.len() < size {
            self.wait(&mut registry, size, revision).await;
        }
        registry.cluster(size)
    }

    fn key(&self, rest: &str) -> String {
        format!("/_etcd/registry/{}/{rest}", self.settings.token)
    }

    fn own_key(&self) -> String {
        self.key(&format!("members/{}", self.own))
    }

    /// As [`Self::look`], if there is room for this member.
    async fn check(&mut self) -> Result<(Registry, usize, i64), DiscoveryError> {
        let (registry, size, revision) = self.look().await?;
        if !registry.has_room(&self.own_key(), size) {
            return Err(DiscoveryError::Full { size });
        }
        Ok((registry, size, revision))
    }

    /// Who has registered, how many may, and the revision at which that was seen.
    async fn look(&mut self) -> Result<(Registry, usize, i64), DiscoveryError> {
        let size_key = self.key("_config/size");
        let members_key = self.key("members");
        loop {
            let request = RangeRequest { key: size_key.clone().into(), ..RangeRequest::default() };
            let size = match self.client.get(request).await {
                Ok(response) => match response.kvs.first() {
                    None => return Err(DiscoveryError::SizeNotFound { key: size_key }),
                    Some(pair) => parse_size(&pair.value).map_err(|value| {
                        DiscoveryError::BadSize { key: size_key.clone(), value }
                    })?,
                },
                Err(error) => {
                    self.back_off("cluster status check", &error).await;
                    continue;
                }
            };
            let request = RangeRequest {
                range_end: client::prefix_end(members_key.as_bytes()).into(),
                key: members_key.clone().into(),
                ..RangeRequest::default()
            };
            let response = match self.client.get(request).await {
                Ok(response) => response,
                Err(error) => {
                    self.back_off("cluster status check", &error).await;
                    continue;
                }
            };
            self.failures = 0;
            let mut registry = Registry::default();
            response.kvs.iter().for_each(|pair| registry.take(pair));
            let revision = response.header.map_or(0, |header| header.revision);
            return Ok((registry, size, revision));
        }
    }

    async fn register(&mut self, config: &str) {
        let key = self.own_key();
        loop {
            let request = PutRequest {
                key: key.clone().into(),
                value: config.to_owned().into(),
                ..PutRequest::default()
            };
            match self.client.put(request).await {
                Ok(_) => break,
                Err(error) => self.back_off("register member itself", &error).await,
            }
        }
        self.failures = 0;
        tracing::info!(
            "memberKey" = key,
            "memberInfo" = config,
            "register member itself successfully"
        );
    }

    /// Waits until enough have registered.
    async fn wait(&mut self, registry: &mut Registry, size: usize, revision: i64) {
        tracing::info!(
            "clusterSize" = size,
            "found-peers" = registry.members.len(),
            "discovery-token" = self.settings.token,
            "waiting for peers from discovery service"
        );
        let prefix = self.key("members");
        let mut next = revision + 1;
        while registry.members.len() < size {
            let mut watcher = self.client.watch(WatchOptions {
                range_end: client::prefix_end(prefix.as_bytes()).into(),
                key: prefix.clone().into(),
                start_revision: next,
                previous_pairs: false,
                progress_notify: false,
            });
            while registry.members.len() < size {
                match watcher.next().await {
                    Some(Ok(response)) => {
                        let pairs = response.events.iter().filter_map(|event| event.kv.as_ref());
                        for pair in pairs {
                            next = next.max(pair.mod_revision + 1);
                            registry.take(pair);
                        }
                    }
                    Some(Err(error)) => self.back_off("wait for peers", &error).await,
                    None => break,
                }
            }
        }
        tracing::info!(
            "clusterSize" = size,
            "found-peers" = registry.members.len(),
            "found all needed peers from discovery service"
        );
    }

    async fn back_off(&mut self, reason: &str, error: &client::Error) {
        self.failures += 1;
        let pause = Duration::from_secs(1 << self.failures.min(BACKOFF_POWER_MAX));
        let error: &(dyn std::error::Error + 'static) = error;
        tracing::warn!(
            "discovery-endpoints" = self.settings.endpoints.join(","),
            reason,
            backoff = format!("{pause:?}"),
            error,
            "retry connecting to discovery service"
        );
        tokio::time::sleep(pause).await;
    }
}

fn tls(settings: &Discovery) -> Option<TlsOptions> {
    let file = |name: &str| (!name.is_empty()).then(|| name.into());
    let options = TlsOptions {
        certificate: file(&settings.cert_file),
        key: file(&settings.key_file),
        authorities: file(&settings.ca_file),
        server_name: None,
        skip_verification: settings.insecure_skip_verify,
    };
    (options != TlsOptions::default() || !settings.insecure_transport).then_some(options)
}

fn credentials(settings: &Discovery) -> Option<Credentials> {
    if settings.user.is_empty() {
        return None;
    }
    // `name:password` in one flag, or in two.
    let password = settings.password.reveal();
    let (user, password) = match settings.user.split_once(':') {
        Some((user, password_in_user)) if password.is_empty() => (user, password_in_user),
        _ => (settings.user.as_str(), password),
    };
    Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str, create_revision: i64) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            create_revision,
            ..KeyValue::default()
        }
    }

    fn registry(pairs: &[KeyValue]) -> Registry {
        let mut registry = Registry::default();
        for pair in pairs {
            let _ignored = registry.add(pair);
        }
        registry
    }

    /// M12.
    #[test]
    fn a_size_is_a_number_above_zero() {
        assert_eq!(parse_size(b"3"), Ok(3));
        for bad in ["0", "-1", "", "three", "3 ", "99999999999999999999"] {
            assert_eq!(parse_size(bad.as_bytes()), Err(bad.to_owned()));
        }
    }

    /// SRV-192.
    #[test]
    fn the_first_to_register_are_the_cluster() {
        let late = pair("m/3", "c=http://c:1", 12);
        let registry = registry(&[
            late,
            pair("m/1", "a=http://a:1", 10),
            pair("m/9", "no member", 3),
            pair("m/1", "again=http://a:1", 10),
            pair("m/2", " b=http://b:1,b=http://b:2 ", 11),
        ]);
        assert_eq!(registry.members.len(), 3);
        assert_eq!(registry.cluster(2).unwrap(), "a=http://a:1,b=http://b:1,b=http://b:2");
        assert!(registry.has_room("m/2", 2));
        assert!(!registry.has_room("m/3", 2));
        assert!(registry.has_room("m/4", 4));
        assert!(!registry.has_room("m/4", 3));
    }

    #[test]
    fn what_founders_write_must_be_urls() {
        let registry = registry(&[pair("m/1", "a=nonsense", 1)]);
        let error = registry.cluster(1).unwrap_err();
        assert_eq!(error.to_string(), "discovery: invalid peer URL in \"a=nonsense\"");
    }
}
