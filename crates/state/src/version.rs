//! The cluster version all members agreed on, and a downgrade in progress.
//!
//! Source: etcd server/etcdserver/api/membership/cluster.go, server/etcdserver/version.

use std::fmt;

use backend::{Batch, Bucket};
use bytes::Bytes;
use proto::membershippb;
use serde::{Deserialize, Serialize};

use crate::{json, schema};

/// The lowest version whose members replicate the remaining time of leases and write
/// `storageVersion`.
const V3_6: (u64, u64) = (3, 6);

/// The lowest version whose members send hashes of passwords.
const V3_5: (u64, u64) = (3, 5);

/// The version of a new cluster whose members have not been asked yet.
const V3_0: (u64, u64) = (3, 0);

/// A cluster version, `3.7.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterVersion {
    /// Before the first point.
    pub major: u64,
    /// Behind it.
    pub minor: u64,
    text: String,
}

impl ClusterVersion {
    /// Reads `3.7.0`; `None` if it is not three numbers.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(str::parse::<u64>);
        let (major, minor, _patch) =
            (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        if numbers.next().is_some() {
            return None;
        }
        Some(Self { major, minor, text: text.to_owned() })
    }
}

impl fmt::Display for ClusterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// Whether members are being replaced by ones of an older minor version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    /// To which; empty if there is none.
    #[serde(rename = "target-version", default)]
    pub target_version: String,
    /// Whether there is one.
    #[serde(default)]
    pub enabled: bool,
}

/// Both, as replicated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions {
    pub(crate) cluster: Option<ClusterVersion>,
    pub(crate) downgrade: Downgrade,
}

impl Versions {
    /// Whether checkpoints of leases are kept over a restart.
    pub(crate) fn persists_checkpoints(&self) -> bool {
        self.at_least(V3_6)
    }

    /// Whether the members are of 3.5 or later, which name a token by the entry before the login's.
    /// A new cluster says 3.0 for a moment, whatever its members are.
    pub(crate) fn names_tokens_by_entry_before(&self) -> bool {
        let is_old = |version: &ClusterVersion| {
            let version = (version.major, version.minor);
            V3_0 < version && version < V3_5
        };
        !self.cluster.as_ref().is_some_and(is_old)
    }

    /// The version of the storage's layout, `3.7.0`, if the cluster's writes one.
    pub(crate) fn storage(&self) -> Option<String> {
        let cluster = self.cluster.as_ref().filter(|_| self.at_least(V3_6))?;
        Some(format!("{}.{}.0", cluster.major, cluster.minor))
    }

    /// Sets the cluster version; `false` for a text that is none.
    pub(crate) fn set_cluster(&mut self, text: &str, batch: &mut Batch) -> bool {
        let Some(version) = ClusterVersion::parse(text) else {
            return false;
        };
        let text = Bytes::copy_from_slice(text.as_bytes());
        batch.put(Bucket::Cluster, schema::CLUSTER_VERSION, text.clone());
        self.cluster = Some(version);
        if self.at_least(V3_6) {
            batch.put(Bucket::Meta, schema::STORAGE_VERSION, text);
        } else {
            batch.delete(Bucket::Meta, schema::STORAGE_VERSION);
        }
        true
    }

    pub(crate) fn set_downgrade(
        &mut self,
        request: &membershippb::DowngradeInfoSetRequest,
        batch: &mut Batch,
    ) {
        self.downgrade = if request.enabled {
            Downgrade { target_version: request.ver.clone(), enabled: true }
        } else {
            Downgrade::default()
        };
        batch.put(Bucket::Cluster, schema::DOWNGRADE, json::encode(&self.downgrade));
    }

    fn at_least(&self, wanted: (u64, u64)) -> bool {
        self.cluster.as_ref().is_some_and(|version| wanted <= (version.major, version.minor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_numbers_are_a_version() {
        let version = ClusterVersion::parse("3.7.0").unwrap();
        assert_eq!((version.major, version.minor), (3, 7));
        assert_eq!(version.to_string(), "3.7.0");
        for text in ["", "3", "3.7", "3.7.0.1", "v3.7.0", "3.x.0"] {
            assert_eq!(ClusterVersion::parse(text), None, "{text}");
        }
    }

    /// Interop 3.2.
    #[test]
    fn downgrade_is_stored_as_go_writes_it() {
        let mut versions = Versions::default();
        let mut batch = Batch::upkeep();
        let request =
            membershippb::DowngradeInfoSetRequest { enabled: true, ver: "3.5.0".to_owned() };
        versions.set_downgrade(&request, &mut batch);
        let stored = batch.get(Bucket::Cluster, schema::DOWNGRADE).unwrap().unwrap();
        assert_eq!(&stored[..], br#"{"target-version":"3.5.0","enabled":true}"#);
        versions.set_downgrade(&membershippb::DowngradeInfoSetRequest::default(), &mut batch);
        let stored = batch.get(Bucket::Cluster, schema::DOWNGRADE).unwrap().unwrap();
        assert_eq!(&stored[..], br#"{"target-version":"","enabled":false}"#);
    }

    /// CB-61: only a cluster of 3.6 and later has the mark.
    #[test]
    fn storage_version_follows_the_cluster_version() {
        let mut versions = Versions::default();
        let mut batch = Batch::upkeep();
        let mut stored = |version: &str| {
            assert!(versions.set_cluster(version, &mut batch));
            batch.get(Bucket::Meta, schema::STORAGE_VERSION).unwrap()
        };
        assert_eq!(stored("3.5.0"), None);
        assert_eq!(stored("3.7.0").as_deref(), Some(&b"3.7.0"[..]));
        assert_eq!(stored("3.6.0").as_deref(), Some(&b"3.6.0"[..]));
        assert_eq!(stored("3.5.0"), None);
    }
}
