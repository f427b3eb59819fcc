//! Members: the objects etcd stores, the ids it derives, and changes as the log carries them.
//!
//! A change is checked against the state alone, so that every member accepts or refuses it alike;
//! whether it is wise (strict checks, health) is decided before it is proposed. Source: etcd
//! server/etcdserver/api/membership.

mod founders;

use std::collections::{BTreeMap, BTreeSet};

use backend::{Batch, Bucket};
use base::{ClusterId, MemberId};
use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::membershippb;
use proto::raftpb::{ConfChange, ConfChangeType};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha1::{Digest, Sha1};

use crate::{MemberChange, Refusal, json, schema};

pub use founders::{founder, founders, founding_change};

/// A member as it is stored and as the log carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberObject {
    /// Its id.
    #[serde(serialize_with = "id_out", deserialize_with = "id_in")]
    pub id: MemberId,
    /// Where the other members reach it.
    #[serde(
        rename = "peerURLs",
        default,
        serialize_with = "urls_out",
        deserialize_with = "urls_in"
    )]
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_false")]
    pub is_learner: bool,
    /// Its name; empty until it has started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it.
    #[serde(
        rename = "clientURLs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "urls_in"
    )]
    pub client_urls: Vec<String>,
}

/// What a `ConfChange` that adds, promotes or updates carries as its context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeContext {
    /// The member. To promote one only its id counts.
    #[serde(flatten)]
    pub member: MemberObject,
    /// Whether a learner that is known gets its vote.
    #[serde(rename = "isPromote", default, skip_serializing_if = "is_false")]
    pub is_promote: bool,
}

impl MemberObject {
    /// The object as Go writes it.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        json::encode(self)
    }

    /// Reads the object; `None` if it is not one.
    #[must_use]
    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The member as clients see it.
    #[must_use]
    pub fn to_message(&self) -> pb::Member {
        pb::Member {
            id: self.id.0,
            name: self.name.clone(),
            peer_ur_ls: self.peer_urls.clone(),
            client_ur_ls: self.client_urls.clone(),
            is_learner: self.is_learner,
        }
    }
}

impl ChangeContext {
    /// To add or update a member.
    #[must_use]
    pub fn of(member: MemberObject) -> Self {
        Self { member, is_promote: false }
    }

    /// To give a learner its vote.
    #[must_use]
    pub fn promotion(id: MemberId) -> Self {
        Self { member: MemberObject { id, ..MemberObject::default() }, is_promote: true }
    }

    /// The context as Go writes it.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        json::encode(self)
    }

    /// Reads the context; `None` if it is not one.
    #[must_use]
    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The id of a new member (CB-01). `now_seconds` is Unix time for one that joins a running cluster,
/// where `token` is empty, and `None` at bootstrap.
#[must_use]
pub fn member_id(peer_urls: &[String], token: &str, now_seconds: Option<u64>) -> MemberId {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut text = urls.concat();
    text.push_str(token);
    if let Some(now_seconds) = now_seconds {
        text.push_str(&now_seconds.to_string());
    }
    MemberId(hash(text.as_bytes()))
}

/// The id of a cluster that starts with these members (CB-02), in any order.
#[must_use]
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut members = members.to_vec();
    members.sort_unstable();
    let bytes: Vec<u8> = members.iter().flat_map(|id| id.0.to_be_bytes()).collect();
    ClusterId(hash(&bytes))
}

fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha1::digest(bytes);
    let head: [u8; 8] = digest[..8].try_into().expect("eight of twenty bytes");
    u64::from_be_bytes(head)
}

/// Who is in the cluster and who may never come back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    pub(crate) known: BTreeMap<MemberId, MemberObject>,
    pub(crate) removed: BTreeSet<MemberId>,
}

/// A decoded membership entry.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Add { member: MemberObject, learner: bool },
    Promote(MemberId),
    Remove(MemberId),
    Update(MemberObject),
}

impl Change {
    /// `None` if it is no change that this release knows.
    pub(crate) fn decode(change: &ConfChange) -> Option<Self> {
        let id = MemberId(change.node_id());
        let context = || {
            let context = ChangeContext::from_json(change.context.as_deref().unwrap_or_default())?;
            (context.member.id == id).then_some(context)
        };
        match ConfChangeType::try_from(change.r#type.unwrap_or_default()).ok()? {
            kind @ (ConfChangeType::ConfChangeAddNode
            | ConfChangeType::ConfChangeAddLearnerNode) => {
                let context = context()?;
                if context.is_promote {
                    return Some(Self::Promote(id));
                }
                let learner = kind == ConfChangeType::ConfChangeAddLearnerNode;
                Some(Self::Add { member: context.member, learner })
            }
            ConfChangeType::ConfChangeRemoveNode => Some(Self::Remove(id)),
            ConfChangeType::ConfChangeUpdateNode => Some(Self::Update(context()?.member)),
        }
    }

    fn id(&self) -> MemberId {
        match self {
            Self::Add { member, .. } | Self::Update(member) => member.id,
            Self::Promote(id) | Self::Remove(id) => *id,
        }
    }
}

impl Members {
    /// In order of id.
    pub(crate) fn list(&self) -> Vec<pb::Member> {
        self.known.values().map(MemberObject::to_message).collect()
    }

    /// Checks a change and makes it.
    pub(crate) fn change(
        &mut self,
        change: Change,
        learners_max: usize,
        batch: &mut Batch,
    ) -> Result<MemberChange, Refusal> {
        self.check(&change, learners_max)?;
        let meaning = match change {
            Change::Add { member, learner } => {
                let id = member.id;
                self.store(member, batch);
                if learner { MemberChange::AddLearner(id) } else { MemberChange::AddVoter(id) }
            }
            Change::Promote(id) => {
                let member = self.known.get(&id).expect("checked above").clone();
                self.store(MemberObject { is_learner: false, ..member }, batch);
                MemberChange::AddVoter(id)
            }
            Change::Remove(id) => {
                self.known.remove(&id);
                self.removed.insert(id);
                batch.delete(Bucket::Members, schema::member_key(id).as_bytes());
                batch.put(
                    Bucket::MembersRemoved,
                    schema::member_key(id).as_bytes(),
                    Bytes::from_static(b"removed"),
                );
                MemberChange::Remove(id)
            }
            Change::Update(update) => {
                // Only the addresses: what else is in the object is the proposer's guess.
                let member = self.known.get(&update.id).expect("checked above").clone();
                self.store(MemberObject { peer_urls: update.peer_urls, ..member }, batch);
                MemberChange::None
            }
        };
        batch.put(Bucket::Meta, schema::CONF_STATE, self.conf_state());
        Ok(meaning)
    }

    /// Name and client addresses, which a member publishes of itself. One that is not a member
    /// (any more) publishes nothing: `false`.
    pub(crate) fn set_attributes(
        &mut self,
        id: MemberId,
        attributes: membershippb::Attributes,
        batch: &mut Batch,
    ) -> bool {
        let Some(member) = self.known.get(&id).cloned() else {
            return false;
        };
        let membershippb::Attributes { name, client_urls } = attributes;
        self.store(MemberObject { name, client_urls, ..member }, batch);
        true
    }

    fn store(&mut self, member: MemberObject, batch: &mut Batch) {
        batch.put(Bucket::Members, schema::member_key(member.id).as_bytes(), member.to_json());
        self.known.insert(member.id, member);
    }

    fn check(&self, change: &Change, learners_max: usize) -> Result<(), Refusal> {
        let id = change.id();
        if self.removed.contains(&id) {
            return Err(Refusal::MemberNotFound);
        }
        let known = self.known.get(&id);
        match change {
            Change::Add { member, learner } => {
                if known.is_some() {
                    return Err(Refusal::MemberExists);
                }
                self.check_urls(member)?;
                let learners = self.known.values().filter(|member| member.is_learner).count();
                if *learner && member.is_learner && learners_max <= learners {
                    return Err(Refusal::TooManyLearners);
                }
            }
            Change::Promote(_) => {
                if !known.ok_or(Refusal::MemberNotFound)?.is_learner {
                    return Err(Refusal::NotLearner);
                }
            }
            Change::Remove(_) => {
                let is_voter = !known.ok_or(Refusal::MemberNotFound)?.is_learner;
                let voters = self.known.values().filter(|member| !member.is_learner).count();
                if is_voter && voters == 1 {
                    return Err(Refusal::LastVoter);
                }
            }
            Change::Update(member) => {
                known.ok_or(Refusal::MemberNotFound)?;
                self.check_urls(member)?;
            }
        }
        Ok(())
    }

    /// No other member may be reached at one of these addresses.
    fn check_urls(&self, member: &MemberObject) -> Result<(), Refusal> {
        let others = self.known.values().filter(|other| other.id != member.id);
        let used: BTreeSet<&String> = others.flat_map(|other| &other.peer_urls).collect();
        if member.peer_urls.iter().any(|url| used.contains(url)) {
            return Err(Refusal::PeerUrlExists);
        }
        Ok(())
    }

    /// Who votes and who listens, as Go's raft writes it.
    fn conf_state(&self) -> Bytes {
        #[derive(Serialize)]
        struct ConfState {
            #[serde(skip_serializing_if = "Vec::is_empty")]
            voters: Vec<u64>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            learners: Vec<u64>,
            auto_leave: bool,
        }
        let ids = |learners: bool| {
            let members = self.known.values().filter(|member| member.is_learner == learners);
            members.map(|member| member.id.0).collect()
        };
        json::encode(&ConfState { voters: ids(false), learners: ids(true), auto_leave: false })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn id_out<S: Serializer>(id: &MemberId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(id.0)
}

fn id_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MemberId, D::Error> {
    u64::deserialize(deserializer).map(MemberId)
}

/// A list that was never set is `null` in Go.
fn urls_out<S: Serializer>(urls: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    (!urls.is_empty()).then_some(urls).serialize(serializer)
}

fn urls_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
