//! Copies of the state on their way to members that lag too far behind.
//!
//! A copy pins one state of the database and is read as fast as the receiver takes it, so a large
//! one needs little memory. Source: etcd server/etcdserver/snapshot_merge.go.

use std::io;

use backend::Backend;
use base::{LogPosition, MemberId};
use futures_util::StreamExt as _;
use proto::raftpb;
use raft::{ConfState, Message};
use state::SnapshotFacts;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use transport::OutgoingSnapshot;

use super::CopyPermit;

/// Bytes of the database read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks that wait for a slow receiver.
const CHUNKS_WAITING_MAX: usize = 2;

/// One state of the database and what a snapshot's message says of it.
#[derive(Debug)]
pub(crate) struct Copied {
    copy: backend::Copy,
    facts: SnapshotFacts,
    permit: CopyPermit,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The database cannot be made durable.
    #[error("pinning a state of the database")]
    Pin(#[source] backend::CommitError),
    /// Its bytes are not what they were.
    #[error("reading who the members are")]
    Facts(#[source] state::OpenError),
}

impl Copied {
    /// Pins the state as it is now. Reads and writes the disk.
    ///
    /// # Errors
    ///
    /// The database's.
    pub(crate) fn of(backend: &Backend, permit: CopyPermit) -> Result<Self, CopyError> {
        let copy = backend.copy().map_err(CopyError::Pin)?;
        let facts = SnapshotFacts::read(&copy).map_err(CopyError::Facts)?;
        Ok(Self { copy, facts, permit })
    }

    /// How far the log is applied in it.
    pub(crate) fn position(&self) -> LogPosition {
        self.facts.position
    }

    /// Who votes there.
    pub(crate) fn conf_state(&self) -> ConfState {
        to_conf_state(&self.facts.conf_state())
    }

    /// Makes a message and this state what is sent. Must be called within the runtime that sends.
    pub(crate) fn into_outgoing(self, message: Message) -> OutgoingSnapshot {
        let Self { mut copy, facts, permit } = self;
        let db_bytes = copy.len();
        let (chunks, db) = mpsc::channel(CHUNKS_WAITING_MAX);
        tokio::task::spawn_blocking(move || {
            let _one_of_few = permit;
            loop {
                let chunk = copy.read(CHUNK_BYTES).map_err(io::Error::other);
                let is_last = chunk.as_ref().map_or(true, bytes::Bytes::is_empty);
                let is_end = chunk.as_ref().is_ok_and(bytes::Bytes::is_empty);
                // Who sends may have given up.
                if is_end || chunks.blocking_send(chunk).is_err() || is_last {
                    return;
                }
            }
        });
        let data = facts.file().store_json().into();
        OutgoingSnapshot { message, data, db: ReceiverStream::new(db).boxed(), db_bytes }
    }
}

/// Members by their part, as consensus has them.
pub(crate) fn to_conf_state(message: &raftpb::ConfState) -> ConfState {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    ConfState {
        voters: ids(&message.voters),
        learners: ids(&message.learners),
        voters_outgoing: ids(&message.voters_outgoing),
        learners_next: ids(&message.learners_next),
        auto_leave: message.auto_leave(),
    }
}
