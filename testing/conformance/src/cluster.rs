//! A cluster of real processes with faults: kill, pause, cut, delay, stall, wipe, replace; ours
//! and etcd's programs, mixed at will.
//!
//! [`Cluster`] runs the members, [`Network`] is between them, [`Load`] are clients that record, and
//! [`Cluster::finish`] heals everything, waits until all members hold the same, and lets the judges
//! of `history` decide.
//!
//! Bounds, not times: a test waits for what must happen, generously; how long it took is no
//! assertion's business.

mod disk;
mod finish;
mod load;
mod network;
mod owner;
mod process;
mod recorded;
mod recorder;
pub mod scenarios;
pub mod takeover;
mod watcher;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use client::{Client, Options};
use disk::Disk;
use proto::etcdserverpb as pb;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::process::{STARTS_MAX, is_port_taken};

pub use crate::patience::PATIENCE;
pub use finish::Verdict;
pub use load::{Load, LoadOptions};
pub use network::{Link, Network, Node};
pub use process::Member;
pub use recorded::{Lives, RecordedClient};
pub use recorder::Recorder;

/// Between two looks at something that is awaited.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Clusters of a process that may run at once, whatever the number of test threads: each has
/// hundreds of connections in this process and starves the others of processor time.
static TURNS: Semaphore = Semaphore::const_new(2);

/// What a cluster is made of.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// Flags of every member behind those the harness gives.
    pub flags: Vec<String>,
    /// The first member has a disk of its own of as many MiB, where one can be mounted.
    pub small_disk_mebibytes: Option<u32>,
}

/// Running members, the network between them, and their folders.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    network: Network,
    options: ClusterOptions,
    lives: Lives,
    /// Of the first member.
    disk: Option<Disk>,
    _turn: SemaphorePermit<'static>,
    // Dropped last: the members' folders.
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts a new cluster, one member for each program, and waits until it has a leader and every
    /// member answers.
    ///
    /// # Errors
    ///
    /// It does not come to serve; the members' logs are part of the text.
    pub async fn start(programs: &[&Path], options: ClusterOptions) -> anyhow::Result<Self> {
        for _ in 1..STARTS_MAX {
            match Self::start_once(programs, options.clone()).await {
                Err(error) if is_port_taken(&error) => {
                    println!("a port was taken meanwhile; the cluster gets others");
                }
                started => return started,
            }
        }
        Self::start_once(programs, options).await
    }

    async fn start_once(programs: &[&Path], options: ClusterOptions) -> anyhow::Result<Self> {
        let mut cluster = Self {
            members: Vec::new(),
            network: Network::new()?,
            options,
            lives: Lives::default(),
            disk: None,
            _turn: TURNS.acquire().await.context("turns are never closed")?,
            folder: tempfile::tempdir()?,
        };
        for program in programs {
            cluster.prepare(program)?;
        }
        if let (Some(mebibytes), Some(member)) =
            (cluster.options.small_disk_mebibytes, cluster.members.first())
        {
            cluster.disk = Disk::mount(member.folder.clone(), mebibytes)?;
        }
        let all: Vec<String> = cluster
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer_url))
            .collect();
        for number in 0..programs.len() {
            cluster.set_cluster(number, &all.join(","), "new");
            cluster.spawn(number)?;
        }
        for number in 0..programs.len() {
            cluster.await_serving(number).await?;
        }
        Ok(cluster)
    }

    /// A member that is not started yet.
    fn prepare(&mut self, program: &Path) -> anyhow::Result<usize> {
        let number = self.members.len();
        let (client_port, peer_port) = (ports::free()?, ports::free()?);
        let peer = self.network.open(None, number, peer_port)?;
        let client = self.network.open(Some(Node::Clients), number, client_port)?;
        self.members.push(Member {
            name: format!("m{number}"),
            program: program.to_owned(),
            folder: self.folder.path().join(format!("m{number}")),
            client_port,
            peer_port,
            client_url: format!("http://{client}"),
            peer_url: format!("http://{peer}"),
            flags: Vec::new(),
            child: None,
            starts: 0,
            is_removed: false,
        });
        Ok(number)
    }

    fn set_cluster(&mut self, number: usize, cluster: &str, state: &str) {
        let mut flags = vec![
            format!("--initial-cluster={cluster}"),
            format!("--initial-cluster-state={state}"),
        ];
        flags.extend(self.options.flags.iter().cloned());
        self.members[number].flags = flags;
    }

    fn spawn(&mut self, number: usize) -> anyhow::Result<()> {
        let process = self.members[number].spawn()?;
        self.network.set_process(number, process);
        self.lives.begin(number);
        Ok(())
    }

    /// All members that ever were, by number; removed ones too.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A member.
    #[must_use]
    pub fn member(&self, number: usize) -> &Member {
        &self.members[number]
    }

    /// How often each member was started.
    #[must_use]
    pub fn lives(&self) -> &Lives {
        &self.lives
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The members that run and belong to the cluster.
    #[must_use]
    pub fn up(&self) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        members
            .filter(|(_, member)| member.is_up() && !member.is_removed)
            .map(|(number, _)| number)
            .collect()
    }

    /// Where clients reach the members that belong to the cluster.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let members = self.members.iter().filter(|member| !member.is_removed);
        members.map(|member| member.client_url.clone()).collect()
    }

    /// Ends a member as SIGKILL does.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        self.members[number].kill()
    }

    /// Stops a member's clock: SIGSTOP.
    ///
    /// # Errors
    ///
    /// It is down.
    pub fn pause(&self, number: usize) -> anyhow::Result<()> {
        self.members[number].signal("STOP")
    }

    /// Lets a paused member go on.
    ///
    /// # Errors
    ///
    /// It is down.
    pub fn resume(&self, number: usize) -> anyhow::Result<()> {
        self.members[number].signal("CONT")
    }

    /// Asks a member to end, SIGTERM, and waits until it has.
    ///
    /// # Errors
    ///
    /// It does not end in time.
    pub async fn stop(&mut self, number: usize) -> anyhow::Result<ExitStatus> {
        self.members[number].signal("TERM")?;
        self.members[number].wait().await
    }

    /// Waits until a member has ended by itself.
    ///
    /// # Errors
    ///
    /// It does not end in time.
    pub async fn await_end(&mut self, number: usize) -> anyhow::Result<ExitStatus> {
        self.members[number].wait().await
    }

    /// Starts a member that is down on its data.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn restart(&mut self, number: usize) -> anyhow::Result<()> {
        self.spawn(number)
    }

    /// As [`Self::restart`], with another program from now on.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn restart_as(&mut self, number: usize, program: &Path) -> anyhow::Result<()> {
        program.clone_into(&mut self.members[number].program);
        self.spawn(number)
    }

    /// As [`Self::restart`], with another flag, this time only.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn restart_with(&mut self, number: usize, flag: &str) -> anyhow::Result<()> {
        self.members[number].flags.push(flag.to_owned());
        let started = self.spawn(number);
        self.members[number].flags.pop();
        started
    }

    /// Counts a member as gone from the cluster.
    pub fn forget(&mut self, number: usize) {
        self.members[number].is_removed = true;
    }

    /// Removes a member that is down and adds it again, at the same addresses, as one that knows
    /// nothing; does not wait for it.
    ///
    /// # Errors
    ///
    /// The cluster refuses, or it cannot be started.
    pub async fn replace(&mut self, number: usize) -> anyhow::Result<()> {
        self.remove(number).await?;
        let client = self.client(&self.up()).await?;
        let url = self.members[number].peer_url.clone();
        let members = self.add_url(&client, &url, false).await?.members;
        let all = initial_cluster(&members, &self.members[number].name);
        self.members[number].is_removed = false;
        self.set_cluster(number, &all, "existing");
        self.spawn(number)
    }

    /// Removes the data of a member that is down.
    ///
    /// # Errors
    ///
    /// The system's.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn wipe(&mut self, number: usize) -> anyhow::Result<()> {
        self.members[number].wipe()
    }

    /// Fills the small disk; false if there is none.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn fill_disk(&self) -> anyhow::Result<bool> {
        self.disk.as_ref().map(Disk::fill).transpose().map(|done| done.is_some())
    }

    /// Makes the room again that [`Self::fill_disk`] took.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn empty_disk(&self) -> anyhow::Result<()> {
        self.disk.as_ref().map_or(Ok(()), Disk::empty)
    }

    /// Whether a member's process ended by itself; it can be started again then.
    pub fn has_ended(&mut self, number: usize) -> bool {
        self.members[number].ended().is_some()
    }

    /// Cuts a member off from every other, both ways; clients still reach it.
    pub fn isolate(&self, number: usize) {
        for other in (0..self.members.len()).filter(|other| *other != number) {
            self.network.cut(Node::Member(number), Node::Member(other));
            self.network.cut(Node::Member(other), Node::Member(number));
        }
    }

    /// A client of the members given, or of all, that records nothing.
    ///
    /// # Errors
    ///
    /// There is no member.
    pub async fn client(&self, numbers: &[usize]) -> anyhow::Result<Client> {
        let endpoints = if numbers.is_empty() {
            self.endpoints()
        } else {
            numbers.iter().map(|number| self.members[*number].client_url.clone()).collect()
        };
        Ok(Client::connect(Options::new(endpoints)).await?)
    }

    /// The status of a member, past the proxy.
    ///
    /// # Errors
    ///
    /// It does not answer soon.
    pub async fn status(&self, number: usize) -> anyhow::Result<pb::StatusResponse> {
        let endpoint = self.members[number].direct_endpoint();
        let options =
            Options::new(vec![endpoint]).with_command_timeout(Some(Duration::from_secs(2)));
        Ok(Client::connect(options).await?.status(pb::StatusRequest {}).await?)
    }

    /// What a member tells Prometheus.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub async fn metrics(&self, number: usize) -> anyhow::Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let port = self.members[number].client_port;
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    }

    /// A member's id.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub async fn id(&self, number: usize) -> anyhow::Result<u64> {
        let status = self.status(number).await?;
        Ok(status.header.context("an answer has a header")?.member_id)
    }

    /// The member that says of itself that it leads, in the newest term of those that answer.
    pub async fn leader(&self) -> Option<usize> {
        let mut found: Option<(u64, usize)> = None;
        for number in self.up() {
            let Ok(status) = self.status(number).await else { continue };
            let leads = status
                .header
                .is_some_and(|header| header.member_id == status.leader && status.leader != 0);
            if leads && found.is_none_or(|(term, _)| term < status.raft_term) {
                found = Some((status.raft_term, number));
            }
        }
        found.map(|(_, number)| number)
    }

    /// Waits until some member among `candidates` leads; all, if none are named.
    ///
    /// # Errors
    ///
    /// None does in time.
    pub async fn await_leader(&self, candidates: &[usize]) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            if let Some(leader) = self.leader().await
                && (candidates.is_empty() || candidates.contains(&leader))
            {
                return Ok(leader);
            }
            if PATIENCE < began.elapsed() {
                bail!("no leader:\n{}", self.logs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Makes a member the leader.
    ///
    /// # Errors
    ///
    /// It does not become so in time.
    pub async fn move_leader(&self, number: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        let target_id = self.id(number).await?;
        while self.leader().await != Some(number) {
            anyhow::ensure!(began.elapsed() < PATIENCE, "no transfer:\n{}", self.logs());
            if let Some(leader) = self.leader().await {
                let client = self.client(&[leader]).await?;
                // Refusals are tried again.
                client.move_leader(pb::MoveLeaderRequest { target_id }).await.ok();
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until a member answers a linearizable read.
    ///
    /// # Errors
    ///
    /// It ends, or does not answer in time.
    pub async fn await_serving(&mut self, number: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        let options = Options::new(vec![self.members[number].direct_endpoint()])
            .with_command_timeout(Some(Duration::from_secs(3)));
        let client = Client::connect(options).await?;
        let probe = pb::RangeRequest { key: b"probe"[..].into(), ..Default::default() };
        loop {
            if let Some(status) = self.members[number].ended() {
                let log = self.members[number].log_tail();
                bail!("m{number} ended with {status}:\n{log}");
            }
            let Err(error) = client.get(probe.clone()).await else { return Ok(()) };
            if PATIENCE < began.elapsed() {
                bail!("m{number} does not serve: {error}\n{}", self.logs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Adds a member to the cluster and starts it with an empty folder; does not wait for it.
    ///
    /// # Errors
    ///
    /// The cluster refuses it, or it cannot be started.
    pub async fn add(&mut self, program: &Path, is_learner: bool) -> anyhow::Result<usize> {
        let client = self.client(&self.up()).await?;
        let number = self.prepare(program)?;
        let url = self.members[number].peer_url.clone();
        let added = self.add_url(&client, &url, is_learner).await;
        let members = match added {
            Ok(response) => response.members,
            Err(error) => {
                self.members.pop();
                return Err(error);
            }
        };
        let all = initial_cluster(&members, &self.members[number].name);
        self.set_cluster(number, &all, "existing");
        self.spawn(number)?;
        Ok(number)
    }

    /// Go's members refuse while they think that somebody is not connected long enough.
    async fn add_url(
        &self,
        client: &Client,
        url: &str,
        is_learner: bool,
    ) -> anyhow::Result<pb::MemberAddResponse> {
        let began = Instant::now();
        loop {
            let request = pb::MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner };
            match client.member_add(request).await {
                Ok(response) => return Ok(response),
                Err(error) if began.elapsed() < PATIENCE && is_passing(&error) => {
                    tokio::time::sleep(POLL * 10).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes a learner a voter, as soon as the leader agrees.
    ///
    /// # Errors
    ///
    /// It does not become one in time.
    pub async fn promote(&self, number: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        let id = self.id(number).await?;
        let others: Vec<usize> = self.up().into_iter().filter(|other| *other != number).collect();
        let client = self.client(&others).await?;
        loop {
            match client.member_promote(pb::MemberPromoteRequest { id }).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is("etcdserver: can only promote a learner member") => {
                    // An attempt that was not answered had happened.
                    return Ok(());
                }
                Err(error) if PATIENCE < began.elapsed() => {
                    bail!("m{number} is not promoted: {error}\n{}", self.logs());
                }
                Err(_) => tokio::time::sleep(POLL * 10).await,
            }
        }
    }

    /// Removes a member from the cluster and waits until its process, if it runs, has ended.
    ///
    /// # Errors
    ///
    /// The cluster refuses for good, or the member does not end.
    pub async fn remove(&mut self, number: usize) -> anyhow::Result<()> {
        let id = self.member_id(number).await?;
        let began = Instant::now();
        let others: Vec<usize> = self.up().into_iter().filter(|other| *other != number).collect();
        let client = self.client(&others).await?;
        loop {
            match client.member_remove(pb::MemberRemoveRequest { id }).await {
                Ok(_) => break,
                Err(error) if error.is("etcdserver: member not found") => break,
                Err(error) if PATIENCE < began.elapsed() => {
                    bail!("m{number} is not removed: {error}\n{}", self.logs());
                }
                Err(_) => tokio::time::sleep(POLL * 10).await,
            }
        }
        self.members[number].is_removed = true;
        if self.members[number].is_up() {
            self.members[number].wait().await?;
        }
        Ok(())
    }

    /// A member's id as the others know it, whether it runs or not.
    ///
    /// # Errors
    ///
    /// Nobody knows it.
    pub async fn member_id(&self, number: usize) -> anyhow::Result<u64> {
        let others: Vec<usize> = self.up().into_iter().filter(|other| *other != number).collect();
        let client = self.client(&others).await?;
        let members = client.member_list(pb::MemberListRequest::default()).await?.members;
        let url = &self.members[number].peer_url;
        let found = members.iter().find(|member| member.peer_ur_ls.contains(url));
        Ok(found.with_context(|| format!("m{number} is no member"))?.id)
    }

    /// The last lines of every member's log.
    #[must_use]
    pub fn logs(&self) -> String {
        let logs = self.members.iter().map(|member| {
            let program: PathBuf = member.program.iter().rev().take(1).collect();
            format!("--- {} ({}):\n{}", member.name, program.display(), member.log_tail())
        });
        logs.collect::<Vec<_>>().join("\n")
    }
}

/// The flag's value; a member that never started has no name yet.
fn initial_cluster(members: &[pb::Member], newcomer: &str) -> String {
    let pairs = members.iter().flat_map(|member| {
        let name = if member.name.is_empty() { newcomer } else { &member.name };
        member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
    });
    pairs.collect::<Vec<_>>().join(",")
}

/// Whether a refused change of the membership may be accepted a little later.
fn is_passing(error: &client::Error) -> bool {
    let texts = [
        "etcdserver: unhealthy cluster",
        "etcdserver: re-configuration failed due to not enough started members",
        "etcdserver: too many learner members in cluster",
    ];
    texts.iter().any(|text| error.is(text))
}
