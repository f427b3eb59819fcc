//! What other members are asked: their version, hashes of their data, and, of the leader, what only
//! it can do.
//!
//! Questions run on the thread of the peers, whoever asks. Source: etcd
//! server/etcdserver/{cluster_util,corrupt,v3_server}.go, server/lease/leasehttp/http.go.

use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, LeaseId, MemberId};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::leasepb;
use serde::Deserialize;
use state::Refusal;

use super::ask::{Answer, AskError, Asker, Question};
use super::corruption::{Answered, PeerHash, PeerHashError};
use super::versions::Release;
use crate::auth::Caller;
use crate::handle::ProposeError;

/// Said on the port for members by those that read v2 requests whatever their release.
pub(crate) const READS_V2: &str = "x-retcd-reads-v2";

/// The name of a cluster in headers.
pub(crate) const CLUSTER_ID: &str = "x-etcd-cluster-id";

/// Asks other members; clones share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Others {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cluster: ClusterId,
    asker: Asker,
    runtime: tokio::runtime::Handle,
    timeout: Duration,
}

/// A lease with a million keys has no longer answer.
const LEASE_ANSWER_BYTES_MAX: usize = 100 << 20;

/// What `/version` says; more may follow.
#[derive(Debug, Deserialize)]
struct Versions {
    #[serde(default)]
    etcdserver: String,
}

/// What `/members/hashkv` says; Go leaves out what is zero.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HashAnswer {
    header: HashHeader,
    hash: u32,
    compact_revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HashHeader {
    revision: i64,
}

/// How a question to the leader ended without an answer.
#[derive(Debug)]
pub(crate) enum LeaderError {
    /// It said no, as everybody would.
    Refused(ProposeError),
    /// It could not be asked, or leads no more: to be asked again.
    Again,
}

impl Others {
    /// `runtime` runs the connections; no question takes longer than `timeout`.
    pub(crate) fn new(
        cluster: ClusterId,
        asker: Asker,
        runtime: tokio::runtime::Handle,
        timeout: Duration,
    ) -> Self {
        Self { shared: Arc::new(Shared { cluster, asker, runtime, timeout }) }
    }

    /// Asks at several URLs until one answers, with whatever status.
    async fn ask(&self, urls: &[String], question: Question) -> Result<Answer, String> {
        let (shared, urls) = (self.shared.clone(), urls.to_vec());
        let asking = async move {
            let mut failure = "it has no peer URL".to_owned();
            let told =
                |_: &str, error: AskError| failure = crate::logging::Chain(&error).to_string();
            let urls = urls.iter().map(String::as_str);
            let read = Ok::<_, AskError>;
            let answer = shared.asker.ask_each(urls, &question, read, told).await;
            answer.ok_or(failure)
        };
        let asked = self.shared.runtime.spawn(asking).await;
        asked.unwrap_or_else(|_| Err("this member stops".to_owned()))
    }

    fn get(&self, path: &str) -> Question {
        Question::get(path, self.shared.timeout)
    }

    fn post(&self, path: &str, body: Vec<u8>) -> Question {
        let mut headers = HeaderMap::new();
        let protobuf = HeaderValue::from_static("application/protobuf");
        headers.insert(http::header::CONTENT_TYPE, protobuf);
        Question { method: Method::POST, headers, body: body.into(), ..self.get(path) }
    }

    /// The release that a member runs; the error says why it is not known.
    pub(crate) async fn release_of(&self, member: &pb::Member) -> Result<Release, String> {
        let answer = self.ask(&member.peer_ur_ls, self.get("/version")).await?;
        release(&answer)
    }

    /// Whether a member survives requests of the v2 generation in its log: all of ours do, and those
    /// of etcd before 3.6. The error is the reason for people.
    pub(crate) async fn reads_v2(&self, member: &pb::Member) -> Result<bool, String> {
        let answer = self.ask(&member.peer_ur_ls, self.get("/version")).await?;
        let says_so = !answer.header(READS_V2).is_empty();
        Ok(says_so || release(&answer)? < Release::V3_6)
    }

    /// A member's hash of the key space at a revision.
    pub(crate) async fn hash_of(&self, member: &pb::Member, revision: i64) -> Answered {
        let id = MemberId(member.id);
        (id, self.hash_at(&member.peer_ur_ls, revision).await)
    }

    async fn hash_at(&self, urls: &[String], revision: i64) -> Result<PeerHash, PeerHashError> {
        let mut question = self.get("/members/hashkv");
        // Go leaves out a zero.
        let body =
            if revision == 0 { "{}".to_owned() } else { format!("{{\"revision\":{revision}}}") };
        question.body = body.into();
        let json = HeaderValue::from_static("application/json");
        question.headers.insert(http::header::CONTENT_TYPE, json);
        let cluster = HeaderValue::from_str(&self.shared.cluster.to_string());
        question.headers.insert(CLUSTER_ID, cluster.expect("hexadecimal digits"));
        let answer = self.ask(urls, question).await.map_err(PeerHashError::Unreachable)?;
        let text = answer.text();
        match answer.status {
            StatusCode::OK => {
                let said: HashAnswer = serde_json::from_slice(&answer.body)
                    .map_err(|error| PeerHashError::Unreachable(error.to_string()))?;
                let HashAnswer { header, hash, compact_revision } = said;
                Ok(PeerHash { hash, compact_revision, current: header.revision })
            }
            StatusCode::BAD_REQUEST if text.contains("required revision has been compacted") => {
                Err(PeerHashError::Compacted)
            }
            StatusCode::BAD_REQUEST if text.contains("required revision is a future revision") => {
                Err(PeerHashError::Future)
            }
            StatusCode::PRECONDITION_FAILED if text.contains("cluster ID mismatch") => {
                Err(PeerHashError::OtherCluster)
            }
            status => Err(PeerHashError::Unreachable(format!("{status}: {text}"))),
        }
    }

    /// Lets the leader give a learner its vote. It asks whether the caller may, as this member did.
    pub(crate) async fn promote(
        &self,
        leader: &[String],
        caller: &Caller,
        id: MemberId,
    ) -> Result<Vec<pb::Member>, LeaderError> {
        let path = format!("/members/promote/{}", id.0);
        let token = caller.token_as_it_came().cloned();
        let headers = token.map(|token| (http::header::AUTHORIZATION, token)).into_iter().collect();
        let question = Question { method: Method::POST, headers, ..self.get(&path) };
        let answer = self.ask(leader, question).await.map_err(|_| LeaderError::Again)?;
        let text = answer.text();
        let refused = |error: ProposeError| Err(LeaderError::Refused(error));
        match answer.status {
            StatusCode::OK => {
                let members: Vec<state::members::MemberObject> =
                    serde_json::from_slice(&answer.body).map_err(|_| LeaderError::Again)?;
                Ok(members.iter().map(state::members::MemberObject::to_message).collect())
            }
            StatusCode::NOT_FOUND => refused(Refusal::MemberNotFound.into()),
            StatusCode::PRECONDITION_FAILED if text.contains("in sync with leader") => {
                refused(ProposeError::LearnerNotReady)
            }
            StatusCode::PRECONDITION_FAILED if text.contains("can only promote a learner") => {
                refused(Refusal::NotLearner.into())
            }
            _ => Err(LeaderError::Again),
        }
    }

    /// Lets the leader renew a lease; the seconds it lives on.
    pub(crate) async fn renew_lease(
        &self,
        leader: &[String],
        id: LeaseId,
    ) -> Result<i64, LeaderError> {
        let request = pb::LeaseKeepAliveRequest { id: id.0 };
        let question = self.post("/leases", request.encode_to_vec());
        let body = self.ask_of_leases(leader, question).await?;
        let reply = pb::LeaseKeepAliveResponse::decode(body).map_err(|_| LeaderError::Again)?;
        if reply.id == id.0 { Ok(reply.ttl) } else { Err(LeaderError::Again) }
    }

    /// Asks the leader how long a lease lives.
    pub(crate) async fn lease_time_to_live(
        &self,
        leader: &[String],
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, LeaderError> {
        let id = request.id;
        let request = leasepb::LeaseInternalRequest { lease_time_to_live_request: Some(request) };
        let mut question = self.post("/leases/internal", request.encode_to_vec());
        question.answer_bytes_max = LEASE_ANSWER_BYTES_MAX;
        let body = self.ask_of_leases(leader, question).await?;
        let reply = leasepb::LeaseInternalResponse::decode(body).map_err(|_| LeaderError::Again)?;
        let reply = reply.lease_time_to_live_response.filter(|reply| reply.id == id);
        reply.ok_or(LeaderError::Again)
    }

    async fn ask_of_leases(
        &self,
        leader: &[String],
        question: Question,
    ) -> Result<Bytes, LeaderError> {
        let answer = self.ask(leader, question).await.map_err(|_| LeaderError::Again)?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            StatusCode::NOT_FOUND => Err(LeaderError::Refused(Refusal::LeaseNotFound.into())),
            _ => Err(LeaderError::Again),
        }
    }
}

fn release(answer: &Answer) -> Result<Release, String> {
    let versions: Result<Versions, _> = serde_json::from_slice(&answer.body);
    let versions = versions.map_err(|error| format!("it answered no version: {error}"))?;
    let unknown = || format!("it answered the version {:?}", versions.etcdserver);
    Release::parse(&versions.etcdserver).ok_or_else(unknown)
}
