//! Histories as files: one JSON object a line.
//!
//! Messages are kept as protobuf bytes in base64, so that nothing is lost; a text beside each is
//! for people and is not read back.

use std::io::{self, BufRead, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use proto::mvccpb::KeyValue;
use serde_json::{Value, json};

use crate::record::{Answer, Call, Final, History, Observation, Operation, Outcome, WatchRecord};
use crate::show;

/// Why a file is no history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("reading a history")]
    Io(#[from] io::Error),
    /// A line is not JSON.
    #[error("line {line} of a history is not JSON")]
    Json {
        /// From 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A line has not what it needs.
    #[error("line {line} of a history lacks a readable {field}")]
    Field {
        /// From 1.
        line: usize,
        /// The field.
        field: &'static str,
    },
}

/// Writes a history.
///
/// # Errors
///
/// The writer's.
pub fn write(history: &History, to: &mut impl Write) -> io::Result<()> {
    let pairs: Vec<String> = history.pairs.iter().map(encode).collect();
    writeln!(to, "{}", json!({"kind": "begin", "revision": history.revision, "pairs": pairs}))?;
    for operation in &history.operations {
        writeln!(to, "{}", operation_line(operation))?;
    }
    for watch in &history.watches {
        let line = json!({
            "kind": "watch", "client": watch.client, "member": watch.member,
            "opened": watch.opened, "caught_up": watch.caught_up,
            "request": encode(&watch.request), "text": show::watch(watch),
        });
        writeln!(to, "{line}")?;
        for seen in &watch.observations {
            let line = json!({
                "kind": "response", "received": seen.received,
                "response": encode(&seen.response), "text": show::events(&seen.response.events),
            });
            writeln!(to, "{line}")?;
        }
    }
    for member in &history.finals {
        let pairs: Option<Vec<String>> =
            member.pairs.as_ref().map(|pairs| pairs.iter().map(encode).collect());
        let line = json!({
            "kind": "final", "member": member.member, "revision": member.revision,
            "hash": member.hash, "compact_revision": member.compact_revision, "pairs": pairs,
        });
        writeln!(to, "{line}")?;
    }
    Ok(())
}

fn operation_line(operation: &Operation) -> Value {
    let (outcome, detail) = match &operation.outcome {
        Outcome::Answered(answer) => ("answered", encode_answer(answer)),
        Outcome::Refused(text) => ("refused", text.clone()),
        Outcome::Unknown(text) => ("unknown", text.clone()),
    };
    let (kind, request) = encode_call(&operation.call);
    json!({
        "kind": "operation", "client": operation.client, "member": operation.member,
        "session": operation.session, "invoked": operation.invoked,
        "returned": operation.returned, "call": kind, "request": request,
        "outcome": outcome, "detail": detail, "text": show::operation(operation),
    })
}

fn encode(message: &impl Message) -> String {
    STANDARD.encode(message.encode_to_vec())
}

fn encode_call(call: &Call) -> (&'static str, String) {
    match call {
        Call::Range(request) => ("range", encode(request)),
        Call::Put(request) => ("put", encode(request)),
        Call::Delete(request) => ("delete", encode(request)),
        Call::Txn(request) => ("txn", encode(request)),
        Call::Compact(request) => ("compact", encode(request)),
        Call::Grant(request) => ("grant", encode(request)),
        Call::Revoke(request) => ("revoke", encode(request)),
        Call::KeepAlive(request) => ("keep_alive", encode(request)),
        Call::TimeToLive(request) => ("time_to_live", encode(request)),
    }
}

fn encode_answer(answer: &Answer) -> String {
    match answer {
        Answer::Range(response) => encode(response),
        Answer::Put(response) => encode(response),
        Answer::Delete(response) => encode(response),
        Answer::Txn(response) => encode(response),
        Answer::Compact(response) => encode(response),
        Answer::Grant(response) => encode(response),
        Answer::Revoke(response) => encode(response),
        Answer::KeepAlive(response) => encode(response),
        Answer::TimeToLive(response) => encode(response),
    }
}

/// Reads a history.
///
/// # Errors
///
/// It is none.
pub fn read(from: impl BufRead) -> Result<History, ReadError> {
    let mut history = History::default();
    for (number, text) in from.lines().enumerate() {
        let number = number + 1;
        let value = serde_json::from_str(&text?)
            .map_err(|source| ReadError::Json { line: number, source })?;
        let line = Line { value, number };
        match line.text("kind")? {
            "begin" => {
                history.revision = line.signed("revision")?;
                history.pairs = line.pairs()?.unwrap_or_default();
            }
            "operation" => history.operations.push(line.operation()?),
            "watch" => history.watches.push(line.watch()?),
            "response" => {
                let received = line.unsigned("received")?;
                let observation = Observation { received, response: line.message("response")? };
                let watch =
                    history.watches.last_mut().ok_or_else(|| line.lacks("watch before it"))?;
                watch.observations.push(observation);
            }
            "final" => history.finals.push(line.member()?),
            _ => return Err(line.lacks("kind")),
        }
    }
    Ok(history)
}

struct Line {
    value: Value,
    number: usize,
}

impl Line {
    fn lacks(&self, field: &'static str) -> ReadError {
        ReadError::Field { line: self.number, field }
    }

    fn text(&self, field: &'static str) -> Result<&str, ReadError> {
        self.value[field].as_str().ok_or_else(|| self.lacks(field))
    }

    fn unsigned(&self, field: &'static str) -> Result<u64, ReadError> {
        self.value[field].as_u64().ok_or_else(|| self.lacks(field))
    }

    fn signed(&self, field: &'static str) -> Result<i64, ReadError> {
        self.value[field].as_i64().ok_or_else(|| self.lacks(field))
    }

    fn message<M: Message + Default>(&self, field: &'static str) -> Result<M, ReadError> {
        decode(self.text(field)?).ok_or_else(|| self.lacks(field))
    }

    fn pairs(&self) -> Result<Option<Vec<KeyValue>>, ReadError> {
        let Some(pairs) = self.value["pairs"].as_array() else { return Ok(None) };
        let pairs = pairs.iter().map(|pair| pair.as_str().and_then(decode));
        pairs.collect::<Option<Vec<_>>>().map(Some).ok_or_else(|| self.lacks("pairs"))
    }

    fn operation(&self) -> Result<Operation, ReadError> {
        let kind = self.text("call")?;
        let detail = || self.text("detail").map(str::to_owned);
        let outcome = match self.text("outcome")? {
            "answered" => Outcome::Answered(self.answer(kind)?),
            "refused" => Outcome::Refused(detail()?),
            "unknown" => Outcome::Unknown(detail()?),
            _ => return Err(self.lacks("outcome")),
        };
        Ok(Operation {
            client: self.unsigned("client")?,
            member: self.unsigned("member")?,
            session: self.unsigned("session")?,
            invoked: self.unsigned("invoked")?,
            returned: self.unsigned("returned")?,
            call: self.call(kind)?,
            outcome,
        })
    }

    fn call(&self, kind: &str) -> Result<Call, ReadError> {
        let field = "request";
        Ok(match kind {
            "range" => Call::Range(self.message(field)?),
            "put" => Call::Put(self.message(field)?),
            "delete" => Call::Delete(self.message(field)?),
            "txn" => Call::Txn(self.message(field)?),
            "compact" => Call::Compact(self.message(field)?),
            "grant" => Call::Grant(self.message(field)?),
            "revoke" => Call::Revoke(self.message(field)?),
            "keep_alive" => Call::KeepAlive(self.message(field)?),
            "time_to_live" => Call::TimeToLive(self.message(field)?),
            _ => return Err(self.lacks("call")),
        })
    }

    fn answer(&self, kind: &str) -> Result<Answer, ReadError> {
        let field = "detail";
        Ok(match kind {
            "range" => Answer::Range(self.message(field)?),
            "put" => Answer::Put(self.message(field)?),
            "delete" => Answer::Delete(self.message(field)?),
            "txn" => Answer::Txn(self.message(field)?),
            "compact" => Answer::Compact(self.message(field)?),
            "grant" => Answer::Grant(self.message(field)?),
            "revoke" => Answer::Revoke(self.message(field)?),
            "keep_alive" => Answer::KeepAlive(self.message(field)?),
            "time_to_live" => Answer::TimeToLive(self.message(field)?),
            _ => return Err(self.lacks("call")),
        })
    }

    fn watch(&self) -> Result<WatchRecord, ReadError> {
        Ok(WatchRecord {
            client: self.unsigned("client")?,
            member: self.unsigned("member")?,
            opened: self.unsigned("opened")?,
            request: self.message("request")?,
            observations: Vec::new(),
            caught_up: self.value["caught_up"].as_i64(),
        })
    }

    fn member(&self) -> Result<Final, ReadError> {
        let hash = u32::try_from(self.unsigned("hash")?).map_err(|_| self.lacks("hash"))?;
        Ok(Final {
            member: self.unsigned("member")?,
            revision: self.signed("revision")?,
            hash,
            compact_revision: self.signed("compact_revision")?,
            pairs: self.pairs()?,
        })
    }
}

fn decode<M: Message + Default>(text: &str) -> Option<M> {
    let bytes = Bytes::from(STANDARD.decode(text).ok()?);
    M::decode(bytes).ok()
}
