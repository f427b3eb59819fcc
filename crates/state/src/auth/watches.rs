//! Whose the watches of a stream are, and which of them may go on: looked at again whenever users or
//! roles change, so that a permission that is taken away ends the watches that needed it (W-15).
//! etcd looks only once, when a watch is made.
//!
//! Not here: waking a stream that hears nothing else, which is the server's.

use std::collections::BTreeMap;

use mvcc::WatchId;
use proto::etcdserverpb as pb;

use crate::Reads;

/// The watches of one stream that belong to somebody.
#[derive(Debug, Default)]
pub struct WatchOwners {
    watches: BTreeMap<WatchId, Owned>,
    /// The users and roles by which they were looked at; enabling auth raises no revision.
    looked_at: Option<(bool, u64)>,
}

/// Whose a watch is, and of what.
#[derive(Debug)]
struct Owned {
    user: String,
    request: pb::WatchCreateRequest,
}

impl WatchOwners {
    /// Notes whose a new watch is.
    pub fn add(&mut self, id: WatchId, user: String, request: pb::WatchCreateRequest) {
        if self.watches.is_empty() {
            // What changed since it was let in is found with the next look.
            self.looked_at = None;
        }
        // Only the keys matter from now on.
        let pb::WatchCreateRequest { key, range_end, .. } = request;
        let request = pb::WatchCreateRequest { key, range_end, ..Default::default() };
        self.watches.insert(id, Owned { user, request });
    }

    /// A watch has ended.
    pub fn remove(&mut self, id: WatchId) {
        self.watches.remove(&id);
    }

    /// Watches that may not go on. Costs a look at the revision unless something changed.
    pub fn denied(&mut self, reads: &Reads) -> Vec<WatchId> {
        if self.watches.is_empty() || base::probe::mutant("watch-outlives-its-permission") {
            return Vec::new();
        }
        let version = reads.auth().version();
        if self.looked_at == Some(version) {
            return Vec::new();
        }
        self.looked_at = Some(version);
        let may = |owned: &Owned| !version.0 || reads.may(&owned.user, &owned.request);
        let denied = self.watches.iter().filter(|(_, owned)| !may(owned));
        denied.map(|(id, _)| *id).collect()
    }
}
