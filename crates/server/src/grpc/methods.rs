//! Every method that is served, in order of its path: by it a call is counted and its kind known.

/// What goes in and out of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// One message each way.
    Unary,
    /// One in, many out.
    ServerStream,
    /// Many each way.
    BidiStream,
}

impl CallKind {
    /// As etcd's metrics name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// One method.
#[derive(Debug)]
pub(crate) struct Method {
    /// `/service/method`.
    pub(crate) path: &'static str,
    /// What goes in and out.
    pub(crate) kind: CallKind,
}

impl Method {
    /// The service's name with its package.
    pub(crate) fn service(&self) -> &'static str {
        self.path[1..].split_once('/').map_or("", |(service, _)| service)
    }

    /// Whether a learner may answer it (G-014); ranges only if they are serializable.
    pub(crate) fn is_for_learners(&self) -> bool {
        let answered = [
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.Maintenance/Snapshot",
            "/etcdserverpb.Maintenance/Status",
        ];
        answered.contains(&self.path)
    }

    /// Whether it is made of other calls: of locks and elections.
    pub(crate) fn is_recipe(&self) -> bool {
        self.path.starts_with("/v3lockpb.") || self.path.starts_with("/v3electionpb.")
    }

    /// The method's name.
    pub(crate) fn name(&self) -> &'static str {
        self.path[1..].split_once('/').map_or("", |(_, name)| name)
    }
}

/// A method by its place in [`METHODS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MethodIndex(pub(crate) usize);

impl MethodIndex {
    /// The method of a path.
    pub(crate) fn find(path: &str) -> Option<Self> {
        METHODS.binary_search_by(|method| method.path.cmp(path)).ok().map(Self)
    }

    /// The method.
    pub(crate) fn method(self) -> &'static Method {
        &METHODS[self.0]
    }
}

const fn unary(path: &'static str) -> Method {
    Method { path, kind: CallKind::Unary }
}

const fn server_stream(path: &'static str) -> Method {
    Method { path, kind: CallKind::ServerStream }
}

const fn bidi_stream(path: &'static str) -> Method {
    Method { path, kind: CallKind::BidiStream }
}

/// All methods, by path.
pub(crate) static METHODS: [Method; 52] = [
    unary("/etcdserverpb.Auth/AuthDisable"),
    unary("/etcdserverpb.Auth/AuthEnable"),
    unary("/etcdserverpb.Auth/AuthStatus"),
    unary("/etcdserverpb.Auth/Authenticate"),
    unary("/etcdserverpb.Auth/RoleAdd"),
    unary("/etcdserverpb.Auth/RoleDelete"),
    unary("/etcdserverpb.Auth/RoleGet"),
    unary("/etcdserverpb.Auth/RoleGrantPermission"),
    unary("/etcdserverpb.Auth/RoleList"),
    unary("/etcdserverpb.Auth/RoleRevokePermission"),
    unary("/etcdserverpb.Auth/UserAdd"),
    unary("/etcdserverpb.Auth/UserChangePassword"),
    unary("/etcdserverpb.Auth/UserDelete"),
    unary("/etcdserverpb.Auth/UserGet"),
    unary("/etcdserverpb.Auth/UserGrantRole"),
    unary("/etcdserverpb.Auth/UserList"),
    unary("/etcdserverpb.Auth/UserRevokeRole"),
    unary("/etcdserverpb.Cluster/MemberAdd"),
    unary("/etcdserverpb.Cluster/MemberList"),
    unary("/etcdserverpb.Cluster/MemberPromote"),
    unary("/etcdserverpb.Cluster/MemberRemove"),
    unary("/etcdserverpb.Cluster/MemberUpdate"),
    unary("/etcdserverpb.KV/Compact"),
    unary("/etcdserverpb.KV/DeleteRange"),
    unary("/etcdserverpb.KV/Put"),
    unary("/etcdserverpb.KV/Range"),
    server_stream("/etcdserverpb.KV/RangeStream"),
    unary("/etcdserverpb.KV/Txn"),
    unary("/etcdserverpb.Lease/LeaseGrant"),
    bidi_stream("/etcdserverpb.Lease/LeaseKeepAlive"),
    unary("/etcdserverpb.Lease/LeaseLeases"),
    unary("/etcdserverpb.Lease/LeaseRevoke"),
    unary("/etcdserverpb.Lease/LeaseTimeToLive"),
    unary("/etcdserverpb.Maintenance/Alarm"),
    unary("/etcdserverpb.Maintenance/Defragment"),
    unary("/etcdserverpb.Maintenance/Downgrade"),
    unary("/etcdserverpb.Maintenance/Hash"),
    unary("/etcdserverpb.Maintenance/HashKV"),
    unary("/etcdserverpb.Maintenance/MoveLeader"),
    server_stream("/etcdserverpb.Maintenance/Snapshot"),
    unary("/etcdserverpb.Maintenance/Status"),
    bidi_stream("/etcdserverpb.Watch/Watch"),
    unary("/grpc.health.v1.Health/Check"),
    unary("/grpc.health.v1.Health/List"),
    server_stream("/grpc.health.v1.Health/Watch"),
    unary("/v3electionpb.Election/Campaign"),
    unary("/v3electionpb.Election/Leader"),
    server_stream("/v3electionpb.Election/Observe"),
    unary("/v3electionpb.Election/Proclaim"),
    unary("/v3electionpb.Election/Resign"),
    unary("/v3lockpb.Lock/Lock"),
    unary("/v3lockpb.Lock/Unlock"),
];

/// Services whose other methods are unknown; of any other name the service is.
pub(crate) fn is_service(name: &str) -> bool {
    METHODS.iter().any(|method| method.service() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_path() {
        assert!(METHODS.is_sorted_by(|left, right| left.path < right.path));
        for method in &METHODS {
            let found = MethodIndex::find(method.path).unwrap().method();
            assert_eq!(format!("/{}/{}", found.service(), found.name()), method.path);
        }
        assert_eq!(MethodIndex::find("/etcdserverpb.KV/Get"), None);
        // G-017: as etcd, this server does not describe itself.
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            assert_eq!(MethodIndex::find(&path), None);
        }
        assert!(is_service("etcdserverpb.KV"));
        assert!(!is_service("v9.Other"));
    }
}
