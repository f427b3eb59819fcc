//! Why a request got no answer, in etcd's words.

use member::Failure;
use state::Refusal;

/// Why a request got no answer from the state machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Every member says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// E-25: the encoded request is above the limit.
    #[error("request is too large")]
    TooLarge,
    /// E-26: applying is too far behind committing, or the queue is full.
    #[error("too many requests")]
    Overloaded,
    /// E-44.
    #[error("no leader")]
    NoLeader,
    /// E-46.
    #[error("leader changed")]
    LeaderChanged,
    /// E-48.
    #[error("server stopped")]
    Stopped,
    /// E-49: no answer in 5 s + 2 election timeouts.
    #[error("request timed out")]
    TimedOut,
    /// E-50: the same, and the leader changed meanwhile.
    #[error("request timed out, possibly due to previous leader failure")]
    LeaderFailed,
    /// E-51: the same, and not enough members were connected all the time.
    #[error("request timed out, possibly due to connection lost")]
    ConnectionLost,
    /// E-52: what is committed is not applied within a second.
    #[error("request timed out, waiting for the applied index took too long")]
    ApplyingTooSlow,
    /// Leadership did not go where it was sent.
    #[error("request timed out, leader transfer took too long")]
    TransferTooSlow,
    /// E-45.
    #[error("not leader")]
    NotLeader,
    /// E-56.
    #[error("bad leader transferee")]
    BadTransferee,
    /// E-53.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// E-18.
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// E-22.
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// E-55.
    #[error("rpc not supported for learner")]
    NotForLearners,
    /// A-04, in a cluster whose members can only check signatures.
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    /// A-04, of a member whose `--auth-token` is empty.
    #[error("auth: invalid auth options")]
    NoTokens,
    /// Go's library takes no longer one, and hashes of it would not be what they seem.
    #[error("bcrypt: password length exceeds 72 bytes")]
    PasswordTooLong,
    /// A member of etcd 3.6 or later would not survive a v2 request.
    #[error("a member of etcd 3.6 or later, which has no v2 API, is in the cluster")]
    V2Barred,
}

impl ProposeError {
    /// Whether no other member has to do with it: what the log carries was not even asked.
    pub(super) fn is_of_this_member(&self) -> bool {
        !matches!(self, Self::Refused(refusal) if *refusal != Refusal::InvalidAuthToken)
    }
}

impl From<Failure> for ProposeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoLeader => Self::NoLeader,
            Failure::Overloaded => Self::Overloaded,
            Failure::LeaderChanged => Self::LeaderChanged,
            Failure::NotLeader => Self::NotLeader,
            Failure::BadTransferee => Self::BadTransferee,
            Failure::TransferAborted => Self::TransferTooSlow,
        }
    }
}
