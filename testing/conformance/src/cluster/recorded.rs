//! A client that records every call.
//!
//! It tries again what etcd's Go client tries again, which is the client library's business: reads,
//! and writes that never left. Whatever else fails is recorded as refused or unknown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Applied, Client, Error, Options};
use history::{Answer, Call, Operation, Outcome};
use proto::etcdserverpb as pb;

use super::recorder::Recorder;

/// How often each member was started.
#[derive(Clone, Debug, Default)]
pub struct Lives(Arc<Mutex<BTreeMap<usize, u64>>>);

impl Lives {
    /// A member starts.
    pub fn begin(&self, member: usize) {
        let mut lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *lives.entry(member).or_default() += 1;
    }

    /// How often it was started.
    #[must_use]
    pub fn of(&self, member: usize) -> u64 {
        let lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lives.get(&member).copied().unwrap_or_default()
    }
}

/// Sessions that are not known to be one begin here.
const SESSION_UNKNOWN: u64 = 1 << 32;

/// A client of one member or of several.
#[derive(Debug)]
pub struct RecordedClient {
    recorder: Arc<Recorder>,
    lives: Lives,
    client: u64,
    /// The member it is pinned to.
    member: Option<usize>,
    inner: Client,
}

impl RecordedClient {
    /// A client of these endpoints; `member` if they are of that one alone.
    ///
    /// # Errors
    ///
    /// There is no endpoint, or it is none.
    pub async fn connect(
        recorder: &Arc<Recorder>,
        lives: &Lives,
        endpoints: Vec<String>,
        member: Option<usize>,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let mut options = Options::new(endpoints).with_command_timeout(Some(timeout));
        options.dial_timeout = timeout.min(options.dial_timeout);
        let inner = Client::connect(options).await?;
        let client = recorder.number();
        Ok(Self { recorder: Arc::clone(recorder), lives: lives.clone(), client, member, inner })
    }

    /// Makes a call and records it; the answer, if there was one.
    pub async fn call(&mut self, call: Call) -> Option<Answer> {
        let life = |member: Option<usize>| member.map(|member| self.lives.of(member));
        let before = life(self.member);
        let invoked = self.recorder.now();
        let answer = self.ask(call.clone()).await;
        let returned = self.recorder.now();
        let session = match (before, life(self.member)) {
            (Some(before), Some(after)) if before == after => before,
            (Some(_) | None, Some(_) | None) => SESSION_UNKNOWN + self.recorder.number(),
        };
        let (outcome, answer) = match answer {
            Ok(answer) => (Outcome::Answered(answer.clone()), Some(answer)),
            Err(error) if error.applied() == Applied::No => {
                (Outcome::Refused(error.to_string()), None)
            }
            Err(error) => (Outcome::Unknown(error.to_string()), None),
        };
        let member = self.member.and_then(|member| u64::try_from(member).ok());
        self.recorder.record(Operation {
            client: self.client,
            member: member.unwrap_or(u64::MAX),
            session,
            invoked,
            returned,
            call,
            outcome,
        });
        answer
    }

    async fn ask(&self, call: Call) -> Result<Answer, Error> {
        let client = &self.inner;
        Ok(match call {
            Call::Range(request) => Answer::Range(client.get(request).await?),
            Call::Put(request) => Answer::Put(client.put(request).await?),
            Call::Delete(request) => Answer::Delete(client.delete(request).await?),
            Call::Txn(request) => Answer::Txn(client.txn(request).await?),
            Call::Compact(request) => Answer::Compact(client.compact(request).await?),
            Call::Grant(request) => Answer::Grant(client.lease_grant(request).await?),
            Call::Revoke(request) => Answer::Revoke(client.lease_revoke(request).await?),
            Call::KeepAlive(request) => {
                Answer::KeepAlive(client.lease_keep_alive_once(request.id).await?)
            }
            Call::TimeToLive(request) => {
                Answer::TimeToLive(client.lease_time_to_live(request).await?)
            }
        })
    }

    /// Puts; the revision, if it was acknowledged.
    pub async fn put(&mut self, key: &str, value: &str) -> Option<i64> {
        let request = pb::PutRequest {
            key: key.as_bytes().to_vec().into(),
            value: value.as_bytes().to_vec().into(),
            ..Default::default()
        };
        self.call(Call::Put(request)).await.map(|answer| answer.revision())
    }

    /// Reads a key; linearizable.
    pub async fn get(&mut self, key: &str) -> Option<pb::RangeResponse> {
        let request =
            pb::RangeRequest { key: key.as_bytes().to_vec().into(), ..Default::default() };
        match self.call(Call::Range(request)).await? {
            Answer::Range(response) => Some(response),
            Answer::Put(_)
            | Answer::Delete(_)
            | Answer::Txn(_)
            | Answer::Compact(_)
            | Answer::Grant(_)
            | Answer::Revoke(_)
            | Answer::KeepAlive(_)
            | Answer::TimeToLive(_) => None,
        }
    }
}
