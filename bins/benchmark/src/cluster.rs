//! Three servers that are one cluster, started here, with what can be done to their processes.
//!
//! The way a single server is started is in `server.rs`; what is measured in `cluster_suite.rs`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use client::{Client, Options};
use proto::etcdserverpb as pb;
use tokio::runtime::Runtime;

use crate::connection::Endpoint;
use crate::process::{Process, ProcessError};
use crate::server::{ServerError, SharedChild, free_ports, kill, lock, log_tail, spawn};

/// Why a cluster does not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// A member's process.
    #[error("starting a member")]
    Server(#[from] ServerError),
    /// A call.
    #[error("calling a member")]
    Call(#[from] client::Error),
    /// No runtime for calls.
    #[error("starting a runtime")]
    Runtime(#[source] std::io::Error),
    /// Its figures could not be read.
    #[error("reading a member's figures")]
    Process(#[from] ProcessError),
    /// A signal could not be sent.
    #[error("sending {name} to {member}")]
    Signal {
        /// The signal.
        name: &'static str,
        /// The member.
        member: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {} s; {log_tail}", waited.as_secs())]
    Late {
        /// What.
        what: &'static str,
        /// How long was waited.
        waited: Duration,
        /// The last lines of the members' logs.
        log_tail: String,
    },
}

/// A member of the cluster.
#[derive(Debug)]
pub(crate) struct Member {
    name: String,
    folder: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<SharedChild>,
    flags: Vec<String>,
}

/// Members on loopback ports.
#[derive(Debug)]
pub(crate) struct Cluster {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    members: Vec<Member>,
    runtime: Runtime,
}

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);

/// Milliseconds after which members elect another leader, for every member.
pub(crate) const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

impl Cluster {
    /// Starts `count` members with empty folders below `folder` and waits until each serves.
    ///
    /// # Errors
    /// If they do not.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        folder: &Path,
        count: usize,
    ) -> Result<Self, ClusterError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(ClusterError::Runtime)?;
        let mut cluster = Self {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            folder: folder.to_owned(),
            members: Vec::new(),
            runtime,
        };
        for _ in 0..count {
            cluster.prepare()?;
        }
        let all: Vec<_> = cluster.members.iter().map(Member::pair).collect();
        for number in 0..count {
            cluster.launch(number, &all.join(","), "new")?;
        }
        for number in 0..count {
            cluster.wait_until_serving(number)?;
        }
        Ok(cluster)
    }

    fn prepare(&mut self) -> Result<usize, ServerError> {
        let number = self.members.len();
        let name = format!("m{number}");
        let folder = self.folder.join(&name);
        let prepare = |source| ServerError::Prepare { folder: folder.clone(), source };
        let (client, peer) = free_ports().map_err(prepare)?;
        let flags = Vec::new();
        self.members.push(Member { name, folder, client, peer, child: None, flags });
        Ok(number)
    }

    fn launch(&mut self, number: usize, all: &str, state: &str) -> Result<(), ServerError> {
        let member = &mut self.members[number];
        member.flags = vec![
            format!("--name={}", member.name),
            format!("--data-dir={}", member.folder.join("data").display()),
            format!("--listen-client-urls=http://{}", member.client),
            format!("--advertise-client-urls=http://{}", member.client),
            format!("--listen-peer-urls=http://{}", member.peer),
            format!("--initial-advertise-peer-urls=http://{}", member.peer),
            format!("--initial-cluster={all}"),
            format!("--initial-cluster-state={state}"),
            format!("--election-timeout={}", ELECTION_TIMEOUT.as_millis()),
            "--log-level=error".to_owned(),
        ];
        self.restart(number)
    }

    /// Starts a member that is down on its data.
    ///
    /// # Errors
    /// If it cannot be.
    pub(crate) fn restart(&mut self, number: usize) -> Result<(), ServerError> {
        let member = &mut self.members[number];
        let flags = member.flags.iter().chain(&self.arguments).cloned();
        member.child = Some(spawn(&self.program, flags.collect(), &member.folder)?);
        Ok(())
    }

    /// Ends a member as SIGKILL does.
    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(child) = self.members[number].child.take() {
            kill(&mut lock(&child));
        }
    }

    /// Sends a member a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub(crate) fn signal(&self, number: usize, name: &'static str) -> Result<(), ClusterError> {
        let member = &self.members[number];
        let failed = || ClusterError::Signal { name, member: member.name.clone() };
        let child = member.child.as_ref().ok_or_else(failed)?;
        let id = lock(child).id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id).status();
        if sent.is_ok_and(|status| status.success()) { Ok(()) } else { Err(failed()) }
    }

    /// Waits until a member's process, which was told to, has ended.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn wait_until_ended(&mut self, number: usize) -> Result<(), ClusterError> {
        let child = self.members[number].child.take();
        self.wait("the end of a member", |_| {
            Ok(child.as_ref().is_none_or(|child| !matches!(lock(child).try_wait(), Ok(None))))
        })
    }

    /// Removes a dead member's data and the member, adds a new one in its place and starts it; its
    /// number.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub(crate) fn replace(&mut self, dead: usize) -> Result<usize, ClusterError> {
        let client = self.client(&self.up())?;
        let list = client.member_list(pb::MemberListRequest::default());
        let members = self.runtime.block_on(list)?.members;
        let name = &self.members[dead].name;
        for member in members.iter().filter(|member| member.name == *name) {
            let remove = client.member_remove(pb::MemberRemoveRequest { id: member.id });
            self.runtime.block_on(remove)?;
        }
        // What cannot be removed lies below the work folder, whose removal is reported.
        std::fs::remove_dir_all(&self.members[dead].folder).ok();
        let number = self.prepare()?;
        let url = format!("http://{}", self.members[number].peer);
        let request = pb::MemberAddRequest { peer_ur_ls: vec![url], is_learner: false };
        // Refused while the others think that somebody was away until just now.
        self.wait("the addition of a member", |cluster| {
            let add = client.member_add(request.clone());
            Ok(cluster.runtime.block_on(add).is_ok())
        })?;
        let all = self.members.iter().enumerate().filter(|(other, _)| *other != dead);
        let all: Vec<_> = all.map(|(_, member)| member.pair()).collect();
        self.launch(number, &all.join(","), "existing")?;
        Ok(number)
    }

    /// The members that were started and not stopped.
    pub(crate) fn up(&self) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        members.filter(|(_, member)| member.child.is_some()).map(|(number, _)| number).collect()
    }

    /// Where clients reach members.
    pub(crate) fn endpoints(&self, numbers: &[usize]) -> Vec<Endpoint> {
        numbers.iter().map(|number| Endpoint::from(self.members[*number].client)).collect()
    }

    /// A client that retries as etcd's for Go does.
    ///
    /// # Errors
    /// Never, for members' endpoints are well formed.
    pub(crate) fn client(&self, numbers: &[usize]) -> Result<Client, ClusterError> {
        let endpoints = self.endpoints(numbers).iter().map(|one| format!("http://{one}")).collect();
        Ok(self.runtime.block_on(Client::connect(Options::new(endpoints)))?)
    }

    /// Where calls run.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// A member's status.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) fn status(&self, number: usize) -> Result<pb::StatusResponse, ClusterError> {
        let client = self.client(&[number])?.with_command_timeout(Some(Duration::from_secs(2)));
        Ok(self.runtime.block_on(client.status(pb::StatusRequest::default()))?)
    }

    /// The member that leads, once one does.
    ///
    /// # Errors
    /// If none does in time.
    pub(crate) fn leader(&self) -> Result<usize, ClusterError> {
        let mut found = None;
        self.wait("an election", |cluster| {
            found = cluster.up().into_iter().find(|number| {
                cluster.status(*number).is_ok_and(|status| {
                    status.header.is_some_and(|header| header.member_id == status.leader)
                })
            });
            Ok(found.is_some())
        })?;
        Ok(found.expect("the wait ended with it"))
    }

    /// Processor time of all members so far.
    ///
    /// # Errors
    /// If one is gone.
    pub(crate) fn cpu(&self) -> Result<Duration, ClusterError> {
        let mut sum = Duration::ZERO;
        for child in self.members.iter().filter_map(|member| member.child.as_ref()) {
            sum += Process::new(lock(child).id()).cpu()?;
        }
        Ok(sum)
    }

    /// Waits until a member answers a linearizable read.
    ///
    /// # Errors
    /// If it ends, or does not in time.
    pub(crate) fn wait_until_serving(&self, number: usize) -> Result<(), ClusterError> {
        let client = self.client(&[number])?.with_command_timeout(Some(Duration::from_secs(2)));
        let request = pb::RangeRequest { key: b"health"[..].into(), ..Default::default() };
        self.wait("an answer of a member", |cluster| {
            let member = &cluster.members[number];
            if let Some(child) = &member.child
                && let Ok(Some(status)) = lock(child).try_wait()
            {
                let program = cluster.program.clone();
                let log_tail = log_tail(&member.folder);
                return Err(ServerError::Ended { program, status, log_tail }.into());
            }
            Ok(cluster.runtime.block_on(client.get(request.clone())).is_ok())
        })
    }

    /// Waits for something.
    ///
    /// # Errors
    /// If it does not happen in time, or cannot any more.
    pub(crate) fn wait(
        &self,
        what: &'static str,
        mut happened: impl FnMut(&Self) -> Result<bool, ClusterError>,
    ) -> Result<(), ClusterError> {
        let begin = Instant::now();
        while !happened(self)? {
            if begin.elapsed() > PATIENCE {
                let tails = self.members.iter().map(|member| {
                    format!("last line of {}: {}", member.name, log_tail(&member.folder))
                });
                let log_tail = tails.collect::<Vec<_>>().join("; ");
                return Err(ClusterError::Late { what, waited: PATIENCE, log_tail });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Member {
    /// Its part of the flag `initial-cluster`.
    fn pair(&self) -> String {
        format!("{}=http://{}", self.name, self.peer)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in 0..self.members.len() {
            // One that is stopped dies as well.
            self.kill(number);
        }
    }
}
