//! Membership calls.
//!
//! etcd: `client/v3/cluster.go`.

use proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

use crate::call::{Policy, calls};
use crate::client::Client;
use crate::error::Error;
use crate::peer_url;

calls! { cluster_stub;
    /// Lists the members.
    Repeatable member_list(MemberListRequest) -> MemberListResponse = member_list;
    /// Removes a member.
    Once member_remove(MemberRemoveRequest) -> MemberRemoveResponse = member_remove;
    /// Makes a learner a voter.
    Once member_promote(MemberPromoteRequest) -> MemberPromoteResponse = member_promote;
}

impl Client {
    /// Adds a member.
    ///
    /// # Errors
    ///
    /// A peer address is not one, which is found before anything is sent; else see [`Error`].
    pub async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Error> {
        peer_url::check(&request.peer_ur_ls)?;
        self.unary(Policy::Once, request, |channel, request| {
            let mut stub = self.cluster_stub(channel);
            async move { stub.member_add(request).await }
        })
        .await
    }

    /// Replaces a member's peer addresses.
    ///
    /// # Errors
    ///
    /// As [`Client::member_add`].
    pub async fn member_update(
        &self,
        request: MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, Error> {
        peer_url::check(&request.peer_ur_ls)?;
        self.unary(Policy::Once, request, |channel, request| {
            let mut stub = self.cluster_stub(channel);
            async move { stub.member_update(request).await }
        })
        .await
    }
}
