//! The buckets of etcd's database.

/// One of the top-level buckets. The order is that of their names, which is the order in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Raised alarms.
    Alarm,
    /// Whether users are asked who they are.
    Auth,
    /// Roles.
    AuthRoles,
    /// Users.
    AuthUsers,
    /// Cluster version and downgrade.
    Cluster,
    /// Every revision of every key, by revision.
    Key,
    /// Leases.
    Lease,
    /// Members.
    Members,
    /// Ids that may never come back.
    MembersRemoved,
    /// Applied index, term, compaction marks.
    Meta,
    /// The tree of the v2 generation; ours alone.
    V2Store,
}

impl Bucket {
    /// All buckets, in the order of the file.
    pub const ALL: [Self; 11] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
        Self::V2Store,
    ];

    /// The bucket's name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Auth => "auth",
            Self::AuthRoles => "authRoles",
            Self::AuthUsers => "authUsers",
            Self::Cluster => "cluster",
            Self::Key => "key",
            Self::Lease => "lease",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Meta => "meta",
            Self::V2Store => "v2store",
        }
    }
}
