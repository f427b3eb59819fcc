//! Which members a proxy sends to, and in which order: all whose client URLs are known, but for a
//! while not those that did not answer.
//!
//! Source: etcd v3.4.23 proxy/httpproxy/director.go.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use state::members::MemberObject;

use super::ASK_TIME_MAX;
use super::cluster_file::ClusterFile;
use crate::boot::members_of;
use crate::peers::ask::Asker;

/// At least so long between two looks, etcd looks more often as long as it finds nobody.
const LONG_INTERVAL: Duration = Duration::from_secs(30);

/// Between two looks while nobody is found.
const SHORT_INTERVAL: Duration = Duration::from_secs(1);

/// The members to send to; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Director {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    failure_wait: Duration,
    endpoints: Mutex<Vec<Endpoint>>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    url: String,
    /// When it did not answer.
    failed: Option<Instant>,
}

impl Director {
    /// Nobody yet.
    pub(super) fn new(failure_wait: Duration) -> Self {
        Self { shared: Arc::new(Shared { failure_wait, endpoints: Mutex::default() }) }
    }

    /// The client URLs to try, in this order.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.endpoints_at(Instant::now())
    }

    fn endpoints_at(&self, now: Instant) -> Vec<String> {
        let wait = self.shared.failure_wait;
        let endpoints = self.shared.endpoints.lock();
        let is_available = |endpoint: &&Endpoint| {
            endpoint.failed.is_none_or(|failed| wait <= now.saturating_duration_since(failed))
        };
        endpoints.iter().filter(is_available).map(|endpoint| endpoint.url.clone()).collect()
    }

    /// Leaves out one that did not answer for a while.
    pub(super) fn failed(&self, url: &str) {
        self.failed_at(url, Instant::now());
    }

    fn failed_at(&self, url: &str, now: Instant) {
        let mut endpoints = self.shared.endpoints.lock();
        for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.url == url) {
            endpoint.failed = Some(now);
            tracing::info!(endpoint = url, "marked endpoint unavailable");
        }
    }

    /// Sends to these from now on.
    fn set(&self, urls: Vec<String>) {
        let mut endpoints: Vec<Endpoint> =
            urls.into_iter().map(|url| Endpoint { url, failed: None }).collect();
        // So that not all proxies send to the same member.
        let chance = RandomState::new();
        endpoints.sort_by_key(|endpoint| chance.hash_one(&endpoint.url));
        *self.shared.endpoints.lock() = endpoints;
    }

    /// Asks the members who they are, for ever.
    pub(super) async fn run(
        &self,
        asker: Asker,
        file: ClusterFile,
        mut peer_urls: Vec<String>,
        interval: Duration,
    ) {
        let mut told = false;
        loop {
            let found = members_of(&asker, &peer_urls, ASK_TIME_MAX).await;
            let members = found.unwrap_or_else(|error| {
                tracing::warn!(
                    "peer-urls" = ?peer_urls,
                    error = %error,
                    "failed to get cluster from remote peers"
                );
                Vec::new()
            });
            self.set(sorted(&members, |member| &member.client_urls));
            if !members.is_empty() {
                let now = sorted(&members, |member| &member.peer_urls);
                if let Err(error) = file.write(&now) {
                    tracing::warn!(error = %error, "proxy failed to write cluster file");
                }
                if now != peer_urls {
                    tracing::info!(from = ?peer_urls, to = ?now, "proxy updated peer URLs");
                }
                peer_urls = now;
            }
            let endpoints = self.endpoints();
            if !told && !endpoints.is_empty() {
                told = true;
                tracing::info!(?endpoints, "endpoints found");
            }
            let nobody = endpoints.is_empty() && LONG_INTERVAL <= interval;
            tokio::time::sleep(if nobody { SHORT_INTERVAL } else { interval }).await;
        }
    }
}

fn sorted(members: &[MemberObject], urls: impl Fn(&MemberObject) -> &[String]) -> Vec<String> {
    let mut urls: Vec<String> =
        members.iter().flat_map(|member| urls(member).iter().cloned()).collect();
    urls.sort_unstable();
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-171.
    #[test]
    fn who_does_not_answer_is_left_out_for_a_while() {
        let wait = Duration::from_secs(5);
        let director = Director::new(wait);
        assert!(director.endpoints().is_empty());
        director.set(vec!["http://a:1".to_owned(), "http://b:1".to_owned()]);
        let now = Instant::now();
        director.failed_at("http://a:1", now);
        assert_eq!(director.endpoints_at(now), ["http://b:1"]);
        assert_eq!(director.endpoints_at(now + wait).len(), 2);
        director.failed_at("http://a:1", now);
        director.set(vec!["http://a:1".to_owned()]);
        assert_eq!(director.endpoints_at(now), ["http://a:1"]);
    }
}
