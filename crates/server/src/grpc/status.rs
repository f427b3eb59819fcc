//! Every error to the gRPC code and the text that clients match on: the one table of them
//! (features 2.9; etcd: api/v3rpc/rpctypes/error.go).

use std::sync::Arc;

use state::Refusal;
use tonic::{Code, Status};

use super::methods::is_service;
use crate::handle::ProposeError;
use crate::recipes::RecipeError;

/// What all texts begin with.
const PREFIX: &str = "etcdserver: ";

fn status(code: Code, text: &str) -> Status {
    // What etcd has no code for it passes on as its parts said it.
    if code == Code::Unknown && OF_PARTS.iter().any(|part| text.starts_with(part)) {
        return Status::new(code, text);
    }
    Status::new(code, format!("{PREFIX}{text}"))
}

/// How the texts of etcd's parts begin.
const OF_PARTS: [&str; 2] = ["auth: ", "bcrypt: "];

/// A refusal's code and text, without the prefix.
fn refusal(refusal: &Refusal) -> (Code, &'static str) {
    match refusal {
        Refusal::EmptyKey => (Code::InvalidArgument, "key is not provided"),
        Refusal::KeyNotFound => (Code::InvalidArgument, "key not found"),
        Refusal::ValueProvided => (Code::InvalidArgument, "value is provided"),
        Refusal::LeaseProvided => (Code::InvalidArgument, "lease is provided"),
        Refusal::TooManyOps => (Code::InvalidArgument, "too many operations in txn request"),
        Refusal::DuplicateKey => (Code::InvalidArgument, "duplicate key given in txn request"),
        Refusal::InvalidSortOption => (Code::InvalidArgument, "invalid sort option"),
        Refusal::TxnTooDeep => (Code::InvalidArgument, "txn nested too deep"),
        Refusal::Compacted => (Code::OutOfRange, "mvcc: required revision has been compacted"),
        Refusal::FutureRevision => {
            (Code::OutOfRange, "mvcc: required revision is a future revision")
        }
        Refusal::NoSpace => (Code::ResourceExhausted, "mvcc: database space exceeded"),
        Refusal::LeaseNotFound => (Code::NotFound, "requested lease not found"),
        Refusal::LeaseExists => (Code::FailedPrecondition, "lease already exists"),
        Refusal::LeaseTtlTooLarge => (Code::OutOfRange, "too large lease TTL"),
        Refusal::MemberExists => (Code::FailedPrecondition, "member ID already exist"),
        Refusal::PeerUrlExists => (Code::FailedPrecondition, "Peer URLs already exists"),
        Refusal::MemberNotFound => (Code::NotFound, "member not found"),
        Refusal::NotLearner => (Code::FailedPrecondition, "can only promote a learner member"),
        Refusal::LastVoter => {
            (Code::FailedPrecondition, "re-configuration failed due to not enough started members")
        }
        Refusal::TooManyLearners => {
            (Code::FailedPrecondition, "too many learner members in cluster")
        }
        Refusal::Corrupt => (Code::DataLoss, "corrupt cluster"),
        Refusal::RootUserMissing => (Code::FailedPrecondition, "root user does not exist"),
        Refusal::RootRoleMissing => (Code::FailedPrecondition, "root user does not have root role"),
        Refusal::UserExists => (Code::FailedPrecondition, "user name already exists"),
        Refusal::UserNameEmpty => (Code::InvalidArgument, "user name is empty"),
        Refusal::UserNotFound => (Code::FailedPrecondition, "user name not found"),
        Refusal::RoleExists => (Code::FailedPrecondition, "role name already exists"),
        Refusal::RoleNotFound => (Code::FailedPrecondition, "role name not found"),
        Refusal::RoleNameEmpty => (Code::InvalidArgument, "role name is empty"),
        Refusal::AuthFailed => {
            (Code::InvalidArgument, "authentication failed, invalid user ID or password")
        }
        // It has no code of its own, and no prefix.
        Refusal::NoPasswordUser => {
            (Code::Unknown, "auth: authentication failed, password was given for no password user")
        }
        Refusal::PermissionNotGiven => (Code::InvalidArgument, "permission not given"),
        Refusal::PermissionDenied => (Code::PermissionDenied, "permission denied"),
        Refusal::RoleNotGranted => (Code::FailedPrecondition, "role is not granted to the user"),
        Refusal::PermissionNotGranted => {
            (Code::FailedPrecondition, "permission is not granted to the role")
        }
        Refusal::AuthNotEnabled => (Code::FailedPrecondition, "authentication is not enabled"),
        Refusal::InvalidAuthToken => (Code::Unauthenticated, "invalid auth token"),
        Refusal::InvalidAuthManagement => (Code::InvalidArgument, "invalid auth management"),
        Refusal::AuthRevisionOld => (Code::InvalidArgument, "revision of auth store is old"),
    }
}

impl From<ProposeError> for Status {
    fn from(error: ProposeError) -> Self {
        let (code, text) = match &error {
            ProposeError::Refused(refused) => refusal(refused),
            ProposeError::TooLarge => (Code::InvalidArgument, "request is too large"),
            ProposeError::Overloaded => (Code::ResourceExhausted, "too many requests"),
            ProposeError::NoLeader => (Code::Unavailable, "no leader"),
            ProposeError::LeaderChanged => (Code::Unavailable, "leader changed"),
            ProposeError::Stopped => (Code::Unavailable, "server stopped"),
            ProposeError::TimedOut => (Code::Unavailable, "request timed out"),
            ProposeError::LeaderFailed => {
                (Code::Unavailable, "request timed out, possibly due to previous leader failure")
            }
            ProposeError::ConnectionLost => {
                (Code::Unavailable, "request timed out, possibly due to connection lost")
            }
            ProposeError::ApplyingTooSlow => (
                Code::Unavailable,
                "request timed out, waiting for the applied index took too long",
            ),
            ProposeError::TransferTooSlow => {
                (Code::Unknown, "request timed out, leader transfer took too long")
            }
            ProposeError::NotLeader => (Code::FailedPrecondition, "not leader"),
            ProposeError::BadTransferee => (Code::FailedPrecondition, "bad leader transferee"),
            ProposeError::Unhealthy => (Code::Unavailable, "unhealthy cluster"),
            ProposeError::NotEnoughStarted => (
                Code::FailedPrecondition,
                "re-configuration failed due to not enough started members",
            ),
            ProposeError::LearnerNotReady => (
                Code::FailedPrecondition,
                "can only promote a learner member which is in sync with leader",
            ),
            ProposeError::NotForLearners => {
                (Code::FailedPrecondition, "rpc not supported for learner")
            }
            ProposeError::VerifyOnly => {
                (Code::Unknown, "auth: token signing attempted with verify-only key")
            }
            ProposeError::NoTokens => (Code::Unknown, "auth: invalid auth options"),
            ProposeError::PasswordTooLong => {
                (Code::Unknown, "bcrypt: password length exceeds 72 bytes")
            }
            // Nobody sends a v2 request here.
            ProposeError::V2Barred => (Code::Unimplemented, "v2 API is not supported"),
        };
        status(code, text)
    }
}

/// The status of a refusal that was decided without a proposal.
pub(crate) fn refused(refused: &Refusal) -> Status {
    let (code, text) = refusal(refused);
    status(code, text)
}

/// A backend that cannot give or take bytes: this member's trouble, not the request's.
pub(crate) fn backend(error: &dyn std::error::Error) -> Status {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::error!(error = text, "the database failed");
    Status::new(Code::DataLoss, format!("{PREFIX}{text}"))
}

/// Why there is no hash.
pub(crate) fn hash(error: &mvcc::QueryError) -> Status {
    match error {
        mvcc::QueryError::Revision(error) => refused(&(*error).into()),
        mvcc::QueryError::Backend(source) => backend(source),
    }
}

/// E-19.
pub(crate) fn bad_member_urls() -> Status {
    status(Code::InvalidArgument, "given member URLs are invalid")
}

/// Of an action of a downgrade that nobody knows.
pub(crate) fn unknown_downgrade_action() -> Status {
    status(Code::Unknown, "unknown method")
}

/// E-58.
pub(crate) fn downgrade_format() -> Status {
    status(Code::InvalidArgument, "wrong downgrade target version format")
}

/// E-59.
pub(crate) fn downgrade_target() -> Status {
    status(Code::InvalidArgument, "invalid downgrade target version")
}

/// E-60.
pub(crate) fn downgrade_in_progress() -> Status {
    status(Code::FailedPrecondition, "cluster has a downgrade job in progress")
}

/// E-57.
pub(crate) fn no_cluster_version() -> Status {
    status(Code::FailedPrecondition, "cluster version not found during downgrade")
}

/// E-63.
pub(crate) fn deadline_exceeded() -> Status {
    status(Code::DeadlineExceeded, "context deadline exceeded")
}

/// E-07.
pub(crate) fn bad_client_version() -> Status {
    status(Code::InvalidArgument, "invalid client api version")
}

/// Why a watch may not be made, or goes on no more: in etcd's form of an error within an answer
/// (W-15).
pub(crate) fn watch_denied(refusal: &Refusal) -> String {
    let argument = [Refusal::AuthRevisionOld, Refusal::UserNameEmpty];
    let (refusal, code) = if *refusal == Refusal::InvalidAuthToken {
        (refusal, "Unauthenticated")
    } else if argument.contains(refusal) {
        (refusal, "InvalidArgument")
    } else {
        (&Refusal::PermissionDenied, "PermissionDenied")
    };
    let status = refused(refusal);
    format!("rpc error: code = {code} desc = {}", status.message())
}

/// G-007, in grpc-go's words.
pub(crate) fn message_too_large(len: usize, max: usize) -> Status {
    let text = format!("grpc: received message larger than max ({len} vs. {max})");
    Status::new(Code::ResourceExhausted, text)
}

/// A reply that no message can hold.
pub(crate) fn reply_too_large(len: usize) -> Status {
    let text = format!("Cannot return body with more than 4GB of data but got {len} bytes");
    Status::resource_exhausted(text)
}

/// What is no message of the method's.
pub(crate) fn malformed_message(error: &prost::DecodeError) -> Status {
    Status::internal(format!("grpc: failed to unmarshal the received message: {error}"))
}

/// A message that began to arrive and then did not go on (G24).
pub(crate) fn request_stalled() -> Status {
    Status::new(Code::DeadlineExceeded, "the request did not arrive in time")
}

/// A message of which a part arrived, and then too little (L12).
pub(crate) fn request_in_the_way() -> Status {
    let text = "the request did not arrive in time and others needed the memory";
    Status::resource_exhausted(text)
}

/// A large reply of which the client took nothing for too long (G22): the stream is reset.
pub(crate) fn reply_not_taken() -> Status {
    let text = "the reply was not read in time and others needed the memory";
    let mut status = Status::new(Code::ResourceExhausted, text);
    status.set_source(Arc::new(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM)));
    status
}

/// An answer of a watch that its client did not take, and the events of which are compacted by now
/// (G21). Clients begin a new watch behind what they have.
pub(crate) fn watch_reply_given_up() -> Status {
    Status::unavailable("the events were not read in time and others needed the memory")
}

/// In grpc-go's words.
pub(crate) fn malformed_timeout(text: &str) -> Status {
    Status::new(Code::Internal, format!("malformed grpc-timeout: {text:?}"))
}

/// A path that names no method, in grpc-go's words.
pub(crate) fn unknown_method(path: &str) -> Status {
    let text = match path.strip_prefix('/').unwrap_or(path).rsplit_once('/') {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if is_service(service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    };
    Status::new(Code::Unimplemented, text)
}

/// KV-14.
pub(crate) fn stream_of_sorted() -> Status {
    Status::new(Code::Unimplemented, "RangeStream does not support custom sort orders")
}

/// KV-14.
pub(crate) fn stream_of_filtered() -> Status {
    Status::new(Code::Unimplemented, "RangeStream does not support revision filters")
}

/// Locks and elections: etcd's go through a client of its own, which keeps the text of a refusal
/// and loses its code.
pub(crate) fn recipe(error: &RecipeError) -> Status {
    match error {
        RecipeError::Step(step) => Status::unknown(Status::from(step.clone()).message()),
        RecipeError::NotLeader
        | RecipeError::NoLeader
        | RecipeError::SessionExpired
        | RecipeError::LostWatch => Status::unknown(error.to_string()),
    }
}

/// which key it is about was not said.
pub(crate) fn leader_key_missing() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

/// G-016.
pub(crate) fn unknown_health_service() -> Status {
    Status::new(Code::NotFound, "unknown service")
}

/// Why a watch was canceled: what it still needed is gone.
pub(crate) const WATCH_COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
/// Why a watch was not made (W-02).
pub(crate) const WATCH_EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// Why a watch was not made (W-08).
pub(crate) const WATCH_DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

#[cfg(test)]
mod tests {
    use super::*;

    /// E-57 to E-60: no caller comes so early that it meets the first; the others are compared with
    /// etcd's.
    #[test]
    fn refusals_of_a_downgrade_have_etcds_codes() {
        for (status, code, text) in [
            (
                no_cluster_version(),
                Code::FailedPrecondition,
                "etcdserver: cluster version not found during downgrade",
            ),
            (
                downgrade_format(),
                Code::InvalidArgument,
                "etcdserver: wrong downgrade target version format",
            ),
            (
                downgrade_target(),
                Code::InvalidArgument,
                "etcdserver: invalid downgrade target version",
            ),
            (
                downgrade_in_progress(),
                Code::FailedPrecondition,
                "etcdserver: cluster has a downgrade job in progress",
            ),
        ] {
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }
}
