//! What the transport tells the member it belongs to, and asks it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use base::MemberId;
use bytes::Bytes;
use futures_util::Stream;
use raft::Message;

/// A future without a name.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Bytes of a database, in order; an error ends them.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The member behind a transport.
///
/// Calls come from any thread, also from inside [`crate::Transport::send`]; none may block or call
/// the transport back before it has returned. Whoever implements it puts things into queues.
pub trait LocalMember: Send + Sync + 'static {
    /// Takes messages of other members, in the order in which they came; none is a proposal or a
    /// snapshot. Returns how many it had no room for: those are lost, which Raft stands.
    fn receive(&self, messages: Vec<Message>) -> usize;

    /// Takes forwarded proposals: apart, because they may wait while there is no leader.
    /// Returns how many it had no room for.
    fn receive_proposals(&self, messages: Vec<Message>) -> usize;

    /// Hears that messages to `peer` were lost.
    fn unreachable(&self, peer: MemberId);

    /// Gets back proposals that certainly never left: they may be proposed again.
    fn undelivered(&self, _proposals: Vec<Message>) {}

    /// Hears what became of a snapshot for `peer`; exactly once for each that was to be sent.
    fn snapshot_sent(&self, peer: MemberId, succeeded: bool);

    /// Stores the database and hands the message to the core; ready only when both are done. The
    /// sender counts on it.
    fn receive_snapshot(
        &self,
        snapshot: IncomingSnapshot,
    ) -> BoxFuture<Result<(), ReceiveSnapshotError>>;

    /// Whether the member was removed from the cluster, for good.
    fn is_removed(&self, member: MemberId) -> bool;

    /// Hears that another member says that this one was removed from the cluster; may come often.
    fn removed_from_cluster(&self);
}

/// Why a snapshot that came in was of no use.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveSnapshotError {
    /// It could not be received or stored.
    #[error("saving the snapshot's database")]
    Save(#[source] io::Error),
    /// The core has no use for it, or the member is stopping.
    #[error("the member does not take the snapshot now")]
    Process,
}

/// A snapshot for this member.
#[derive(Debug)]
pub struct IncomingSnapshot {
    /// The message, with a [`raft::Body::Snapshot`].
    pub message: Message,
    /// The v2 store as JSON; may be empty.
    pub data: Bytes,
    /// The database.
    pub db: IncomingDb,
}

/// A snapshot for another member.
pub struct OutgoingSnapshot {
    /// The message, with a [`raft::Body::Snapshot`] at exactly the index the database is at.
    pub message: Message,
    /// The v2 store as JSON.
    pub data: Bytes,
    /// The database; read as fast as the receiver takes it.
    pub db: ByteStream,
    /// How long the database is; for the log.
    pub db_bytes: u64,
}

impl std::fmt::Debug for OutgoingSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutgoingSnapshot")
            .field("message", &self.message)
            .field("db_bytes", &self.db_bytes)
            .finish_non_exhaustive()
    }
}

/// The database of a snapshot as it comes in: chunks in order, then nothing. If it breaks off, the
/// last item is an error; without one it is whole.
pub struct IncomingDb {
    chunks: ByteStream,
}

impl IncomingDb {
    pub(crate) fn new(chunks: ByteStream) -> Self {
        Self { chunks }
    }

    /// The next chunk; `None` at the end.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        futures_util::StreamExt::next(&mut self.chunks).await
    }
}

impl Stream for IncomingDb {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.as_mut().poll_next(context)
    }
}

impl std::fmt::Debug for IncomingDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IncomingDb").finish_non_exhaustive()
    }
}
