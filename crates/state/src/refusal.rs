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
    /// E-40.
    #[error("authentication is not enabled")]
    AuthNotEnabled,
    /// A change of users or roles, which this release cannot make yet.
    #[error("users and roles are not supported by this release")]
    AuthNotBuilt,
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
