//! Handing leadership over.
//!
//! The leader stops taking proposals, brings the chosen member up to date and tells it to campaign.
//! If that has not worked within an election timeout, it leads on.
//! Source: thesis §3.10; etcd raft: raft.go (`MsgTransferLeader`).

use base::MemberId;

use crate::leader::Leader;
use crate::message::Body;
use crate::role::Common;

impl Leader {
    /// Lets `to` take over; a wish for somebody else takes the place of an earlier one. Nothing
    /// happens if `to` cannot lead.
    pub(crate) fn start_transfer(&mut self, common: &mut Common, to: MemberId) {
        if !common.members.is_voter(to) || self.transfer_to == Some(to) {
            return;
        }
        self.transfer_to = None;
        let Some(progress) = self.progress.get(&to) else { return };
        common.election_elapsed_ticks = 0;
        self.transfer_to = Some(to);
        if progress.matched == common.last().index {
            common.send(to, Body::TimeoutNow);
        } else {
            self.send_append(common, to);
        }
    }
}
