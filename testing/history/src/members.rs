//! The reference model of the members of a cluster: what each change in the log makes of them, and
//! which changes are refused.
//!
//! It is given the committed changes in the order of the log, from the founders' entries on, so
//! that it takes nobody's word for who is in the cluster. It shares no code with `state` and
//! `raft`: the context of a change is read here once more, and who votes is not derived from the
//! list of members but counted beside it, as consensus does.
//!
//! Not modelled: names and client addresses that members publish later, and joint changes, which
//! nobody proposes. An update changes addresses only; etcd's also takes the vote that the update
//! carries, which is always the default.
//!
//! etcd: server/etcdserver/api/membership/cluster.go (`ValidateConfigurationChange`),
//! server/etcdserver/server.go (`applyConfChange`); etcd-io/raft confchange/confchange.go.

use std::collections::{BTreeMap, BTreeSet};

use proto::etcdserverpb as pb;
use proto::raftpb::{ConfChange, ConfChangeType};
use serde_json::Value;

use crate::Denied;

/// The texts of etcd's errors, without the word before them.
mod text {
    pub(super) const EXISTS: &str = "member ID already exist";
    pub(super) const NOT_FOUND: &str = "member not found";
    pub(super) const URL_EXISTS: &str = "peer URLs already exists";
    pub(super) const NOT_LEARNER: &str = "can only promote a learner member";
    pub(super) const TOO_MANY_LEARNERS: &str = "too many learner members in cluster";
    /// Of the last voter's removal, which etcd refuses before it is proposed.
    pub(super) const NOT_ENOUGH: &str = "re-configuration failed due to not enough started members";
    /// Nobody answers this: such a change must not be in a log.
    pub(super) const UNREADABLE: &str = "a change that nobody can read";
}

/// Who is in a cluster, and who may never come back. Voters and learners together are the ids of
/// the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<u64, pb::Member>,
    removed: BTreeSet<u64>,
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
}

impl Membership {
    /// The members, by id.
    #[must_use]
    pub fn members(&self) -> Vec<pb::Member> {
        self.members.values().cloned().collect()
    }

    /// Who was removed.
    #[must_use]
    pub fn removed(&self) -> &BTreeSet<u64> {
        &self.removed
    }

    /// Who votes.
    #[must_use]
    pub fn voters(&self) -> &BTreeSet<u64> {
        &self.voters
    }

    /// Who only listens.
    #[must_use]
    pub fn learners(&self) -> &BTreeSet<u64> {
        &self.learners
    }

    /// Makes a change; leaves everything as it is if that is refused.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub fn change(&mut self, change: &ConfChange, learners_max: usize) -> Result<(), Denied> {
        let id = change.node_id();
        let kind = ConfChangeType::try_from(change.r#type.unwrap_or_default());
        let kind = kind.map_err(|_| text::UNREADABLE)?;
        if self.removed.contains(&id) {
            return Err(text::NOT_FOUND);
        }
        match kind {
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                let context = Context::read(change).ok_or(text::UNREADABLE)?;
                if context.promotes {
                    return self.promote(id);
                }
                let listens = kind == ConfChangeType::ConfChangeAddLearnerNode;
                self.add(context.member, listens, learners_max)
            }
            ConfChangeType::ConfChangeRemoveNode => self.remove(id),
            ConfChangeType::ConfChangeUpdateNode => {
                let context = Context::read(change).ok_or(text::UNREADABLE)?;
                self.update(id, context.member.peer_ur_ls)
            }
        }
    }

    fn add(
        &mut self,
        member: pb::Member,
        listens: bool,
        learners_max: usize,
    ) -> Result<(), Denied> {
        let id = member.id;
        if self.members.contains_key(&id) {
            return Err(text::EXISTS);
        }
        if self.is_taken(id, &member.peer_ur_ls) {
            return Err(text::URL_EXISTS);
        }
        if listens && member.is_learner {
            let learners = self.members.values().filter(|member| member.is_learner).count();
            if learners_max < learners + 1 {
                return Err(text::TOO_MANY_LEARNERS);
            }
        }
        self.members.insert(id, member);
        let counted = if listens { &mut self.learners } else { &mut self.voters };
        counted.insert(id);
        Ok(())
    }

    fn promote(&mut self, id: u64) -> Result<(), Denied> {
        let member = self.members.get_mut(&id).ok_or(text::NOT_FOUND)?;
        if !member.is_learner {
            return Err(text::NOT_LEARNER);
        }
        member.is_learner = false;
        self.learners.remove(&id);
        self.voters.insert(id);
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Result<(), Denied> {
        if !self.members.contains_key(&id) {
            return Err(text::NOT_FOUND);
        }
        if self.voters.iter().eq([&id]) {
            return Err(text::NOT_ENOUGH);
        }
        self.members.remove(&id);
        self.voters.remove(&id);
        self.learners.remove(&id);
        self.removed.insert(id);
        Ok(())
    }

    fn update(&mut self, id: u64, urls: Vec<String>) -> Result<(), Denied> {
        if !self.members.contains_key(&id) {
            return Err(text::NOT_FOUND);
        }
        if self.is_taken(id, &urls) {
            return Err(text::URL_EXISTS);
        }
        self.members.entry(id).and_modify(|member| member.peer_ur_ls = urls);
        Ok(())
    }

    /// Whether another member is reached at one of these addresses.
    fn is_taken(&self, id: u64, urls: &[String]) -> bool {
        let others = self.members.values().filter(|other| other.id != id);
        others.flat_map(|other| &other.peer_ur_ls).any(|taken| urls.contains(taken))
    }
}

/// What a change carries beside its kind and its id: a member as Go writes it in JSON.
struct Context {
    member: pb::Member,
    promotes: bool,
}

impl Context {
    /// `None` if it is none, or of another member than the change.
    fn read(change: &ConfChange) -> Option<Self> {
        let json: Value = serde_json::from_slice(change.context.as_deref()?).ok()?;
        let field = |name: &str| json.get(name).filter(|value| !value.is_null());
        // What is left out is Go's zero.
        let flag = |name: &str| field(name).map_or(Some(false), Value::as_bool);
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let words = |name: &str| match field(name) {
            None => Some(Vec::new()),
            Some(all) => all.as_array()?.iter().map(word).collect(),
        };
        let member = pb::Member {
            id: field("id")?.as_u64()?,
            name: field("name").map_or_else(|| Some(String::new()), word)?,
            peer_ur_ls: words("peerURLs")?,
            client_ur_ls: words("clientURLs")?,
            is_learner: flag("isLearner")?,
        };
        let promotes = flag("isPromote")?;
        (member.id == change.node_id()).then_some(Self { member, promotes })
    }
}
