//! A member made of our transport alone, in a cluster with real etcd: it acknowledges what the
//! leader sends, so that the leader commits with it.
//!
//! Needs the folder that holds `etcd` and `etcdctl` in `REAL_ETCD_35` or `REAL_ETCD_34`; without it
//! a test says so and passes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for what it needs"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{ClusterId, Index, LogPosition, MemberId, Term};
use bytes::Bytes;
use parking_lot::Mutex;
use raft::{AppendReply, Body, Entry, Message};
use retcd_transport::OutgoingSnapshot;
use support::{Host, wait};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

struct Etcd {
    programs: PathBuf,
    client: String,
    peer: String,
    _folder: tempfile::TempDir,
    _process: Child,
}

fn programs(variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        println!("{variable} is not set: nothing is tested");
    }
    folder
}

impl Etcd {
    async fn start(programs: &Path, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (client, peer) = (ports::free_url().unwrap(), ports::free_url().unwrap());
        let process = Command::new(programs.join("etcd"))
            .args(["--name", "m0", "--data-dir"])
            .arg(folder.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m0={peer}")])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let programs = programs.to_owned();
        let etcd = Self { programs, client, peer, _folder: folder, _process: process };
        for _ in 0..120 {
            if etcd.ctl(&["get", "x"]).await.is_some() {
                return etcd;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("etcd does not start");
    }

    fn ctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.programs.join("etcdctl"));
        command.arg("--endpoints").arg(&self.client).args(args).kill_on_drop(true);
        command.env("ETCDCTL_API", "3").stderr(Stdio::null());
        Box::pin(async move {
            let output = command.output().await.unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        })
    }

    /// Adds a member whose port is `socket` and makes it.
    async fn add_member(&self, socket: TcpListener) -> Follower {
        let url = format!("http://{}", socket.local_addr().unwrap());
        let peer_urls = format!("--peer-urls={url}");
        let added = self.ctl(&["member", "add", "ours", &peer_urls, "-w", "json"]).await.unwrap();
        let added: serde_json::Value = serde_json::from_str(&added).unwrap();
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        let cluster = ClusterId(number(&added["header"]["cluster_id"]));
        let leader = MemberId(number(&added["header"]["member_id"]));
        let id = number(&added["member"]["ID"]);
        let host = Host::start_on(id, cluster, socket);
        Follower { host, leader, url: self.peer.clone(), wants_snapshot: false, seen: Vec::new() }
    }
}

type Output = std::pin::Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// Says yes to everything.
struct Follower {
    host: Host,
    leader: MemberId,
    url: String,
    /// Whether appends are refused until a snapshot comes.
    wants_snapshot: bool,
    /// All that was heard.
    seen: Vec<Message>,
}

impl Follower {
    fn connect(&self) {
        self.host.transport.set_members(&[(self.leader, vec![self.url.clone()])]);
    }

    fn say(&self, term: Term, body: Body) {
        let message = Message { from: self.host.id, to: self.leader, term, body };
        self.host.transport.send(vec![message]);
    }

    /// Answers what has come in.
    fn answer(&mut self) {
        let heard = std::mem::take(&mut self.host.listener.heard.lock().messages);
        for message in heard {
            assert_eq!((message.from, message.to), (self.leader, self.host.id));
            match &message.body {
                Body::Heartbeat { context, .. } => {
                    self.say(message.term, Body::HeartbeatReply { context: context.clone() });
                }
                Body::Append(append) => {
                    let last = append.entries.last().map_or(append.previous.index, |e| e.index);
                    let previous = append.previous.index;
                    let reply = if self.wants_snapshot {
                        AppendReply { index: previous, rejected: Some(LogPosition::default()) }
                    } else {
                        AppendReply { index: last, rejected: None }
                    };
                    self.say(message.term, Body::AppendReply(reply));
                }
                // A leader that did not hear us for a while wants to be elected again.
                Body::PreVote(_) => {
                    self.say(message.term, Body::PreVoteReply { granted: true });
                }
                Body::Vote(_) => self.say(message.term, Body::VoteReply { granted: true }),
                _ => {}
            }
            self.seen.push(message);
        }
    }

    async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        wait(what, || {
            self.answer();
            done(self)
        })
        .await;
    }

    async fn until_finished(&mut self, what: &str, command: Output) -> Option<String> {
        let task: JoinHandle<Option<String>> = tokio::spawn(command);
        self.until(what, |_| task.is_finished()).await;
        task.await.unwrap()
    }

    fn entries(&self) -> Vec<&Entry> {
        let appends = self.seen.iter().filter_map(|message| match &message.body {
            Body::Append(append) => Some(&append.entries),
            _ => None,
        });
        appends.flatten().collect()
    }

    fn term(&self) -> Term {
        self.seen.iter().map(|message| message.term).max().unwrap()
    }
}

fn contains(data: &[u8], part: &[u8]) -> bool {
    data.windows(part.len()).any(|window| window == part)
}

/// The leader commits with our acknowledgements and answers what we ask.
async fn commits_with_us(variable: &str, only_posts: bool) {
    let Some(programs) = programs(variable) else { return };
    let etcd = Etcd::start(&programs, &[]).await;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut follower = etcd.add_member(socket).await;
    *follower.host.listener.no_streams.lock() = only_posts;
    follower.connect();
    for number in 0..20 {
        let value = format!("value-{number}");
        let put = etcd.ctl(&["put", "key", &value, "--command-timeout=60s"]);
        follower.until_finished("put", put).await.unwrap();
        let came = |follower: &Follower| {
            follower.entries().iter().any(|entry| contains(&entry.data, value.as_bytes()))
        };
        follower.until("the entry", came).await;
    }
    let large = "v".repeat(100_000);
    let put = etcd.ctl(&["put", "key", &large, "--command-timeout=60s"]);
    follower.until_finished("large put", put).await.unwrap();
    // A read of ours: the leader asks around, then tells the index.
    follower.say(Term(0), Body::ReadIndex { context: Bytes::from_static(b"readread") });
    let told = |follower: &Follower| {
        follower.seen.iter().any(|message| match &message.body {
            Body::ReadIndexReply { index, context } => {
                assert_eq!(context, "readread");
                follower.entries().iter().any(|entry| entry.index == *index)
            }
            _ => false,
        })
    };
    follower.until("the read index", told).await;
    let indexes: Vec<_> = follower.entries().iter().map(|entry| entry.index).collect();
    assert!(indexes.is_sorted(), "{indexes:?}");
    // A signal of ours that is heard: who asks for the leader's place is told to take it.
    let attached = follower.host.transport.attached_streams(follower.leader);
    assert_eq!(attached, if only_posts { 0 } else { 2 });
    follower.say(follower.term(), Body::TransferLeader);
    let handed_over = |follower: &Follower| {
        follower.seen.iter().any(|message| matches!(message.body, Body::TimeoutNow))
    };
    follower.until("the leader's place", handed_over).await;
    assert_eq!(follower.host.heard(|heard| heard.told_removed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_35_commits_with_us_over_streams() {
    commits_with_us("REAL_ETCD_35", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_35_commits_with_us_by_posts() {
    commits_with_us("REAL_ETCD_35", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_34_commits_with_us_over_streams() {
    commits_with_us("REAL_ETCD_34", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_34_commits_with_us_by_posts() {
    commits_with_us("REAL_ETCD_34", true).await;
}

/// A snapshot of etcd's, and the same sent back: too old to be used, but taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_pass_between_etcd_and_us() {
    let Some(programs) = programs("REAL_ETCD_35") else { return };
    let flags = ["--snapshot-count=10", "--experimental-snapshot-catchup-entries=5"];
    let etcd = Etcd::start(&programs, &flags).await;
    for number in 0..40 {
        etcd.ctl(&["put", "key", &number.to_string()]).await.unwrap();
    }
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut follower = etcd.add_member(socket).await;
    follower.wants_snapshot = true;
    let db = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&db);
    *follower.host.listener.on_chunk.lock() =
        Some(Arc::new(move |chunk: &Bytes| keep.lock().extend_from_slice(chunk)));
    follower.connect();
    let came = |follower: &Follower| follower.host.heard(|heard| !heard.snapshots.is_empty());
    follower.until("the snapshot", came).await;
    let (message, data) = follower.host.heard(|heard| {
        let snapshot = &heard.snapshots[0];
        assert_eq!(snapshot.db, Ok(db.lock().len()));
        (snapshot.message.clone(), snapshot.data.clone())
    });
    let Body::Snapshot(meta) = &message.body else { panic!("{message:?}") };
    assert!(meta.conf_state.voters.contains(&follower.leader));
    assert!(contains(&data, b"\"Root\""), "the v2 store");
    assert!(!db.lock().is_empty());
    follower.wants_snapshot = false;
    let reply = AppendReply { index: meta.position.index, rejected: None };
    follower.say(message.term, Body::AppendReply(reply));
    let put = etcd.ctl(&["put", "key", "after", "--command-timeout=60s"]);
    follower.until_finished("put", put).await.unwrap();
    let sent_back = Message {
        from: follower.host.id,
        to: follower.leader,
        term: Term(1),
        body: message.body.clone(),
    };
    let bytes = Bytes::from(db.lock().clone());
    let db_bytes = bytes.len() as u64;
    let db = Box::pin(futures_util::stream::iter([Ok(bytes)]));
    follower.host.transport.send_snapshot(OutgoingSnapshot {
        message: sent_back,
        data,
        db,
        db_bytes,
    });
    let told = |follower: &Follower| follower.host.heard(|heard| !heard.snapshots_sent.is_empty());
    follower.until("the outcome", told).await;
    let leader = follower.leader;
    follower.host.heard(|heard| assert_eq!(heard.snapshots_sent, [(leader, true)]));
    assert_ne!(meta.position.index, Index(0));
}

/// Whoever is removed hears it from etcd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_tells_a_removed_member() {
    let Some(programs) = programs("REAL_ETCD_35") else { return };
    let etcd = Etcd::start(&programs, &[]).await;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut follower = etcd.add_member(socket).await;
    follower.connect();
    follower.until("messages", |follower| !follower.seen.is_empty()).await;
    let id = follower.host.id.to_string();
    // Refused while it has not been connected for five seconds.
    for attempt in 1.. {
        let remove = etcd.ctl(&["member", "remove", &id, "--command-timeout=60s"]);
        if follower.until_finished("removing", remove).await.is_some() {
            break;
        }
        assert!(attempt < 60, "removing is refused");
        let began = Instant::now();
        follower.until("a pause", |_| Duration::from_millis(500) < began.elapsed()).await;
    }
    let told = |follower: &Follower| follower.host.heard(|heard| 0 < heard.told_removed);
    follower.until("410", told).await;
}
