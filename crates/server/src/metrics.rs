//! Numbers for operators, under the names, types and labels that etcd's dashboards, alerts and
//! scripts use (features 8.3; etcd: the `metrics.go` files below server/).
//!
//! What happens often is counted through handles that are resolved once; what is known elsewhere
//! is looked up when somebody scrapes. Numbers of Go's runtime are left out rather than faked.

mod applies;
mod calls;
mod disk;
mod exposition;
mod facts;
mod network;
mod process;
mod proxy;
mod register;
mod sending;
mod server;
mod store;
mod striped;
mod tallied;
mod v2;
mod zero;

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::Registry;

pub(crate) use applies::Applies;
pub(crate) use calls::Calls;
pub(crate) use disk::Disk;
pub(crate) use process::{open_files, open_files_max, resident_bytes};
pub(crate) use proxy::ProxyMetrics;
pub(crate) use server::{Operation, Server};
pub(crate) use store::{Leases, Store, StreamWatches};
pub(crate) use v2::{V2, V2Method};

use crate::handle::Handle;
use facts::Facts;
use process::Process;
use register::Register;
use sending::Sending;

/// The numbers as a connection holds them: its calls count references to them among themselves,
/// instead of all calls of all threads in one place.
pub(crate) type ConnectionMetrics = Arc<Arc<Metrics>>;

/// Every number of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Calls of clients.
    pub(crate) calls: Calls,
    /// The log, the database's file and snapshots.
    pub(crate) disk: Disk,
    /// The key space and watches of it.
    pub(crate) store: Store,
    /// Answers to watchers.
    pub(crate) sending: Sending,
    /// Leases.
    pub(crate) leases: Leases,
    /// Consensus, applying, requests and health.
    pub(crate) server: Server,
    /// The second generation.
    pub(crate) v2: V2,
    /// What is looked up while scraping; one scrape at a time.
    scraped: Mutex<Scraped>,
}

#[derive(Debug)]
struct Scraped {
    facts: Facts,
    process: Process,
}

impl Metrics {
    /// All numbers at zero. `extensive` also measures how long calls take (SRV-111).
    pub(crate) fn new(extensive: bool) -> Arc<Self> {
        let registry = Registry::new();
        let register = Register::new(&registry);
        zero::register(&register);
        Arc::new(Self {
            calls: Calls::new(&register, extensive),
            disk: Disk::new(&register),
            store: Store::new(&register),
            sending: Sending::new(&register),
            leases: Leases::new(&register),
            server: Server::new(&register),
            v2: V2::new(&register),
            scraped: Mutex::new(Scraped {
                facts: Facts::new(&register),
                process: Process::new(&register),
            }),
            registry,
        })
    }

    /// Says which switches are on (MET-26): name, stage, state.
    pub(crate) fn set_features(
        &self,
        features: impl IntoIterator<Item = (&'static str, &'static str, bool)>,
    ) {
        let scraped = self.scraped.lock();
        for (name, stage, enabled) in features {
            scraped.facts.set_feature(name, stage, enabled);
        }
    }

    /// Adds what is counted of the other members.
    pub(crate) fn set_peers(&self, own: base::MemberId, peers: Arc<transport::Metrics>) {
        let added = self.registry.register(Box::new(network::Network::new(own, peers)));
        added.expect("there is one network");
    }

    /// The text of a scrape.
    pub(crate) fn text(&self, handle: &Handle) -> String {
        let scraped = self.scraped.lock();
        scraped.facts.refresh(handle);
        self.v2.refresh(handle.reads().v2());
        scraped.process.refresh();
        self.encode()
    }

    /// Must not run twice at a time: the caller holds `scraped`.
    fn encode(&self) -> String {
        self.calls.tell();
        self.store.tell();
        exposition::encode(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests;
