//! Alarms: raised and disarmed per member and kind, and what they forbid.
//!
//! Source: etcd server/etcdserver/api/v3alarm, server/etcdserver/apply/{capped,corrupt}.go.

use std::collections::BTreeSet;

use backend::{Batch, Bucket};
use bytes::Bytes;
use pb::alarm_request::AlarmAction;
use prost::Message as _;
use proto::etcdserverpb as pb;

use crate::Refusal;

/// The alarms that are raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarms {
    /// Member and kind. A kind that this release does not know is kept as it came.
    raised: BTreeSet<(u64, i32)>,
}

impl Alarms {
    pub(crate) fn restore(stored: impl Iterator<Item = pb::AlarmMember>) -> Self {
        Self { raised: stored.map(|alarm| (alarm.member_id, alarm.alarm)).collect() }
    }

    /// Raised alarms in order of member and kind.
    pub(crate) fn list(&self) -> Vec<pb::AlarmMember> {
        self.raised.iter().map(message).collect()
    }

    pub(crate) fn has(&self, kind: pb::AlarmType) -> bool {
        self.raised.iter().any(|(_, raised)| *raised == kind as i32)
    }

    /// Refuses what alarms forbid to requests that would need `space` bytes of quota.
    pub(crate) fn admit(&self, space: u64) -> Result<(), Refusal> {
        self.admit_healthy()?;
        if space > 0 && self.has(pb::AlarmType::Nospace) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    /// Refuses while the cluster is known to be corrupt.
    pub(crate) fn admit_healthy(&self) -> Result<(), Refusal> {
        if self.has(pb::AlarmType::Corrupt) {
            return Err(Refusal::Corrupt);
        }
        Ok(())
    }

    /// Lists, raises or disarms; the answer names the alarms concerned.
    pub(crate) fn request(
        &mut self,
        request: &pb::AlarmRequest,
        batch: &mut Batch,
    ) -> Vec<pb::AlarmMember> {
        let alarm = (request.member_id, request.alarm);
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self
                .raised
                .iter()
                .filter(|(_, kind)| {
                    request.alarm == pb::AlarmType::None as i32 || *kind == request.alarm
                })
                .map(message)
                .collect(),
            Ok(AlarmAction::Activate) if request.alarm != pb::AlarmType::None as i32 => {
                if self.raised.insert(alarm) {
                    batch.put(Bucket::Alarm, &message(&alarm).encode_to_vec(), Bytes::new());
                }
                vec![message(&alarm)]
            }
            Ok(AlarmAction::Deactivate) if self.raised.remove(&alarm) => {
                batch.delete(Bucket::Alarm, &message(&alarm).encode_to_vec());
                vec![message(&alarm)]
            }
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) | Err(_) => Vec::new(),
        }
    }
}

fn message((member_id, alarm): &(u64, i32)) -> pb::AlarmMember {
    pb::AlarmMember { member_id: *member_id, alarm: *alarm }
}
