//! Hints: a line on standard error for what often goes wrong, with its cause and its remedy.
//!
//! They are given only where `ETCDCTL_API` is unset; with the variable the tool prints exactly what
//! the original prints.

use std::fmt::Display;

use cli::exit::Failure;
use proto::etcdserverpb::{Member, MemberListRequest};

/// Whether hints are wanted.
pub(crate) fn are_wanted() -> bool {
    std::env::var_os("ETCDCTL_API").is_none_or(|api| api.is_empty())
}

/// Prints one, if they are wanted.
pub(crate) fn give(text: impl Display) {
    if are_wanted() {
        eprintln!("hint: {text}");
    }
}

/// A change of members that a cluster refuses because too few of them run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Of a member that votes.
    Add,
    /// Of the member with this id.
    Remove(u64),
}

/// Why a cluster calls itself unhealthy: it looks for connections that have lasted.
const OUT_OF_TOUCH: &str = "too few of the voting members have been in touch for 5 seconds with the one that was asked; right \
     after a start or a change ask again, otherwise `etcdctl endpoint health --cluster` tells who is \
     away";

/// The failure of a change of members, with what is behind it.
pub(crate) async fn refused(
    client: &client::Client,
    change: Change,
    error: client::Error,
) -> Failure {
    let text = error.to_string();
    let failure = Failure::error(&text);
    if !are_wanted() {
        return failure;
    }
    if text.contains("unhealthy cluster") {
        return Failure::error(format!("{text}\nhint: {OUT_OF_TOUCH}"));
    }
    if !text.contains("not enough started members") {
        return failure;
    }
    let request = MemberListRequest { linearizable: false };
    let Ok(list) = client.member_list(request).await else { return failure };
    Failure::error(format!("{text}\nhint: {}", why(change, &list.members)))
}

/// Members that vote, and those of them that were started once.
fn voters(members: &[Member]) -> (usize, usize) {
    let voters = members.iter().filter(|member| !member.is_learner);
    let started = voters.clone().filter(|member| !member.name.is_empty());
    (voters.count(), started.count())
}

fn why(change: Change, members: &[Member]) -> String {
    let (voters, started) = voters(members);
    match change {
        Change::Remove(id) if voters == 1 && members.iter().any(|it| it.id == id) => format!(
            "{id:x} is the only voting member, and a cluster cannot be without one; to end the \
             cluster stop etcd and remove its data directory, to move it add the new member first"
        ),
        Change::Remove(_) => format!(
            "{started} of {voters} voting members were started; without this one too few would be \
             left to agree: start the missing ones first, or remove one that was never started"
        ),
        Change::Add => format!(
            "{started} of {voters} voting members were started, and one more would leave the \
             cluster unable to agree: start the missing ones or remove them (etcdctl member list \
             shows them), or add the new one with --learner"
        ),
    }
}

/// What follows from a member that was added, if the cluster cannot agree before it runs.
pub(crate) fn after_adding(name: &str, members: &[Member]) -> Option<String> {
    let (voters, started) = voters(members);
    let quorum = voters / 2 + 1;
    (started < quorum).then(|| {
        format!(
            "the cluster now has {voters} voting members and needs {quorum} of them, but {started} \
             run: until {name} is started with the settings above, nothing can be written and \
             nothing be taken back; with --learner a new member has no vote until it is promoted"
        )
    })
}

/// What to do about a command that failed with this text, where that is not plain from the text.
pub(crate) fn about_failure(text: &str, endpoints: &str) -> Option<String> {
    let known = [
        (
            "context deadline exceeded",
            "no member answered in time; --endpoints or ETCDCTL_ENDPOINTS names those to ask, and \
             `etcdctl endpoint health` tells which of them answer",
        ),
        (
            "user name is empty",
            "if authentication is on, say who you are with --user NAME:PASSWORD",
        ),
        (
            "permission denied",
            "`etcdctl user get NAME --detail` shows what a user may do, `etcdctl role \
             grant-permission` changes it",
        ),
        (
            "mvcc: database space exceeded",
            "make room with `etcdctl compaction REVISION` and `etcdctl defrag`, or raise the server's \
             --quota-backend-bytes, then `etcdctl alarm disarm`",
        ),
        (
            "required revision has been compacted",
            "older revisions are gone; leave out --rev for the present one",
        ),
        (
            "required revision is a future revision",
            "`etcdctl endpoint status -w json` shows the newest revision",
        ),
        (
            "requested lease not found",
            "it has expired or was revoked; `etcdctl lease list` shows those there are",
        ),
    ];
    let (part, hint) = known.iter().find(|(part, _)| text.contains(part))?;
    let asked = if *part == known[0].0 { format!(" (asked: {endpoints})") } else { String::new() };
    Some(format!("{hint}{asked}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_remedies() {
        let told = |text: &str| about_failure(text, "127.0.0.1:1").unwrap_or_default();
        assert!(told("context deadline exceeded").ends_with("(asked: 127.0.0.1:1)"));
        assert!(told("etcdserver: user name is empty").contains("--user"));
        let full = "etcdserver: mvcc: database space exceeded";
        assert!(told(full).contains("alarm disarm") && !told(full).contains("asked"));
        assert_eq!(told("etcdserver: key not found"), "");
    }

    fn member(id: u64, name: &str) -> Member {
        Member { id, name: name.to_owned(), ..Member::default() }
    }

    /// SEEDX-04.
    #[test]
    fn hints_tell_cause_and_remedy() {
        let one = [member(0x1d, "a")];
        assert!(why(Change::Remove(0x1d), &one).starts_with("1d is the only voting member"));
        let half = [member(1, "a"), member(2, "")];
        assert!(why(Change::Remove(1), &half).starts_with("1 of 2 voting members were started"));
        assert!(why(Change::Add, &half).contains("--learner"));
        let text = after_adding("etcd3", &half).unwrap();
        assert!(text.contains("2 voting members and needs 2 of them, but 1 run: until etcd3"));
        let three = [member(1, "a"), member(2, "b"), member(3, "")];
        assert_eq!(after_adding("c", &three), None);
        let learner = Member { is_learner: true, ..member(2, "") };
        assert_eq!(after_adding("b", &[member(1, "a"), learner]), None);
    }
}
