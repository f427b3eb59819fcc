//! Starts and restarts on real folders, without a network.

use std::path::Path;

use super::*;
use crate::config::{ClusterState, InitialCluster};
use crate::peers::ask::{Asker, PlainDial};
use base::Index;
use std::time::Duration;

const CLUSTER: &str =
    "a=http://10.255.1.211:2380,b=http://10.255.1.40:2380,c=http://10.255.1.181:2380";

fn options(folder: &Path, name: &str) -> BootOptions {
    std::fs::create_dir_all(folder.join(name)).unwrap();
    BootOptions {
        data_dir: folder.join(name),
        wal_dir: None,
        name: name.to_owned(),
        origin: OriginOptions {
            name: name.to_owned(),
            state: ClusterState::New,
            cluster: InitialCluster::parse(CLUSTER).unwrap(),
            token: "etcd-cluster-on-didicloud".to_owned(),
            discovery: None,
            learners_max: 1,
            request_timeout: Duration::from_secs(7),
        },
        force_new_cluster: false,
        backend: backend::Options::default(),
        state: state::Options {
            lease_ttl_seconds_min: 2,
            learners_max: 1,
            mvcc: mvcc::Options::default(),
        },
    }
}

/// Nobody is asked: the others' addresses lead nowhere at once.
fn boot(options: &BootOptions) -> Result<Booted, BootError> {
    let opened = open(options)?;
    let mut origin = None;
    if !opened.has_log() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asker = Asker::new(Arc::new(PlainDial { timeout: Duration::from_millis(1) }));
        origin = Some(runtime.block_on(origin::find(&options.origin, &asker))?);
    }
    opened.boot(options, origin)
}

/// CB-04, CB-10: SEED4-03's members agree on who they are and on how the log begins.
#[test]
fn the_first_members_write_the_same_log() {
    let folder = tempfile::tempdir().unwrap();
    let booted = ["a", "b", "c"].map(|name| boot(&options(folder.path(), name)).unwrap());
    let ids = booted.each_ref().map(|booted| booted.member.to_string());
    assert_eq!(ids, ["e95ffbf99d4aae9c", "dc6b4b48ae00bf8", "d6020117e8a2dc38"]);
    let first = &booted[0];
    for booted in &booted {
        assert_eq!(booted.cluster.to_string(), "ce964c3a01e63d53");
        assert_eq!(booted.restored.entries, first.restored.entries);
        assert_eq!(booted.restored.hard_state.commit, Index(3));
    }
}

/// CB-12: whatever the flags say by then.
#[test]
fn a_member_is_who_it_was_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path(), "a");
    let first = boot(&options).unwrap();
    let (member, cluster, entries) = (first.member, first.cluster, first.restored.entries);
    drop((first.wal, first.backend, first.state));
    options.origin.cluster = InitialCluster::default();
    options.origin.token = "another".to_owned();
    options.origin.state = ClusterState::Existing;
    let again = boot(&options).unwrap();
    assert_eq!((again.member, again.cluster), (member, cluster));
    assert_eq!(again.restored.entries, entries);
    assert_eq!(again.restored.hard_state.commit, Index(3));
    assert!(again.restarted);
}
