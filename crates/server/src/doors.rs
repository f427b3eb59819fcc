//! What a member serves, in the order in which it may: other members at once, whoever scrapes too,
//! clients once the cluster knows this member.

use std::sync::Arc;
use std::time::Duration;

use base::{MemberId, version};
use proto::membershippb;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::compactor;
use crate::connections::Connections;
use crate::grpc::{Services, Serving};
use crate::handle::{Handle, ProposeError, RequestKind};
use crate::http::{Gateway, Offers, Plain, SetLogLevel};
use crate::logging;
use crate::open_files;
use crate::options::Options;
use crate::peers::monitor;
use crate::port;
use crate::ports::{self, BoundPort};
use crate::shards::Shards;
use crate::start::StartError;
use crate::traces::Tracer;
use crate::v2_expiry;

/// What all ports have in common, and what goes on behind them.
pub(crate) struct Doors<'a> {
    pub(crate) options: &'a Options,
    pub(crate) handle: &'a Handle,
    pub(crate) connections: Connections,
    /// If calls are traced.
    pub(crate) tracer: Option<Tracer>,
    /// Turns true when clients are served no more.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Never turns true.
    pub(crate) always: watch::Receiver<bool>,
}

impl Doors<'_> {
    fn serve(
        &self,
        bound: BoundPort,
        service: port::Service,
        shards: &Shards,
        stopping: &watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let room = self.room(None);
        port::serve(bound, service, room, shards.clone(), stopping.clone())
    }

    fn room(&self, write_timeout: Option<Duration>) -> port::Room {
        let (limits, connections) = (self.options.port, self.connections.clone());
        port::Room { limits, write_timeout, connections }
    }

    /// Other members, which need this one before it can say who it is.
    pub(crate) fn peers(&self, ports: Vec<BoundPort>, shards: &Shards) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for bound in ports {
            tracing::info!(address = bound.listener.address(), "serving peer traffic");
            let plain = Plain::for_peers(self.handle.clone());
            let service = port::Service { services: None, plain };
            // A member that stopped reading must not be written to for ever.
            let room = self.room(Some(self.options.peer_write_timeout));
            tasks.spawn(port::serve(bound, service, room, shards.clone(), self.always.clone()));
        }
        tasks
    }

    /// Whoever scrapes, also while the member waits for others.
    pub(crate) fn metrics(&self, ports: Vec<BoundPort>, shards: &Shards) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for bound in ports {
            tracing::info!(address = bound.listener.address(), "serving metrics");
            let plain = Plain::for_metrics(self.handle.clone());
            let service = port::Service { services: None, plain };
            tasks.spawn(self.serve(bound, service, shards, &self.stopping));
        }
        tasks
    }

    /// Clients: `ports` speak gRPC, and HTTP too unless there are `http_ports` for that.
    pub(crate) fn clients(
        &self,
        ports: Vec<BoundPort>,
        http_ports: Vec<BoundPort>,
        shards: &Shards,
        tasks: &mut JoinSet<()>,
    ) {
        let serving = Serving::new(self.options.stops_on_defrag);
        let services =
            Services::new(self.handle, self.options.slow_calls, serving, self.tracer.clone());
        let handle = self.handle;
        // Its calls arrive nowhere; etcd's gateway makes them to a port.
        let first = ports.first().map(|bound| bound.listener.address());
        let first = || first?.parse().ok();
        let gateway = || Gateway::new(services.for_connection(first), self.stopping.clone());
        let gateway = self.options.grpc_gateway.then(gateway);
        let (v2, profiles) = (self.options.v2.clone(), self.options.profiles);
        let for_clients = || {
            let browsers = self.options.browsers.clone();
            let offers = Offers { gateway: gateway.clone(), v2: v2.clone(), profiles };
            Plain::for_clients(handle.clone(), browsers, set_log_level(), offers)
        };
        let is_split = !http_ports.is_empty();
        for bound in ports {
            ports::log_client_port(&bound, if is_split { "grpc" } else { "grpc+http" });
            let plain =
                if is_split { Plain::for_calls_only(handle.clone()) } else { for_clients() };
            let service = port::Service { services: Some(services.clone()), plain };
            tasks.spawn(self.serve(bound, service, shards, &self.stopping));
        }
        for bound in http_ports {
            ports::log_client_port(&bound, "http");
            let service = port::Service { services: None, plain: for_clients() };
            tasks.spawn(self.serve(bound, service, shards, &self.stopping));
        }
        let (compaction, stopping) = (self.options.auto_compaction, self.stopping.clone());
        tasks.spawn(compactor::run(compaction, handle.clone(), stopping));
    }

    /// What a leader looks after.
    pub(crate) fn monitors(&self) -> JoinSet<()> {
        let (handle, checks) = (self.handle, self.options.checks);
        let mut tasks = JoinSet::new();
        tasks.spawn(monitor::watch_version(handle.clone()));
        tasks.spawn(monitor::watch_downgrade(handle.clone(), checks.downgrade));
        if let Some(ticks) = self.options.initial_advance_ticks {
            tasks.spawn(monitor::advance_election(handle.clone(), ticks));
        }
        tasks.spawn(v2_expiry::run(handle.clone()));
        tasks.spawn(open_files::watch());
        tasks.spawn(handle.clone().sweep_tokens());
        tasks.spawn(monitor::watch_v2(handle.clone()));
        if let Some(interval) = checks.periodic {
            tasks.spawn(monitor::watch_state(handle.clone(), interval));
        }
        if let Some(interval) = checks.compactions {
            tasks.spawn(monitor::watch_compactions(handle.clone(), interval));
        }
        tasks
    }

    /// Compares this member with the others, if it shall, and lets them know it.
    /// Ends when clients may be served.
    ///
    /// # Errors
    ///
    /// Its data differs from theirs, or the member stops.
    pub(crate) async fn join(&self) -> Result<(), StartError> {
        let known = self.handle.reads().members().iter().any(|member| !member.name.is_empty());
        if self.options.checks.initial && known {
            let mismatches = monitor::initial_check(self.handle).await;
            if mismatches > 0 {
                return Err(StartError::Corrupt { member: self.handle.member_id() });
            }
        }
        tokio::select! {
            published = publish(self.options, self.handle) => {
                published.map_err(StartError::Publish)
            }
            () = self.say_who_is_missing() => unreachable!("it never ends"),
        }
    }

    /// Says whom this member waits for while nobody leads, again when that changes; why one is not
    /// reached the transport says itself.
    async fn say_who_is_missing(&self) {
        let mut told = Vec::new();
        loop {
            tokio::time::sleep(self.options.limits.election_timeout).await;
            if !self.handle.status().leader.is_none() {
                continue;
            }
            let members = self.handle.reads().members();
            let own = self.handle.member_id();
            let missing = members.iter().filter(|member| {
                let id = MemberId(member.id);
                id != own && self.handle.peers().connected_since(id).is_none()
            });
            let missing: Vec<String> = missing.map(|member| member.peer_ur_ls.join(",")).collect();
            if missing != told {
                tracing::warn!(
                    "local-member-id" = %own,
                    "members-not-reached" = ?logging::List::of(&missing),
                    "waiting for a leader; more than half of the members must run and reach each \
                     other on their peer URLs (firewall, addresses, --initial-cluster)"
                );
                told = missing;
            }
        }
    }
}

/// HTTP-20.
fn set_log_level() -> SetLogLevel {
    Arc::new(|name| {
        let level = logging::Level::parse(name).filter(|_| !name.is_empty());
        let level = level.ok_or_else(|| format!("Invalid log level {name}"))?;
        logging::set_level(level);
        Ok(())
    })
}

/// Tells the cluster this member's name and client URLs, and a new cluster its version, through
/// the log; repeated until it succeeds, as other members may not be there yet (R4).
async fn publish(options: &Options, handle: &Handle) -> Result<(), ProposeError> {
    loop {
        match publish_once(options, handle).await {
            Err(
                error @ (ProposeError::TimedOut
                | ProposeError::LeaderFailed
                | ProposeError::ConnectionLost
                | ProposeError::Overloaded
                | ProposeError::NoLeader
                | ProposeError::LeaderChanged),
            ) => {
                tracing::warn!(
                    error = %error,
                    "failed to publish local member to cluster through raft"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            ended => return ended,
        }
    }
}

async fn publish_once(options: &Options, handle: &Handle) -> Result<(), ProposeError> {
    base::probe::failpoint("beforePublishing");
    let own = handle.member_id();
    // A member that just joined knows neither the others nor the cluster's version before it has
    // the log, and members before 3.6 do not survive the newer form of what is told. Whoever was
    // told already must show that it can serve, as well.
    handle.linearize().await?;
    let members = handle.reads().members();
    let known = members.iter().find(|member| member.id == own.0);
    let name = &options.boot.origin.name;
    let urls = &options.advertised_client_urls;
    let current = known.is_some_and(|known| known.name == *name && known.client_ur_ls == *urls);
    if !current {
        monitor::publish(handle, name, urls).await?;
    }
    tracing::info!(
        "local-member-id" = %own,
        "cluster-id" = %handle.cluster_id(),
        "published local member to cluster through raft"
    );
    // A directory taken over from an older release keeps its version, so that it can go back
    // (docs/design/0004). With other members the leader decides, once it has asked them.
    if members.len() == 1 && handle.reads().cluster_version().is_none() {
        let request = membershippb::ClusterVersionSetRequest { ver: version::CLUSTER.to_owned() };
        handle.propose(RequestKind::ClusterVersionSet, &request).await?;
        tracing::info!("cluster-version" = version::API, "set initial cluster version");
    }
    Ok(())
}
