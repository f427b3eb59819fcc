//! The messages of the API as JSON objects, under the names of Go's structs.
//!
//! etcd: the `json` tags in `api/etcdserverpb/rpc.pb.go` and its neighbours.

use proto::authpb::Permission;
use proto::etcdserverpb as pb;
use proto::mvccpb::{Event, KeyValue};

use crate::json::{GoJson, Object};

macro_rules! messages {
    ($($message:ty { $($field:ident $name:literal),* $(,)? })*) => {
        $(impl GoJson for $message {
            fn is_zero(&self) -> bool {
                false
            }

            fn write(&self, out: &mut String) {
                let mut object = Object::new(out);
                $(object.field($name, &self.$field);)*
                object.end();
            }
        })*
    };
}

messages! {
    pb::ResponseHeader {
        cluster_id "cluster_id", member_id "member_id", revision "revision", raft_term "raft_term",
    }
    KeyValue {
        key "key", create_revision "create_revision", mod_revision "mod_revision",
        version "version", value "value", lease "lease",
    }
    Event { r#type "type", kv "kv", prev_kv "prev_kv" }
    pb::RangeResponse { header "header", kvs "kvs", more "more", count "count" }
    pb::PutResponse { header "header", prev_kv "prev_kv" }
    pb::DeleteRangeResponse { header "header", deleted "deleted", prev_kvs "prev_kvs" }
    pb::TxnResponse { header "header", succeeded "succeeded", responses "responses" }
    pb::LeaseRevokeResponse { header "header" }
    pb::Member {
        id "ID", name "name", peer_ur_ls "peerURLs", client_ur_ls "clientURLs",
        is_learner "isLearner",
    }
    pb::MemberAddResponse { header "header", member "member", members "members" }
    pb::MemberRemoveResponse { header "header", members "members" }
    pb::MemberUpdateResponse { header "header", members "members" }
    pb::MemberPromoteResponse { header "header", members "members" }
    pb::MemberListResponse { header "header", members "members" }
    pb::MoveLeaderResponse { header "header" }
    pb::AlarmMember { member_id "memberID", alarm "alarm" }
    pb::AlarmResponse { header "header", alarms "alarms" }
    pb::DowngradeResponse { header "header", version "version" }
    pb::DowngradeInfo { enabled "enabled", target_version "targetVersion" }
    pb::StatusResponse {
        header "header", version "version", db_size "dbSize", leader "leader",
        raft_index "raftIndex", raft_term "raftTerm", raft_applied_index "raftAppliedIndex",
        errors "errors", db_size_in_use "dbSizeInUse", is_learner "isLearner",
        storage_version "storageVersion", db_size_quota "dbSizeQuota",
        downgrade_info "downgradeInfo",
    }
    pb::HashKvResponse {
        header "header", hash "hash", compact_revision "compact_revision",
        hash_revision "hash_revision",
    }
    Permission { perm_type "permType", key "key", range_end "range_end" }
    pb::AuthStatusResponse { header "header", enabled "enabled", auth_revision "authRevision" }
    pb::AuthRoleAddResponse { header "header" }
    pb::AuthRoleGetResponse { header "header", perm "perm" }
    pb::AuthRoleDeleteResponse { header "header" }
    pb::AuthRoleListResponse { header "header", roles "roles" }
    pb::AuthRoleGrantPermissionResponse { header "header" }
    pb::AuthRoleRevokePermissionResponse { header "header" }
    pb::AuthUserAddResponse { header "header" }
    pb::AuthUserGetResponse { header "header", roles "roles" }
    pb::AuthUserListResponse { header "header", users "users" }
    pb::AuthUserDeleteResponse { header "header" }
    pb::AuthUserChangePasswordResponse { header "header" }
    pb::AuthUserGrantRoleResponse { header "header" }
    pb::AuthUserRevokeRoleResponse { header "header" }
}

/// `{"Response":{"response_put":{…}}}`.
impl GoJson for pb::ResponseOp {
    fn is_zero(&self) -> bool {
        false
    }

    fn write(&self, out: &mut String) {
        use pb::response_op::Response::{
            ResponseDeleteRange, ResponsePut, ResponseRange, ResponseTxn,
        };
        out.push_str("{\"Response\":");
        let mut object = Object::new(out);
        match &self.response {
            Some(ResponseRange(response)) => object.always("response_range", response).end(),
            Some(ResponsePut(response)) => object.always("response_put", response).end(),
            Some(ResponseDeleteRange(response)) => {
                object.always("response_delete_range", response).end();
            }
            Some(ResponseTxn(response)) => object.always("response_txn", response).end(),
            None => object.end(),
        }
        out.push('}');
    }
}
