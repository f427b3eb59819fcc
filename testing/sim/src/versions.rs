//! The cluster version goes down and up, as while an operator replaces members by older ones and
//! back: what the monitor of a leader proposes, in its order, but at other times than its own.
//!
//! Not here: members of different code. All run this one, whatever the cluster's version says.

use base::probe::reached;
use proto::etcdserverpb::InternalRaftRequest;
use proto::membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest};

use crate::judge::Verdict;
use crate::world::{Event, World};

/// The version of this release, and one from before.
const NEWER: &str = "3.7.0";
const OLDER: [&str; 3] = ["3.6.0", "3.6.0", "3.5.0"];

impl World {
    pub(crate) fn on_next_version(&mut self) -> Verdict {
        if !self.faulty {
            return Ok(());
        }
        let pause = self.side.between(300, 4000);
        self.after(pause, Event::NextVersion);
        let Some(at) = self.leader() else { return Ok(()) };
        let reads = self.process(at).member.state().reads();
        let (downgrade, now) = (reads.downgrade(), reads.cluster_version());
        let Some(now) = now else { return Ok(()) };
        let set = |ver: &str| InternalRaftRequest {
            cluster_version_set: Some(ClusterVersionSetRequest { ver: ver.to_owned() }),
            ..Default::default()
        };
        let downgrade_to = |enabled: bool, ver: &str| InternalRaftRequest {
            downgrade_info_set: Some(DowngradeInfoSetRequest { enabled, ver: ver.to_owned() }),
            ..Default::default()
        };
        let request = match (downgrade.enabled, now == NEWER) {
            (false, true) => downgrade_to(true, self.side.choose(&OLDER)),
            (true, true) if self.side.one_in(3) => {
                reached("sim: a downgrade is given up");
                downgrade_to(false, "")
            }
            (true, true) => {
                reached("sim: the cluster version goes down");
                set(&downgrade.target_version)
            }
            (true, false) => downgrade_to(false, ""),
            (false, false) => {
                reached("sim: the cluster version goes up again");
                set(NEWER)
            }
        };
        self.propose(at, request)
    }
}
