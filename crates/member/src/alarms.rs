//! The alarm that this member raises by itself: no space.

use proto::etcdserverpb::{self as pb, alarm_request::AlarmAction};

use crate::Member;

/// A proposal that was not applied by then is made again: what is passed on to a leader may get
/// lost.
const RETRY_MILLIS: u64 = 5000;

/// What this member did about its alarm.
#[derive(Debug, Default)]
pub(crate) struct NoSpace {
    /// When the alarm was asked for; cleared when one is seen applied.
    proposed_millis: Option<u64>,
    /// Set while the disk, not the quota, is full.
    disk_full: bool,
    /// Whether it was asked for because the disk was full.
    raised_for_disk: bool,
}

impl NoSpace {
    fn is_under_way(&self, now_millis: u64) -> bool {
        self.proposed_millis.is_some_and(|proposed| now_millis < proposed + RETRY_MILLIS)
    }

    /// An alarm entry was applied.
    pub(crate) fn on_applied(&mut self) {
        self.proposed_millis = None;
    }
}

impl Member {
    /// A write above the quota is applied all the same; the member then asks for the alarm, so
    /// that the quota itself need not be the same everywhere (interop 6.4).
    pub(crate) fn raise_no_space_above_quota(&mut self, now_millis: u64) {
        let Some(quota) = self.options.quota_bytes else { return };
        if quota < self.backend.sizes().total {
            self.raise_no_space(now_millis);
        }
    }

    /// A full disk raises the same alarm as a full quota: reads and deletions go on (G14).
    pub(crate) fn on_disk_full(&mut self, now_millis: u64) {
        self.no_space.disk_full = true;
        self.no_space.raised_for_disk = true;
        self.raise_no_space(now_millis);
    }

    /// Asks again, if what was asked for got lost.
    pub(crate) fn remind_of_full_disk(&mut self, now_millis: u64) {
        if self.no_space.disk_full {
            self.raise_no_space(now_millis);
        }
    }

    fn raise_no_space(&mut self, now_millis: u64) {
        if !self.no_space.is_under_way(now_millis)
            && !self.no_space_raised()
            && self.propose_no_space(AlarmAction::Activate)
        {
            self.no_space.proposed_millis = Some(now_millis);
        }
    }

    /// What a full disk raised is taken back once there is room; a full quota is the operator's.
    pub(crate) fn on_disk_room(&mut self, now_millis: u64) {
        self.no_space.disk_full = false;
        if !self.no_space.raised_for_disk || self.no_space.is_under_way(now_millis) {
            // If it is not raised yet, it could not be taken back; asked again once it is.
            return;
        }
        if !self.no_space_raised() {
            self.no_space.raised_for_disk = false;
            return;
        }
        let below_quota =
            self.options.quota_bytes.is_none_or(|quota| self.backend.sizes().total <= quota);
        if below_quota && self.propose_no_space(AlarmAction::Deactivate) {
            self.no_space.proposed_millis = Some(now_millis);
        }
    }

    fn no_space_raised(&self) -> bool {
        let raised = self.state.reads().alarms();
        raised.iter().any(|alarm| {
            alarm.member_id == self.options.id.0 && alarm.alarm == pb::AlarmType::Nospace as i32
        })
    }

    fn propose_no_space(&mut self, action: AlarmAction) -> bool {
        let alarm = Some(pb::AlarmRequest {
            action: action as i32,
            member_id: self.options.id.0,
            alarm: pb::AlarmType::Nospace as i32,
        });
        self.propose_own(pb::InternalRaftRequest { alarm, ..Default::default() }).is_some()
    }
}
