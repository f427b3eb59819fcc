//! Requests of the v2 generation on their way to the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prost::Message as _;
use proto::v2pb;
use state::{Refusal, Reply};
use v2store::{Error, Event, Nanos};

use super::{Handle, ProposeError, RequestKind};

impl Handle {
    /// Proposes a change of a v2 key and waits until it is applied here: what it did, or why the
    /// tree refuses it.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose`], and `Refused(NoSpace)` while a disk is full.
    pub(crate) async fn write_v2(
        &self,
        mut request: v2pb::Request,
    ) -> Result<Result<Arc<Event>, Error>, ProposeError> {
        self.check_v2()?;
        self.check_backlog(RequestKind::V2)?;
        // The quota is for the keys of v3; etcd's v2 tree is not in the database (CB-66).
        if request.method() != "DELETE" && self.is_out_of_room() {
            return Err(Refusal::NoSpace.into());
        }
        let id = self.next_id();
        request.id = Some(id);
        let bytes = request.encode_to_vec().into();
        self.check_size(&bytes)?;
        let reply = self.propose_bytes(RequestKind::V2, id, bytes).await?;
        let Reply::V2(done) = reply else { unreachable!("a v2 request was answered by {reply:?}") };
        Ok(done)
    }

    fn check_v2(&self) -> Result<(), ProposeError> {
        let barred = self.shared.status.v2_barred.load(Ordering::Relaxed);
        if barred { Err(ProposeError::V2Barred) } else { Ok(()) }
    }

    /// Whether v2 requests are kept out of the log.
    pub(crate) fn bar_v2(&self, barred: bool) {
        let before = self.shared.status.v2_barred.swap(barred, Ordering::Relaxed);
        if barred && !before {
            tracing::warn!(
                "a member of etcd 3.6 or later is in the cluster; v2 keys can only be read while it \
                 is, since it would not survive a v2 request"
            );
        }
    }

    /// Has every v2 key removed that ends by `cutoff`.
    ///
    /// # Errors
    ///
    /// As [`Handle::propose`].
    pub(crate) async fn expire_v2(&self, cutoff: Nanos) -> Result<(), ProposeError> {
        self.check_v2()?;
        let id = self.next_id();
        let request = v2pb::Request {
            id: Some(id),
            method: Some("SYNC".to_owned()),
            time: Some(cutoff),
            ..v2pb::Request::default()
        };
        self.propose_bytes(RequestKind::V2, id, request.encode_to_vec().into()).await.map(drop)
    }
}
