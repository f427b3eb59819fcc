//! Which members are asked, and how: from flags, the environment and DNS (CTL2-03 to CTL2-07).
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command/util.go.

use std::time::Duration;

use base64::Engine as _;
use cli::quote::quote;
use client::srv::Dns;
use tls::{ClientPolicy, Protocols, Settings};
use url::Url;

use super::flags::Parsed;
use super::{Code, Failure};
use crate::terminal;

/// What a client is made of.
#[derive(Debug)]
pub(super) struct ClientSettings {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) policy: ClientPolicy,
    /// `Authorization`.
    pub(super) authorization: Option<String>,
    /// Of one request to one member, until its answer is there.
    pub(super) timeout: Duration,
    /// Of a command.
    pub(super) total_timeout: Duration,
    /// Whether requests are shown as `curl` would be told them.
    pub(super) is_debug: bool,
}

/// Where a member is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// As it was given, with a scheme.
    pub(super) text: String,
    url: Url,
}

impl Endpoint {
    /// Reads `http://host:port`; without a scheme it is `http`, which the original refuses.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&text).map_err(|error| {
            let shown = quote(text.as_bytes());
            Failure::plain(Code::BadArguments, format!("parse {shown}: {error}"))
        })?;
        Ok(Self { text, url })
    }

    pub(super) fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// Name or address, without brackets.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_matches(['[', ']'])
    }

    pub(super) fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(80)
    }

    /// Host and port as they were given.
    pub(super) fn authority(&self) -> &str {
        let (_, rest) = self.text.split_once("://").unwrap_or(("", &self.text));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default()
    }

    /// Scheme, host and port, and the path before that of the API.
    pub(super) fn base(&self) -> String {
        let prefix = self.url.path().trim_end_matches('/');
        format!("{}://{}{prefix}", self.scheme(), self.authority())
    }
}

impl ClientSettings {
    /// Reads flags and environment, asks DNS if they say so, and for a password if it is missing.
    ///
    /// With `is_exact` the other dialect's variables mean nothing.
    pub(super) async fn read(global: &Parsed, is_exact: bool) -> Result<Self, Failure> {
        let given = Given { global, is_exact };
        let endpoints = given.endpoints().await?;
        let policy = given.policy()?;
        Ok(Self {
            endpoints,
            policy,
            authorization: given.authorization()?,
            timeout: given.duration("timeout", 2),
            total_timeout: given.duration("total-timeout", 5),
            is_debug: global.is_set("debug"),
        })
    }
}

/// Flags, with the environment behind them.
struct Given<'g> {
    global: &'g Parsed,
    is_exact: bool,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Given<'_> {
    fn text(&self, flag: &str, name: &str) -> Option<String> {
        let given = self.global.text(flag).filter(|value| !value.is_empty());
        given.map(ToOwned::to_owned).or_else(|| variable(name))
    }

    /// As [`Given::text`], with what the other dialect calls it behind that.
    fn text_or(&self, flag: &str, name: &str, other: &str) -> Option<String> {
        self.text(flag, name).or_else(|| variable(other).filter(|_| !self.is_exact))
    }

    /// Flags of durations were checked when they were read.
    fn duration(&self, flag: &str, otherwise_seconds: u64) -> Duration {
        let given = self.global.text(flag).and_then(|text| cli::duration::parse(text).ok());
        given.unwrap_or_else(|| Duration::from_secs(otherwise_seconds))
    }

    fn domain(&self) -> Option<String> {
        self.text("discovery-srv", "ETCDCTL_DISCOVERY_SRV")
    }

    fn is_insecure(&self) -> bool {
        self.global.is_set("insecure-discovery") || variable("ETCDCTL_INSECURE_DISCOVERY").is_some()
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, Failure> {
        let mut texts = self.discovered().await?;
        if texts.is_empty() {
            let list = self
                .text("endpoints", "ETCDCTL_ENDPOINTS")
                .or_else(|| self.text("endpoint", "ETCDCTL_ENDPOINT"))
                .or_else(|| self.text("peers", "ETCDCTL_PEERS"))
                .unwrap_or_else(|| "http://127.0.0.1:2379,http://127.0.0.1:4001".to_owned());
            texts = list.split(',').map(ToOwned::to_owned).collect();
        }
        texts.iter().map(|text| Endpoint::parse(text)).collect()
    }

    async fn discovered(&self) -> Result<Vec<String>, Failure> {
        let Some(domain) = self.domain() else { return Ok(Vec::new()) };
        let service = variable("ETCDCTL_DISCOVERY_SRV_NAME").unwrap_or_default();
        let found = client::srv::endpoints(&Dns::of_system(), &domain, &service).await;
        let failed =
            |error: client::srv::NoEndpoints| Failure::plain(Code::BadArguments, error.to_string());
        let mut found = found.map_err(failed)?;
        if !self.is_insecure() {
            found.retain(|endpoint| {
                let is_secure = !endpoint.starts_with("http://");
                if !is_secure {
                    let shown = quote(endpoint.as_bytes());
                    eprintln!("ignoring discovered insecure endpoint {shown}");
                }
                is_secure
            });
        }
        Ok(found)
    }

    fn policy(&self) -> Result<ClientPolicy, Failure> {
        let settings = Settings {
            cert_file: self
                .text_or("cert-file", "ETCDCTL_CERT_FILE", "ETCDCTL_CERT")
                .map(Into::into),
            key_file: self.text_or("key-file", "ETCDCTL_KEY_FILE", "ETCDCTL_KEY").map(Into::into),
            trusted_ca_file: self
                .text_or("ca-file", "ETCDCTL_CA_FILE", "ETCDCTL_CACERT")
                .map(Into::into),
            // Whoever answers for the domain must prove that it is the domain's.
            server_name: self.domain().filter(|_| !self.is_insecure()),
            ..Settings::default()
        };
        ClientPolicy::new(&settings, Protocols::Unsaid)
            .map_err(|error| Failure::plain(Code::BadArguments, tls::describe_policy_error(&error)))
    }

    fn authorization(&self) -> Result<Option<String>, Failure> {
        let user = match self.text_or("username", "ETCDCTL_USERNAME", "ETCDCTL_USER") {
            None => return Ok(None),
            Some(user) if user.contains(':') => user,
            Some(user) => {
                let failed =
                    |error: std::io::Error| Failure::plain(Code::BadArguments, error.to_string());
                let password = terminal::ask_password("Password: ").map_err(failed)?;
                format!("{user}:{password}")
            }
        };
        // Without a name nobody is told.
        if user.starts_with(':') {
            return Ok(None);
        }
        let encoded = base64::engine::general_purpose::STANDARD.encode(user);
        Ok(Some(format!("Basic {encoded}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTL2-03.
    #[test]
    fn endpoints_keep_what_was_given() {
        let endpoint = Endpoint::parse("http://localhost:80/etcd/").unwrap();
        assert_eq!((endpoint.host(), endpoint.port()), ("localhost", 80));
        assert_eq!(endpoint.authority(), "localhost:80");
        assert_eq!(endpoint.base(), "http://localhost:80/etcd");
        assert_eq!(endpoint.text, "http://localhost:80/etcd/");
        let endpoint = Endpoint::parse("127.0.0.1:2379").unwrap();
        assert_eq!(endpoint.base(), "http://127.0.0.1:2379");
        let endpoint = Endpoint::parse("https://[::1]:2379").unwrap();
        assert_eq!((endpoint.host(), endpoint.authority()), ("::1", "[::1]:2379"));
        assert!(Endpoint::parse("http://a:b").is_err());
    }
}
