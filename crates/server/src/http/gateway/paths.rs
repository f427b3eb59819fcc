//! Which call a path stands for (GW-02 to GW-11; etcd: the http options in its .proto files).

/// The path behind `/v3/` and the call, in order of the path.
const PATHS: [(&str, &str); 51] = [
    ("auth/authenticate", "/etcdserverpb.Auth/Authenticate"),
    ("auth/disable", "/etcdserverpb.Auth/AuthDisable"),
    ("auth/enable", "/etcdserverpb.Auth/AuthEnable"),
    ("auth/role/add", "/etcdserverpb.Auth/RoleAdd"),
    ("auth/role/delete", "/etcdserverpb.Auth/RoleDelete"),
    ("auth/role/get", "/etcdserverpb.Auth/RoleGet"),
    ("auth/role/grant", "/etcdserverpb.Auth/RoleGrantPermission"),
    ("auth/role/list", "/etcdserverpb.Auth/RoleList"),
    ("auth/role/revoke", "/etcdserverpb.Auth/RoleRevokePermission"),
    ("auth/status", "/etcdserverpb.Auth/AuthStatus"),
    ("auth/user/add", "/etcdserverpb.Auth/UserAdd"),
    ("auth/user/changepw", "/etcdserverpb.Auth/UserChangePassword"),
    ("auth/user/delete", "/etcdserverpb.Auth/UserDelete"),
    ("auth/user/get", "/etcdserverpb.Auth/UserGet"),
    ("auth/user/grant", "/etcdserverpb.Auth/UserGrantRole"),
    ("auth/user/list", "/etcdserverpb.Auth/UserList"),
    ("auth/user/revoke", "/etcdserverpb.Auth/UserRevokeRole"),
    ("cluster/member/add", "/etcdserverpb.Cluster/MemberAdd"),
    ("cluster/member/list", "/etcdserverpb.Cluster/MemberList"),
    ("cluster/member/promote", "/etcdserverpb.Cluster/MemberPromote"),
    ("cluster/member/remove", "/etcdserverpb.Cluster/MemberRemove"),
    ("cluster/member/update", "/etcdserverpb.Cluster/MemberUpdate"),
    ("election/campaign", "/v3electionpb.Election/Campaign"),
    ("election/leader", "/v3electionpb.Election/Leader"),
    ("election/observe", "/v3electionpb.Election/Observe"),
    ("election/proclaim", "/v3electionpb.Election/Proclaim"),
    ("election/resign", "/v3electionpb.Election/Resign"),
    ("kv/compaction", "/etcdserverpb.KV/Compact"),
    ("kv/deleterange", "/etcdserverpb.KV/DeleteRange"),
    ("kv/lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("kv/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("kv/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("kv/put", "/etcdserverpb.KV/Put"),
    ("kv/range", "/etcdserverpb.KV/Range"),
    ("kv/txn", "/etcdserverpb.KV/Txn"),
    ("lease/grant", "/etcdserverpb.Lease/LeaseGrant"),
    ("lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive"),
    ("lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("lock/lock", "/v3lockpb.Lock/Lock"),
    ("lock/unlock", "/v3lockpb.Lock/Unlock"),
    ("maintenance/alarm", "/etcdserverpb.Maintenance/Alarm"),
    ("maintenance/defragment", "/etcdserverpb.Maintenance/Defragment"),
    ("maintenance/downgrade", "/etcdserverpb.Maintenance/Downgrade"),
    ("maintenance/hash", "/etcdserverpb.Maintenance/Hash"),
    ("maintenance/hashkv", "/etcdserverpb.Maintenance/HashKV"),
    ("maintenance/snapshot", "/etcdserverpb.Maintenance/Snapshot"),
    ("maintenance/status", "/etcdserverpb.Maintenance/Status"),
    ("maintenance/transfer-leadership", "/etcdserverpb.Maintenance/MoveLeader"),
    ("watch", "/etcdserverpb.Watch/Watch"),
];

/// The call of a path without its beginning.
pub(super) fn find(path: &str) -> Option<&'static str> {
    PATHS.binary_search_by(|(known, _)| (*known).cmp(path)).ok().map(|place| PATHS[place].1)
}

#[cfg(test)]
mod tests {
    use super::super::json::Form;
    use super::*;

    #[test]
    fn every_path_stands_for_a_call_with_known_messages() {
        assert!(PATHS.is_sorted());
        for (path, call) in PATHS {
            assert_eq!(find(path), Some(call));
            assert!(Form::of(call).is_some(), "{call}");
        }
        assert_eq!(find("kv"), None);
    }
}
