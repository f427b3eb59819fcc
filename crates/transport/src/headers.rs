//! What every request between members says about its sender, and what the receiver checks.
//!
//! Identifiers are compared as text, so they have no leading zeros. Releases are strict
//! `major.minor.patch`: etcd's members end on anything else.
//! Source: etcd: server/etcdserver/api/rafthttp/{http,util}.go.

use base::version;
use http::{HeaderMap, HeaderValue};

use crate::transport::Config;

/// The sender.
pub(crate) const FROM: &str = "x-server-from";
/// Its release.
pub(crate) const SERVER_VERSION: &str = "x-server-version";
/// The oldest cluster it can be in.
const MINIMUM_CLUSTER_VERSION: &str = "x-min-cluster-version";
/// The cluster.
pub(crate) const CLUSTER: &str = "x-etcd-cluster-id";
/// Where the sender can be reached, by commas.
pub(crate) const PEER_URLS: &str = "x-peerurls";
/// Whom a stream is wanted from.
pub(crate) const TO: &str = "x-raft-to";

/// The body of a 412 if one of two releases is too old.
pub(crate) const INCOMPATIBLE_VERSION: &str = "incompatible version";
/// The body of a 412 if the clusters differ.
pub(crate) const CLUSTER_MISMATCH: &str = "cluster ID mismatch";

/// The first two numbers of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    major: u64,
    minor: u64,
}

impl Release {
    const LOCAL: &str = version::COMPATIBLE;

    /// `None` unless `text` is what etcd's members read: three numbers without leading zeros, then
    /// possibly `-` and more.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut numbers = core.split('.').map(|part| {
            let plain = part.bytes().all(|byte| byte.is_ascii_digit())
                && (part.len() == 1 || !part.starts_with('0'));
            if plain { part.parse::<u64>().ok() } else { None }
        });
        let (major, minor, _patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(Self { major, minor })
    }

    fn local() -> Self {
        Self::parse(Self::LOCAL).expect("our own release is well-formed")
    }

    /// Whether streams of that release are known to us: newer ones look after us.
    pub(crate) fn has_streams(self) -> bool {
        let known = match self.major {
            2 => 1..=3,
            3 => 0..=7,
            _ => return Self::local() <= self,
        };
        Self::local() <= self || known.contains(&self.minor)
    }

    /// A header's; members of etcd 2.0 sent none.
    pub(crate) fn of(headers: &HeaderMap, name: &str) -> Option<Self> {
        headers
            .get(name)
            .map_or(Some(Self { major: 2, minor: 0 }), |value| Self::parse(value.to_str().ok()?))
    }
}

/// Why a request is not taken; both are answered by 412.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Version,
    Cluster,
}

impl Mismatch {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Version => INCOMPATIBLE_VERSION,
            Self::Cluster => CLUSTER_MISMATCH,
        }
    }
}

/// Checks that the sender of `headers` may talk to the member of `config`.
pub(crate) fn check(config: &Config, headers: &HeaderMap) -> Result<(), Mismatch> {
    let oldest = Release::parse(version::MINIMUM_CLUSTER).expect("well-formed");
    let remote = Release::of(headers, SERVER_VERSION).ok_or(Mismatch::Version)?;
    let remote_oldest = Release::of(headers, MINIMUM_CLUSTER_VERSION).ok_or(Mismatch::Version)?;
    if remote < oldest || Release::local() < remote_oldest {
        return Err(Mismatch::Version);
    }
    let cluster = headers.get(CLUSTER).map_or(&b""[..], HeaderValue::as_bytes);
    if cluster != config.cluster.to_string().as_bytes() {
        return Err(Mismatch::Cluster);
    }
    Ok(())
}

/// What every request of the member of `config` says.
pub(crate) fn of_requests(config: &Config) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name, text: &str| {
        // Only peer URLs could hold what a header cannot; without them a peer still answers.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(http::HeaderName::from_static(name), value);
        }
    };
    put(FROM, &config.local.to_string());
    put(SERVER_VERSION, version::COMPATIBLE);
    put(MINIMUM_CLUSTER_VERSION, version::MINIMUM_CLUSTER);
    put(CLUSTER, &config.cluster.to_string());
    put(PEER_URLS, &config.peer_urls.join(","));
    headers
}

#[cfg(test)]
mod tests {
    use base::{ClusterId, MemberId};

    use super::*;

    fn config() -> Config {
        Config {
            local: MemberId(0xa),
            cluster: ClusterId(0xbeef),
            peer_urls: vec!["http://127.0.0.1:2380".into()],
            dial_timeout: std::time::Duration::from_secs(1),
            read_timeout: std::time::Duration::from_secs(5),
        }
    }

    #[test]
    fn releases_are_three_plain_numbers() {
        let release = |major, minor| Some(Release { major, minor });
        assert_eq!(Release::parse("3.5.30"), release(3, 5));
        assert_eq!(Release::parse("3.6.0-rc.1"), release(3, 6));
        for text in ["", "3", "3.5", "3.5.1.1", "v3.5.1", "3.05.1", "3.-5.1", "3..1", "3.+5.1"] {
            assert_eq!(Release::parse(text), None, "{text}");
        }
    }

    #[test]
    fn our_own_headers_are_accepted() {
        assert_eq!(check(&config(), &of_requests(&config())), Ok(()));
    }

    #[test]
    fn another_cluster_and_old_releases_are_refused() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = of_requests(&config());
            headers.insert(name, HeaderValue::from_static(value));
            check(&config(), &headers)
        };
        assert_eq!(with(CLUSTER, "0beef"), Err(Mismatch::Cluster));
        assert_eq!(with(SERVER_VERSION, "2.3.8"), Err(Mismatch::Version));
        assert_eq!(with(SERVER_VERSION, "3.4.23"), Ok(()));
        assert_eq!(with(SERVER_VERSION, "3.9.0"), Ok(()));
        assert_eq!(with(SERVER_VERSION, "newest"), Err(Mismatch::Version));
        assert_eq!(with(MINIMUM_CLUSTER_VERSION, "3.8.0"), Err(Mismatch::Version));
        let mut bare = of_requests(&config());
        bare.remove(SERVER_VERSION);
        assert_eq!(check(&config(), &bare), Err(Mismatch::Version));
    }

    #[test]
    fn streams_of_every_supported_release_are_known() {
        for text in ["2.1.0", "3.0.0", "3.4.23", "3.7.1", "3.12.0", "4.0.0"] {
            assert!(Release::parse(text).unwrap().has_streams(), "{text}");
        }
        assert!(!Release::parse("2.0.0").unwrap().has_streams());
    }
}
