//! What may be read from any thread while entries are applied.
//!
//! Keys come from the store's own reader. The rest is a small table behind a lock that is never
//! held while a page is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::LeaseId;
use mvcc::{Reader, Row, WatchHub};
use parking_lot::RwLock;
use proto::etcdserverpb as pb;

use crate::auth::gate::{Authorized, Guarded};
use crate::auth::{Auth, Identity, Tokens};
use crate::lease::LeaseTable;
use crate::schema::Facts;
use crate::txn::{Path, RevisionBounds};
use crate::version::Downgrade;
use crate::view::{Pinned, Stop};
use crate::{Refusal, Steps, check, range};

/// A handle for readers; clones share it.
#[derive(Clone, Debug)]
pub struct Reads {
    keys: Reader,
    watch: WatchHub,
    v2: v2store::Reader,
    shared: Arc<Shared>,
}

/// What apply shows readers beside keys.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) leases: RwLock<LeaseTable>,
    pub(crate) tokens: Tokens,
    facts: RwLock<Arc<Facts>>,
    /// What `facts` says, for the many who ask while the answer is no.
    auth_enabled: AtomicBool,
}

impl Shared {
    pub(crate) fn new(facts: Facts) -> Self {
        Self {
            leases: RwLock::default(),
            tokens: Tokens::default(),
            auth_enabled: AtomicBool::new(facts.auth.is_enabled()),
            facts: RwLock::new(Arc::new(facts)),
        }
    }

    pub(crate) fn show(&self, facts: Facts) {
        let enabled = facts.auth.is_enabled();
        *self.facts.write() = Arc::new(facts);
        self.auth_enabled.store(enabled, Ordering::Release);
    }
}

/// A lease as its owner asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Its id.
    pub id: LeaseId,
    /// Seconds it was granted for.
    pub granted_ttl_seconds: i64,
    /// Seconds it had left at its last checkpoint; the granted ones if there was none.
    pub remaining_ttl_seconds: i64,
    /// Keys attached, in order; only when asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// The rows of a range, in the order asked for, ready to be spliced into a reply.
#[derive(Clone, Debug, Default)]
pub struct RangeReply {
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether the limit cut the list.
    pub more: bool,
    /// How many keys are in the range.
    pub count: i64,
    /// The store's revision, for the header.
    pub revision: i64,
}

impl Reads {
    pub(crate) fn new(
        keys: Reader,
        watch: WatchHub,
        v2: v2store::Reader,
        shared: Arc<Shared>,
    ) -> Self {
        Self { keys, watch, v2, shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    fn facts(&self) -> Arc<Facts> {
        self.shared.facts.read().clone()
    }

    /// Answers a Range request (KV-01..11), already checked by `check_range`.
    ///
    /// # Errors
    ///
    /// `Compacted`, `FutureRevision`, `Corrupt` if the bytes are damaged. While that alarm is raised
    /// reads are answered as by etcd: who is right of the members is not known here.
    pub fn range(&self, request: Authorized<'_, pb::RangeRequest>) -> Result<RangeReply, Refusal> {
        range::read(&self.keys, &request).map_err(Stop::for_reader)
    }

    /// Answers a transaction without writes (KV-28), already checked by `check_txn`.
    ///
    /// # Errors
    ///
    /// As [`Reads::range`].
    ///
    /// # Panics
    ///
    /// If it writes: see [`check::is_read_only`].
    pub fn txn(&self, request: Authorized<'_, pb::TxnRequest>) -> Result<pb::TxnResponse, Refusal> {
        self.counted_txn(request).1
    }

    /// As [`Reads::txn`], and what it did, refused or not.
    ///
    /// # Panics
    ///
    /// As [`Reads::txn`].
    pub fn counted_txn(
        &self,
        request: Authorized<'_, pb::TxnRequest>,
    ) -> (Steps, Result<pb::TxnResponse, Refusal>) {
        assert!(check::is_read_only(&request), "a transaction that writes needs an entry");
        loop {
            let (revision, mut steps) = (self.keys.revision(), Steps::default());
            let answer = self.txn_at(&request, revision, &mut steps).map_err(Stop::for_reader);
            // A compaction overtook the revision that was pinned: nothing is wrong with the
            // request, so begin again with a newer one.
            if revision < self.keys.compact_revision() {
                continue;
            }
            return (steps, answer);
        }
    }

    fn txn_at(
        &self,
        request: &pb::TxnRequest,
        revision: i64,
        steps: &mut Steps,
    ) -> Result<pb::TxnResponse, Stop> {
        let view = Pinned { reader: &self.keys, revision };
        let bounds = RevisionBounds { newest: revision, compacted: self.keys.compact_revision() };
        let path = Path::choose(&view, request, steps)?;
        path.check_ranges(bounds)?;
        path.read(view, steps)
    }

    /// The key space.
    #[must_use]
    pub fn keys(&self) -> &Reader {
        &self.keys
    }

    /// The tree of the v2 generation, and watching it.
    #[must_use]
    pub fn v2(&self) -> &v2store::Reader {
        &self.v2
    }

    /// Watching it.
    #[must_use]
    pub fn watch(&self) -> &WatchHub {
        &self.watch
    }

    /// One lease.
    #[must_use]
    pub fn lease(&self, id: LeaseId, want_keys: bool) -> Option<LeaseView> {
        let leases = self.shared.leases.read();
        let lease = leases.get(&id)?;
        let keys = if want_keys { lease.keys.iter().cloned().collect() } else { Vec::new() };
        Some(LeaseView {
            id,
            granted_ttl_seconds: lease.granted_ttl_seconds,
            remaining_ttl_seconds: lease.remaining_ttl_seconds(),
            keys,
        })
    }

    /// All leases, in order of id.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseId> {
        self.shared.leases.read().keys().copied().collect()
    }

    /// Members in order of id.
    #[must_use]
    pub fn members(&self) -> Vec<pb::Member> {
        self.facts().members.list()
    }

    /// Whether a member was removed for good.
    #[must_use]
    pub fn is_removed(&self, id: base::MemberId) -> bool {
        self.facts().members.removed.contains(&id)
    }

    /// Raised alarms in order of member and kind.
    #[must_use]
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.facts().alarms.list()
    }

    /// The cluster version, `3.7.0`; `None` before it is decided.
    #[must_use]
    pub fn cluster_version(&self) -> Option<String> {
        self.facts().versions.cluster.as_ref().map(ToString::to_string)
    }

    /// The version of the storage's layout, which follows the cluster version from 3.6 on; `None`
    /// below.
    #[must_use]
    pub fn storage_version(&self) -> Option<String> {
        self.facts().versions.storage()
    }

    /// Whether members are being replaced by older ones.
    #[must_use]
    pub fn downgrade(&self) -> Downgrade {
        self.facts().versions.downgrade.clone()
    }

    /// Users and roles.
    #[must_use]
    pub fn auth(&self) -> Arc<Auth> {
        Arc::clone(&self.shared.facts.read().auth)
    }

    /// Whether users are asked who they are.
    #[must_use]
    pub fn auth_enabled(&self) -> bool {
        self.shared.auth_enabled.load(Ordering::Acquire)
    }

    /// The simple tokens that are valid here.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.shared.tokens
    }

    /// Whether somebody may make a request, as users, roles and leases are now.
    ///
    /// # Errors
    ///
    /// `UserNameEmpty`, `UserNotFound`, `PermissionDenied`, `AuthRevisionOld`.
    pub fn authorize<'r, R: Guarded>(
        &self,
        who: &Identity,
        request: &'r R,
    ) -> Result<Authorized<'r, R>, Refusal> {
        if !self.auth_enabled() {
            return Ok(Authorized::own(request));
        }
        self.auth().authorize(who, request, &*self.shared.leases.read())
    }

    /// Whether nothing about users and roles changed since it was made sure who reads, so that what
    /// was read meanwhile may be told.
    ///
    /// The request is judged again: a caller whose token is from a member that is ahead may have been
    /// judged by what this one knew before it caught up, and the revisions say nothing of that.
    ///
    /// # Errors
    ///
    /// `AuthRevisionOld`, or `UserNameEmpty` if auth was off when that began; `PermissionDenied`.
    pub fn check_still<R: Guarded>(&self, who: &Identity, request: &R) -> Result<(), Refusal> {
        if base::probe::mutant("read-is-not-looked-at-again") {
            return Ok(());
        }
        if who.revision == 0 && self.auth_enabled() {
            return Err(Refusal::UserNameEmpty);
        }
        if who.revision != 0 && who.revision != self.auth().revision() {
            return Err(Refusal::AuthRevisionOld);
        }
        self.authorize(who, request).map(drop)
    }

    /// Whether a user may make a request, as users, roles and leases are now, whenever it was made
    /// sure who asks.
    #[must_use]
    pub fn may<R: Guarded>(&self, user: &str, request: &R) -> bool {
        // One look at the users: a revision of another moment would be an old one.
        let auth = self.auth();
        let who = Identity { user: user.to_owned(), revision: auth.revision() };
        auth.authorize(&who, request, &*self.shared.leases.read()).is_ok()
    }
}
