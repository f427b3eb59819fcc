//! Membership calls.
//!
//! etcd: `client/v3/cluster.go`.

use proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

use crate::call::{Policy, calls};

calls! { cluster_stub;
    /// Lists the members.
    Repeatable member_list(MemberListRequest) -> MemberListResponse = member_list;
    /// Adds a member.
    Once member_add(MemberAddRequest) -> MemberAddResponse = member_add;
    /// Removes a member.
    Once member_remove(MemberRemoveRequest) -> MemberRemoveResponse = member_remove;
    /// Replaces a member's peer addresses.
    Once member_update(MemberUpdateRequest) -> MemberUpdateResponse = member_update;
    /// Makes a learner a voter.
    Once member_promote(MemberPromoteRequest) -> MemberPromoteResponse = member_promote;
}
