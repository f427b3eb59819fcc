//! Stories of a cluster that print themselves: `testdata/*.txt`.
//!
//! Members are 1, 2, ...; positions print as term/index. Pre-votes and the quorum check are off
//! unless the cluster is made with them.
//!
//! | Command | Meaning |
//! | --- | --- |
//! | `cluster N [learners=4,5]` | starts anew; the other words set options, see `make` |
//! | `start ID` | a member that knows nothing and is in no configuration |
//! | `campaign M`, `transfer M TO`, `compact M INDEX`, `unreachable M PEER` | the core's verbs |
//! | `tick M [N]` | time passes for one member, or for `all` |
//! | `propose M WORD..`, `change M WORDS`, `read M CONTEXT` | what clients want |
//! | `work M` | what a member wants done, without delivering its messages |
//! | `deliver [to=M]` | messages, until everything is quiet; or only those to one member, once |
//! | `messages`, `lose [to=M]`, `duplicate` | those on their way |
//! | `isolate M`, `heal`, `crash M`, `restart M` | faults |
//! | `write M` | one batch of a held disk |
//! | `hold M disk`, `free M disk`, `hold M apply`, `free M apply` | a slow disk or state machine |
//! | `status`, `progress M`, `log M`, `applied M`, `reads M`, `events M`, `members M` | prints |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::fmt::Write as _;
use std::path::Path;

use base::{Index, MemberId};
use bytes::Bytes;
use cluster::Cluster;
use retcd_raft::{
    Append, AppendReply, Body, ConfState, Config, Entry, EntryKind, Message, PeerState, Raft,
    RoleKind,
};
use script::Command;

/// CB-39, CB-50, CB-51, and whatever the scripts are named after.
#[test]
fn scripts_print_what_they_printed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for path in script::scripts(&folder) {
        println!("{}", path.display());
        let mut cluster = Cluster::default();
        script::check(&path, |command| run(&mut cluster, command));
    }
}

fn run(cluster: &mut Cluster, command: &Command) -> String {
    let arguments = command.arguments();
    let id = arguments.first().and_then(|word| word.parse().ok()).map(MemberId);
    let subject = || id.unwrap_or_else(|| panic!("line {}: which member?", command.line));
    match command.name() {
        "cluster" => *cluster = make(command),
        "start" => cluster.add(Config::new(subject(), subject().0), ConfState::default()),
        "deliver" if command.value("to").is_some() => deliver_to(cluster, target(command).unwrap()),
        "deliver" => cluster.deliver(),
        "work" => {
            cluster.work_of(subject());
        }
        "write" => {
            cluster.write_one(subject());
        }
        "messages" => {
            return cluster.network.iter().map(|message| print_message(message) + "\n").collect();
        }
        "lose" => lose(cluster, target(command)),
        "duplicate" => {
            let copies = cluster.network.clone();
            cluster.network.extend(copies);
        }
        "isolate" => {
            cluster.isolated.insert(subject());
        }
        "heal" => cluster.isolated.clear(),
        "crash" => cluster.member(subject()).crash(),
        "restart" => cluster.member(subject()).restart(),
        "hold" | "free" => {
            let is_held = command.name() == "hold";
            let member = cluster.member(subject());
            match arguments[1].as_str() {
                "disk" => member.is_disk_held = is_held,
                "apply" => member.is_apply_held = is_held,
                other => panic!("line {}: {other}", command.line),
            }
        }
        "status" => return status(cluster),
        "tick" => {
            let count = arguments.get(1).map_or(1, |word| word.parse().unwrap());
            for member in cluster.members.values_mut() {
                if id.is_none_or(|id| member.id() == id) {
                    (0..count).for_each(|_| member.raft().tick());
                }
            }
        }
        _ => return run_verb(cluster, command, subject()),
    }
    String::new()
}

fn run_verb(cluster: &mut Cluster, command: &Command, id: MemberId) -> String {
    let arguments = &command.arguments()[1..];
    let payload = |word: &String| Bytes::copy_from_slice(word.as_bytes());
    let number = |at: usize| arguments[at].parse::<u64>().unwrap();
    let member = cluster.member(id);
    match command.name() {
        "applied" => return print_entries(&member.state.applied),
        "log" => return print_entries(&member.disk.entries),
        "reads" => {
            let reads = std::mem::take(&mut member.reads);
            return reads.iter().fold(String::new(), |mut text, read| {
                writeln!(text, "read {} at {}", read.context, read.index).unwrap();
                text
            });
        }
        _ => {}
    }
    let raft = member.raft();
    match command.name() {
        "campaign" => raft.campaign(),
        "propose" => {
            if let Err(error) = raft.propose(arguments.iter().map(payload).collect()) {
                return error.to_string();
            }
        }
        "change" => {
            if let Err(error) = raft.propose_change(Bytes::from(arguments.join(" "))) {
                return error.to_string();
            }
        }
        "read" => raft.read(number(0)),
        "transfer" => raft.transfer(MemberId(number(0))),
        "compact" => raft.compact(Index(number(0))),
        "unreachable" => raft.unreachable(MemberId(number(0))),
        "progress" => return progress(raft),
        "members" => return print_members(raft.conf_state()),
        "events" => return raft.take_events().iter().map(|event| format!("{event:?}\n")).collect(),
        other => panic!("line {}: unknown command {other}", command.line),
    }
    String::new()
}

fn make(command: &Command) -> Cluster {
    let voters: u64 = command.arguments()[0].parse().unwrap();
    let learners = command.value("learners").map(|ids| ids.split(',').map(cluster::member));
    let conf_state = ConfState {
        voters: (1..=voters).map(MemberId).collect(),
        learners: learners.into_iter().flatten().collect(),
        ..ConfState::default()
    };
    let number = |key| command.value(key).map(|value| value.parse::<u64>().unwrap());
    let mut cluster = Cluster::default();
    for &id in conf_state.voters.union(&conf_state.learners) {
        let defaults = Config::new(id, id.0);
        let config = Config {
            pre_vote: command.has("pre_vote"),
            check_quorum: command.has("check_quorum"),
            inflight_messages_max: number("in_flight").map_or(512, |max| max.try_into().unwrap()),
            message_bytes_max: number("bytes").unwrap_or(defaults.message_bytes_max),
            uncommitted_bytes_max: number("uncommitted").unwrap_or(u64::MAX),
            ..defaults
        };
        if command.has("bootstrap") {
            cluster.bootstrap(config, voters);
        } else {
            cluster.add(config, conf_state.clone());
        }
    }
    cluster
}

fn target(command: &Command) -> Option<MemberId> {
    command.value("to").map(cluster::member)
}

fn deliver_to(cluster: &mut Cluster, to: MemberId) {
    for message in std::mem::take(&mut cluster.network) {
        if message.to == to {
            cluster.arrive(message);
        } else {
            cluster.network.push_back(message);
        }
    }
    cluster.work_of(to);
}

fn lose(cluster: &mut Cluster, to: Option<MemberId>) {
    for message in std::mem::take(&mut cluster.network) {
        if to.is_none_or(|to| message.to == to) {
            cluster.lose(&message);
        } else {
            cluster.network.push_back(message);
        }
    }
}

fn status(cluster: &Cluster) -> String {
    let mut text = String::new();
    for (id, member) in &cluster.members {
        let Some(raft) = &member.raft else {
            writeln!(text, "{id} down").unwrap();
            continue;
        };
        let status = raft.status();
        let role = match (status.role, status.leader) {
            (RoleKind::Follower, Some(leader)) => format!("follower({leader})"),
            (RoleKind::Follower, None) => "follower(-)".to_owned(),
            (RoleKind::PreCandidate, _) => "pre-candidate".to_owned(),
            (RoleKind::Candidate, _) => "candidate".to_owned(),
            (RoleKind::Leader, _) => "leader".to_owned(),
        };
        let (term, last, commit) = (status.term, status.last, status.commit);
        writeln!(text, "{id} {role:<11} term={term} last={last} commit={commit}").unwrap();
    }
    text
}

fn progress(raft: &Raft) -> String {
    let mut text = String::new();
    for (id, peer) in raft.peers() {
        let state = match peer.state {
            PeerState::Probe => "probe".to_owned(),
            PeerState::Replicate => "replicate".to_owned(),
            PeerState::Snapshot(None) => "snapshot(wanted)".to_owned(),
            PeerState::Snapshot(Some(index)) => format!("snapshot({index})"),
        };
        write!(text, "{id} {state} match={} next={}", peer.matched, peer.next).unwrap();
        for (flag, word) in [
            (peer.is_paused, " paused"),
            (!peer.recent_active, " inactive"),
            (peer.is_learner, " learner"),
        ] {
            text.push_str(if flag { word } else { "" });
        }
        if peer.in_flight > 0 {
            write!(text, " in_flight={}", peer.in_flight).unwrap();
        }
        text.push('\n');
    }
    text
}

fn print_members(state: &ConfState) -> String {
    let list = |ids: &std::collections::BTreeSet<MemberId>| {
        ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    format!("voters={} learners={}", list(&state.voters), list(&state.learners))
}

fn print_entries(entries: &[Entry]) -> String {
    entries.iter().map(print_entry).collect::<Vec<_>>().join(" ")
}

fn print_entry(entry: &Entry) -> String {
    let text = String::from_utf8_lossy(&entry.data);
    let mark = if entry.kind == EntryKind::Normal { "" } else { "change " };
    format!("{}({mark}{text})", entry.position())
}

fn print_message(message: &Message) -> String {
    let body = match &message.body {
        Body::Append(Append { previous, entries, commit }) => {
            format!("behind={previous} [{}] commit={commit}", print_entries(entries))
        }
        Body::AppendReply(AppendReply { index, rejected: None }) => format!("accepted={index}"),
        Body::AppendReply(AppendReply { index, rejected: Some(hint) }) => {
            format!("rejected={index} hint={hint}")
        }
        Body::Vote(request) | Body::PreVote(request) => {
            format!("last={}{}", request.last, if request.forced { " forced" } else { "" })
        }
        Body::VoteReply { granted } | Body::PreVoteReply { granted } => format!("{granted}"),
        Body::Snapshot(meta) => format!("{} {}", meta.position, print_members(&meta.conf_state)),
        Body::Heartbeat { commit, context } => {
            format!("commit={commit}{}", if context.is_empty() { "" } else { " asks" })
        }
        Body::HeartbeatReply { context } => {
            (if context.is_empty() { "" } else { "answers" }).to_owned()
        }
        Body::ReadIndexReply { index, .. } => format!("index={index}"),
        Body::Propose(entries) => {
            let payloads = entries.iter().map(|entry| String::from_utf8_lossy(&entry.data));
            payloads.collect::<Vec<_>>().join(" ")
        }
        Body::ReadIndex { .. } | Body::TransferLeader | Body::TimeoutNow => String::new(),
    };
    let Message { from, to, term, body: _ } = message;
    format!("{from}->{to} {} term={term} {body}", message.body.name()).trim_end().to_owned()
}
