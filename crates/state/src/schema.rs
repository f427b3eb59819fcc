//! Keys and values of every bucket but `key`, which is `mvcc`'s; the applied index and term are
//! the backend's own. Layout: interop 3.2. Source: etcd server/storage/schema.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use backend::{Backend, Bucket, ReadError, VisitRow};
use base::{LeaseId, MemberId};
use bytes::Bytes;
use prost::Message;
use proto::{etcdserverpb as pb, leasepb};

use crate::OpenError;
use crate::alarm::Alarms;
use crate::auth::Auth;
use crate::members::{MemberObject, Members};
use crate::version::{ClusterVersion, Versions};

/// In `meta`: who votes, as JSON.
pub(crate) const CONF_STATE: &[u8] = b"confState";
/// In `meta`: the version whose layout the database has, from 3.6 on.
pub(crate) const STORAGE_VERSION: &[u8] = b"storageVersion";
/// In `cluster`: the version as text.
pub(crate) const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// In `cluster`: a downgrade, as JSON.
pub(crate) const DOWNGRADE: &[u8] = b"downgrade";

/// The key of a member in `members` and `members_removed`.
pub(crate) fn member_key(id: MemberId) -> String {
    id.to_string()
}

/// The key of a lease in `lease`.
pub(crate) fn lease_key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// The replicated facts that are small enough to be kept and shown whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) members: Members,
    pub(crate) alarms: Alarms,
    pub(crate) versions: Versions,
    pub(crate) auth: Arc<Auth>,
}

/// Where facts are read from: the live database, or a copy of it.
pub(crate) trait Rows {
    fn value(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// Visits the rows of a bucket in order.
    fn visit(&self, bucket: Bucket, visit: &mut VisitRow<'_>) -> Result<(), ReadError>;
}

impl Rows for Backend {
    fn value(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.get(bucket, key)
    }

    fn visit(&self, bucket: Bucket, visit: &mut VisitRow<'_>) -> Result<(), ReadError> {
        self.scan(bucket, &[], None, &mut |key, value| visit(key, value))
    }
}

impl Rows for backend::Copy {
    fn value(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.get(bucket, key)
    }

    fn visit(&self, bucket: Bucket, visit: &mut VisitRow<'_>) -> Result<(), ReadError> {
        self.scan_bucket(bucket, visit)
    }
}

/// Reads the facts a backend holds. A database that never saw auth gets its first revision, as
/// etcd gives it at its first start.
pub(crate) fn load_facts(backend: &Backend) -> Result<Facts, OpenError> {
    let mut auth = Auth::load(backend)?;
    if let Some(batch) = auth.begin() {
        backend.apply(batch);
    }
    Ok(Facts {
        members: load_members(backend)?,
        alarms: load_alarms(backend)?,
        versions: load_versions(backend)?,
        auth: Arc::new(auth),
    })
}

/// Refuses a database whose layout is that of another major version, or of a newer minor one, as
/// etcd does: nobody here knows what it means.
pub(crate) fn check_storage_version(backend: &dyn Rows) -> Result<(), OpenError> {
    let Some(text) = get(backend, Bucket::Meta, STORAGE_VERSION)? else { return Ok(()) };
    let version = str::from_utf8(&text).ok().and_then(ClusterVersion::parse);
    let version = version.ok_or_else(|| damaged(Bucket::Meta, STORAGE_VERSION))?;
    let own = ClusterVersion::parse(base::version::CLUSTER).expect("three numbers");
    if version.major == own.major && version.minor <= own.minor {
        return Ok(());
    }
    Err(OpenError::TooNew { storage: version.to_string() })
}

/// Leases in order of id as unsigned numbers, which is that of the bucket.
pub(crate) fn load_leases(backend: &Backend) -> Result<Vec<leasepb::Lease>, OpenError> {
    let mut leases = Vec::new();
    for_each(backend, Bucket::Lease, |_, value| {
        leases.push(leasepb::Lease::decode(value).ok()?);
        Some(())
    })?;
    Ok(leases)
}

pub(crate) fn load_members(backend: &dyn Rows) -> Result<Members, OpenError> {
    let id = |key: &[u8]| {
        let text = str::from_utf8(key).ok()?;
        u64::from_str_radix(text, 16).ok().map(MemberId)
    };
    let mut known = BTreeMap::new();
    for_each(backend, Bucket::Members, |key, value| {
        let id = id(key)?;
        known.insert(id, MemberObject { id, ..MemberObject::from_json(value)? });
        Some(())
    })?;
    let mut removed = BTreeSet::new();
    for_each(backend, Bucket::MembersRemoved, |key, _| {
        removed.insert(id(key)?);
        Some(())
    })?;
    Ok(Members { known, removed })
}

fn load_alarms(backend: &Backend) -> Result<Alarms, OpenError> {
    let mut alarms = Vec::new();
    for_each(backend, Bucket::Alarm, |key, _| {
        alarms.push(pb::AlarmMember::decode(key).ok()?);
        Some(())
    })?;
    Ok(Alarms::restore(alarms.into_iter()))
}

pub(crate) fn load_versions(backend: &dyn Rows) -> Result<Versions, OpenError> {
    let mut versions = Versions::default();
    if let Some(text) = get(backend, Bucket::Cluster, CLUSTER_VERSION)? {
        let version = str::from_utf8(&text).ok().and_then(ClusterVersion::parse);
        versions.cluster = Some(version.ok_or_else(|| damaged(Bucket::Cluster, CLUSTER_VERSION))?);
    }
    if let Some(json) = get(backend, Bucket::Cluster, DOWNGRADE)? {
        versions.downgrade =
            serde_json::from_slice(&json).map_err(|_| damaged(Bucket::Cluster, DOWNGRADE))?;
    }
    Ok(versions)
}

pub(crate) fn get(
    backend: &dyn Rows,
    bucket: Bucket,
    key: &[u8],
) -> Result<Option<Bytes>, OpenError> {
    backend.value(bucket, key).map_err(OpenError::Backend)
}

/// Visits a bucket; `visit` returns `None` for what no etcd wrote.
pub(crate) fn for_each(
    backend: &dyn Rows,
    bucket: Bucket,
    mut visit: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<(), OpenError> {
    let mut wrong = None;
    let scanned = backend.visit(bucket, &mut |key, value| match visit(key, value) {
        Some(()) => ControlFlow::Continue(()),
        None => {
            wrong = Some(damaged(bucket, key));
            ControlFlow::Break(())
        }
    });
    scanned.map_err(OpenError::Backend)?;
    wrong.map_or(Ok(()), Err)
}

pub(crate) fn damaged(bucket: Bucket, key: &[u8]) -> OpenError {
    let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
    OpenError::Damaged { bucket: bucket.name(), key }
}
