//! What a member holds at the end of a life, for the judges, and whether a restart would find it.

use std::ops::ControlFlow;

use backend::Bucket;
use bytes::Bytes;
use proto::etcdserverpb as pb;
use state::State;
use state::auth::gate::Authorized;

use crate::machine::Process;

impl Process {
    /// Everything that it holds, once all that was begun is done.
    pub(crate) fn all(
        &mut self,
        member: u64,
        reopens: bool,
    ) -> Result<(history::Final, Vec<String>), String> {
        // As etcd's, the hash of a store without any live key depends on how far the removal
        // of compacted rows got.
        while self.member.compact_step().map_err(|error| format!("{error:?}"))?
            != mvcc::CompactStep::Idle
        {}
        self.backend.check().map_err(|error| error.to_string())?;
        // What was applied last is not written with the rest of a batch before.
        self.backend.commit().map_err(|error| error.to_string())?;
        let facts = self.facts(self.member.state())?;
        if reopens {
            // What it knows is what it would know after a restart.
            let options = self.member.state().options();
            let again = State::open(&self.backend, options).map_err(|error| error.to_string())?;
            compare_states(self.member.state(), &again)?;
            if self.facts(&again)? != facts {
                return Err("another state is found at the next start".to_owned());
            }
        }
        Ok((self.end(member)?, facts))
    }

    /// What the judges of histories want to know of a member at the end.
    fn end(&self, member: u64) -> Result<history::Final, String> {
        let reads = self.member.state().reads();
        let hash = reads.keys().hash(0).map_err(|error| format!("{error:?}"))?;
        let all = pb::RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..Default::default()
        };
        let found = reads.range(Authorized::own(&all)).map_err(|error| format!("{error:?}"))?;
        Ok(history::Final {
            member,
            revision: hash.revision,
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            pairs: Some(found.rows.iter().map(mvcc::Row::decode).collect()),
        })
    }

    /// Every row of every bucket, and what the member says of itself: the same at all members.
    fn facts(&self, state: &State) -> Result<Vec<String>, String> {
        let reads = state.reads();
        let leases: Vec<_> = reads.leases().iter().map(|id| reads.lease(*id, true)).collect();
        let mut facts = vec![
            format!("members {:?}", reads.members()),
            format!("removed {:?}", state.removed_members()),
            format!("alarms {:?}", reads.alarms()),
            format!("version {:?}", reads.cluster_version()),
            format!("storage version {:?}", reads.storage_version()),
            format!("downgrade {:?}", reads.downgrade()),
            format!("leases {leases:?}"),
        ];
        for bucket in Bucket::ALL {
            let mut visit = |key: &Bytes, value: &Bytes| {
                facts.push(format!("{} {key:?}: {value:?}", bucket.name()));
                ControlFlow::Continue(())
            };
            self.backend
                .scan(bucket, b"", None, &mut visit)
                .map_err(|error| format!("{error:?}"))?;
        }
        Ok(facts)
    }
}

/// Users, roles and the v2 tree, which are not only what their rows say.
fn compare_states(now: &State, again: &State) -> Result<(), String> {
    let users = |state: &State| format!("{:?}", state.reads().auth());
    if users(now) != users(again) {
        return Err(format!("{} is {} at the next start", users(now), users(again)));
    }
    let (tree, found) = (now.v2().all_rows(), again.v2().all_rows());
    if tree != found {
        return Err(format!("the v2 tree {tree:?} is {found:?} at the next start"));
    }
    Ok(())
}
