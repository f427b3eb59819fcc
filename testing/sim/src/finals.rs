//! What a member holds at the end of a life, for the judges, and whether a restart would find it.

use std::ops::ControlFlow;

use backend::Bucket;
use bytes::Bytes;
use proto::etcdserverpb as pb;
use state::State;
use state::auth::gate::Authorized;

use crate::machine::Process;

/// What must be the same at all members.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// What a member says of itself.
    said: Vec<String>,
    /// Every row of every bucket, in order.
    rows: Vec<(Bucket, Bytes, Bytes)>,
}

impl Facts {
    /// The rows of one bucket.
    pub(crate) fn rows_of(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&'static str, &Bytes, &Bytes)> {
        let rows = self.rows.iter().filter(move |(bucket, ..)| bucket.name() == name);
        rows.map(|(bucket, key, value)| (bucket.name(), key, value))
    }

    /// Where two members differ first.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let said = self.said.iter().zip(&other.said).find(|(mine, other)| mine != other);
        if let Some((mine, other)) = said {
            return Some(format!("{mine}, not {other}"));
        }
        let row = self.rows.iter().zip(&other.rows).find(|(mine, other)| mine != other);
        if let Some((mine, other)) = row {
            return Some(format!("{mine:?}, not {other:?}"));
        }
        let (mine, other) = (self.rows.len(), other.rows.len());
        (mine != other).then(|| format!("{mine} rows, not {other}"))
    }
}

impl Process {
    /// Everything that it holds, once all that was begun is done.
    pub(crate) fn all(
        &mut self,
        member: u64,
        reopens: bool,
    ) -> Result<(history::Final, Facts), String> {
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

    fn facts(&self, state: &State) -> Result<Facts, String> {
        let reads = state.reads();
        let leases: Vec<_> = reads.leases().iter().map(|id| reads.lease(*id, true)).collect();
        let said = vec![
            format!("members {:?}", reads.members()),
            format!("removed {:?}", state.removed_members()),
            format!("alarms {:?}", reads.alarms()),
            format!("version {:?}", reads.cluster_version()),
            format!("storage version {:?}", reads.storage_version()),
            format!("downgrade {:?}", reads.downgrade()),
            format!("leases {leases:?}"),
        ];
        let mut rows = Vec::new();
        for bucket in Bucket::ALL {
            let mut visit = |key: &Bytes, value: &Bytes| {
                rows.push((bucket, key.clone(), value.clone()));
                ControlFlow::Continue(())
            };
            self.backend
                .scan(bucket, b"", None, &mut visit)
                .map_err(|error| format!("{error:?}"))?;
        }
        Ok(Facts { said, rows })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(said: &str, rows: &[(&'static str, &'static str)]) -> Facts {
        let row = |(key, value): &(&'static str, &'static str)| {
            (
                Bucket::Members,
                Bytes::from_static(key.as_bytes()),
                Bytes::from_static(value.as_bytes()),
            )
        };
        Facts {
            said: vec!["alarms []".to_owned(), said.to_owned()],
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn members_that_differ_are_found() {
        let rows = [("a", "1"), ("b", "2")];
        let first = facts("leases []", &rows);
        let table = [
            (facts("leases []", &rows), None),
            (facts("leases [7]", &rows), Some("leases [7], not leases []")),
            (facts("leases []", &[("a", "1"), ("b", "3")]), Some("b\"3\"), not ")),
            (facts("leases []", &[("a", "1"), ("c", "2")]), Some("b\"c\", ")),
            (facts("leases []", &rows[..1]), Some("1 rows, not 2")),
            (facts("leases []", &[("a", "1"), ("b", "2"), ("c", "3")]), Some("3 rows, not 2")),
        ];
        for (facts, words) in table {
            match (facts.difference(&first), words) {
                (None, None) => {}
                (Some(found), Some(words)) => {
                    assert!(found.contains(words), "{found}, not {words}")
                }
                (found, _) => panic!("{found:?} instead of {words:?}"),
            }
        }
    }
}
