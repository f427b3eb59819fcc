//! What entries asked for and what transactions of the store did, counted since the state was
//! opened, for whoever measures this member.
//!
//! Not here: reads that take no entry; their caller counts them. Names and rules are those of etcd's
//! metrics (server/etcdserver/apply/uber_applier.go, server/storage/mvcc/metrics_txn.go).

use proto::etcdserverpb as pb;

use crate::auth::request::{Change, Question, Request};
use crate::command::Command;

/// What an entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs, reason = "each is the request of its name")]
pub enum Operation {
    ClusterVersionSet,
    ClusterMemberAttrSet,
    DowngradeInfoSet,
    DowngradeVersionTest,
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    LeaseCheckpoint,
    Alarm,
    Authenticate,
    AuthEnable,
    AuthDisable,
    AuthStatus,
    AuthUserAdd,
    AuthUserDelete,
    AuthUserChangePassword,
    AuthUserGrantRole,
    AuthUserGet,
    AuthUserRevokeRole,
    AuthUserList,
    AuthRoleAdd,
    AuthRoleGrantPermission,
    AuthRoleGet,
    AuthRoleRevokePermission,
    AuthRoleDelete,
    AuthRoleList,
    V2Put,
    V2Post,
    V2Delete,
    V2Get,
    V2Sync,
}

impl Operation {
    /// All of them, in order.
    pub const ALL: [Self; 34] = [
        Self::ClusterVersionSet,
        Self::ClusterMemberAttrSet,
        Self::DowngradeInfoSet,
        Self::DowngradeVersionTest,
        Self::Put,
        Self::DeleteRange,
        Self::Txn,
        Self::Compaction,
        Self::LeaseGrant,
        Self::LeaseRevoke,
        Self::LeaseCheckpoint,
        Self::Alarm,
        Self::Authenticate,
        Self::AuthEnable,
        Self::AuthDisable,
        Self::AuthStatus,
        Self::AuthUserAdd,
        Self::AuthUserDelete,
        Self::AuthUserChangePassword,
        Self::AuthUserGrantRole,
        Self::AuthUserGet,
        Self::AuthUserRevokeRole,
        Self::AuthUserList,
        Self::AuthRoleAdd,
        Self::AuthRoleGrantPermission,
        Self::AuthRoleGet,
        Self::AuthRoleRevokePermission,
        Self::AuthRoleDelete,
        Self::AuthRoleList,
        Self::V2Put,
        Self::V2Post,
        Self::V2Delete,
        Self::V2Get,
        Self::V2Sync,
    ];

    /// The name under which etcd measures it; its measure has none for the state of auth.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterVersionSet => "ClusterVersionSet",
            Self::ClusterMemberAttrSet => "ClusterMemberAttrSet",
            Self::DowngradeInfoSet => "DowngradeInfoSet",
            Self::DowngradeVersionTest => "DowngradeVersionTest",
            Self::Put => "Put",
            Self::DeleteRange => "DeleteRange",
            Self::Txn => "Txn",
            Self::Compaction => "Compaction",
            Self::LeaseGrant => "LeaseGrant",
            Self::LeaseRevoke => "LeaseRevoke",
            Self::LeaseCheckpoint => "LeaseCheckpoint",
            Self::Alarm => "Alarm",
            Self::Authenticate => "Authenticate",
            Self::AuthEnable => "AuthEnable",
            Self::AuthDisable => "AuthDisable",
            Self::AuthStatus => "unknown",
            Self::AuthUserAdd => "AuthUserAdd",
            Self::AuthUserDelete => "AuthUserDelete",
            Self::AuthUserChangePassword => "AuthUserChangePassword",
            Self::AuthUserGrantRole => "AuthUserGrantRole",
            Self::AuthUserGet => "AuthUserGet",
            Self::AuthUserRevokeRole => "AuthUserRevokeRole",
            Self::AuthUserList => "AuthUserList",
            Self::AuthRoleAdd => "AuthRoleAdd",
            Self::AuthRoleGrantPermission => "AuthRoleGrantPermission",
            Self::AuthRoleGet => "AuthRoleGet",
            Self::AuthRoleRevokePermission => "AuthRoleRevokePermission",
            Self::AuthRoleDelete => "AuthRoleDelete",
            Self::AuthRoleList => "AuthRoleList",
            Self::V2Put => "PUT",
            Self::V2Post => "POST",
            Self::V2Delete => "DELETE",
            Self::V2Get => "QGET",
            Self::V2Sync => "SYNC",
        }
    }

    /// Of which generation of etcd's interface it is: 2 or 3.
    #[must_use]
    pub fn generation(self) -> u8 {
        if (self as usize) < Self::V2Put as usize { 3 } else { 2 }
    }

    /// `None` for what etcd does not count: a read that some release put into its log.
    pub(crate) fn of(command: &Command) -> Option<Self> {
        Some(match command {
            Command::Range => return None,
            Command::Put(_) => Self::Put,
            Command::Delete(_) => Self::DeleteRange,
            Command::Txn(_) => Self::Txn,
            Command::Compact(_) => Self::Compaction,
            Command::LeaseGrant(_) => Self::LeaseGrant,
            Command::LeaseRevoke(_) => Self::LeaseRevoke,
            Command::LeaseCheckpoint(_) => Self::LeaseCheckpoint,
            Command::Alarm(_) => Self::Alarm,
            Command::Auth(Request::Read(question)) => Self::of_question(question),
            Command::Auth(Request::Change(change)) => Self::of_change(change),
            Command::SetClusterVersion(_) => Self::ClusterVersionSet,
            Command::SetMemberAttributes { .. } => Self::ClusterMemberAttrSet,
            Command::SetDowngrade(_) => Self::DowngradeInfoSet,
            Command::DowngradeVersionTest => Self::DowngradeVersionTest,
            Command::V2(request) => return request.operation(),
        })
    }

    fn of_question(question: &Question) -> Self {
        match question {
            Question::Status(_) => Self::AuthStatus,
            Question::Authenticate(_) => Self::Authenticate,
            Question::UserGet(_) => Self::AuthUserGet,
            Question::UserList(_) => Self::AuthUserList,
            Question::RoleGet(_) => Self::AuthRoleGet,
            Question::RoleList(_) => Self::AuthRoleList,
        }
    }

    fn of_change(change: &Change) -> Self {
        match change {
            Change::Enable(_) => Self::AuthEnable,
            Change::Disable(_) => Self::AuthDisable,
            Change::UserAdd(_) => Self::AuthUserAdd,
            Change::UserDelete(_) => Self::AuthUserDelete,
            Change::UserChangePassword(_) => Self::AuthUserChangePassword,
            Change::UserGrantRole(_) => Self::AuthUserGrantRole,
            Change::UserRevokeRole(_) => Self::AuthUserRevokeRole,
            Change::RoleAdd(_) => Self::AuthRoleAdd,
            Change::RoleDelete(_) => Self::AuthRoleDelete,
            Change::RoleGrantPermission(_) => Self::AuthRoleGrantPermission,
            Change::RoleRevokePermission(_) => Self::AuthRoleRevokePermission,
        }
    }
}

/// What one transaction of the store did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Ranges read, of compares and of rows from before a change too.
    pub ranges: u64,
    /// Keys set.
    pub puts: u64,
    /// Ranges deleted.
    pub deletes: u64,
    /// Bytes of the keys and values that were set.
    pub put_bytes: u64,
}

impl Steps {
    /// Whether it did several things: only then it counts as a transaction.
    #[must_use]
    pub fn are_several(&self) -> bool {
        self.ranges + self.puts + self.deletes > 1
    }

    /// A put looks at the row from before, if it is asked to.
    pub(crate) fn look_before(&mut self, request: &pb::PutRequest) {
        let looks = request.ignore_value || request.ignore_lease || request.prev_kv;
        self.ranges += u64::from(looks);
    }
}

/// The counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// By operation: refused, done.
    operations: [[u64; 2]; Operation::ALL.len()],
    entries: u64,
    steps: Steps,
    txns: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let operations = [[0; 2]; Operation::ALL.len()];
        Self { operations, entries: 0, steps: Steps::default(), txns: 0 }
    }
}

impl Tally {
    /// Entries that were counted, of all operations.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Entries of one operation that were done, or refused.
    #[must_use]
    pub fn of(&self, operation: Operation, done: bool) -> u64 {
        self.operations[operation as usize][usize::from(done)]
    }

    /// What all transactions of the store did.
    #[must_use]
    pub fn steps(&self) -> Steps {
        self.steps
    }

    /// Transactions that did several things.
    #[must_use]
    pub fn txns(&self) -> u64 {
        self.txns
    }

    /// An entry was applied.
    pub(crate) fn count(&mut self, operation: Operation, done: bool) {
        self.operations[operation as usize][usize::from(done)] += 1;
        self.entries += 1;
    }

    /// A transaction of the store ended.
    pub(crate) fn end(&mut self, steps: Steps) {
        let Steps { ranges, puts, deletes, put_bytes } = steps;
        self.steps.ranges += ranges;
        self.steps.puts += puts;
        self.steps.deletes += deletes;
        self.steps.put_bytes += put_bytes;
        self.txns += u64::from(steps.are_several());
    }
}
