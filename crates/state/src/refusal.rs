//! Every reason for which all members say no to a request.

/// Why a request is refused. The gRPC code and text clients see are made of these in one table
/// (`server::grpc::status`); the text here is for logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// E-01.
    #[error("key is not provided")]
    EmptyKey,
    /// E-02.
    #[error("key not found")]
    KeyNotFound,
    /// E-03.
    #[error("value is provided")]
    ValueProvided,
    /// E-04.
    #[error("lease is provided")]
    LeaseProvided,
    /// E-05.
    #[error("too many operations in txn request")]
    TooManyOps,
    /// E-06.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// E-08.
    #[error("invalid sort option")]
    InvalidSortOption,
    /// E-09.
    #[error("required revision has been compacted")]
    Compacted,
    /// E-10.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// E-11.
    #[error("database space exceeded")]
    NoSpace,
    /// E-12.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// E-13.
    #[error("lease already exists")]
    LeaseExists,
    /// E-14.
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// E-16.
    #[error("member ID already exist")]
    MemberExists,
    /// E-17.
    #[error("peer URLs already exists")]
    PeerUrlExists,
    /// E-20.
    #[error("member not found")]
    MemberNotFound,
    /// E-21.
    #[error("can only promote a learner member")]
    NotLearner,
    /// Nobody could vote any more. etcd checks this before it proposes (E-18); where two removals
    /// meet, all of its members crash.
    #[error("re-configuration failed due to not enough started members")]
    LastVoter,
    /// E-23.
    #[error("too many learner members in cluster")]
    TooManyLearners,
    /// E-27.
    #[error("root user does not exist")]
    RootUserMissing,
    /// E-28.
    #[error("root user does not have root role")]
    RootRoleMissing,
    /// E-29.
    #[error("user name already exists")]
    UserExists,
    /// E-30; also of a caller that does not say who it is.
    #[error("user name is empty")]
    UserNameEmpty,
    /// E-31.
    #[error("user name not found")]
    UserNotFound,
    /// E-32.
    #[error("role name already exists")]
    RoleExists,
    /// E-33.
    #[error("role name not found")]
    RoleNotFound,
    /// E-34.
    #[error("role name is empty")]
    RoleNameEmpty,
    /// E-35.
    #[error("authentication failed, invalid user ID or password")]
    AuthFailed,
    ///
    #[error("authentication failed, password was given for no password user")]
    NoPasswordUser,
    /// E-36.
    #[error("permission not given")]
    PermissionNotGiven,
    /// E-37.
    #[error("permission denied")]
    PermissionDenied,
    /// E-38.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// E-39.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// E-40.
    #[error("authentication is not enabled")]
    AuthNotEnabled,
    /// E-41.
    #[error("invalid auth token")]
    InvalidAuthToken,
    /// E-42.
    #[error("invalid auth management")]
    InvalidAuthManagement,
    /// E-43.
    #[error("revision of auth store is old")]
    AuthRevisionOld,
    /// E-54.
    #[error("corrupt cluster")]
    Corrupt,
    /// A txn nested deeper than any client builds (L5).
    #[error("txn nested too deep")]
    TxnTooDeep,
}

impl From<mvcc::RevisionError> for Refusal {
    fn from(error: mvcc::RevisionError) -> Self {
        match error {
            mvcc::RevisionError::Compacted { .. } => Self::Compacted,
            mvcc::RevisionError::Future { .. } => Self::FutureRevision,
        }
    }
}
