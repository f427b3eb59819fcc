//! Why a call failed, and whether its write may have happened all the same.
//!
//! The texts are etcd's: scripts match them literally.
//!
//! etcd: `api/v3rpc/rpctypes/error.go`, `client/v3/client.go`.

use std::error::Error as StdError;

use tonic::{Code, Status};

use crate::connection::ConnectError;
use crate::endpoint::EndpointError;
use crate::peer_url::PeerUrlError;

/// What is known about the effect of a write that was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It had no effect: no connection was open, the server did not look at it, or the cluster
    /// refused it.
    No,
    /// It may have been applied, or may still be.
    Unknown,
}

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's own answer; the text begins with `etcdserver: `.
    #[error("{message}")]
    Server {
        /// The gRPC code.
        code: Code,
        /// The server's text.
        message: String,
        /// Whether a write may have happened.
        applied: Applied,
    },
    /// An answer that is not one of etcd's: from the transport, a proxy or another server.
    #[error("rpc error: code = {} desc = {message}", code_name(*code))]
    Rpc {
        /// The gRPC code.
        code: Code,
        /// The text that came with it.
        message: String,
        /// Whether a write may have happened.
        applied: Applied,
    },
    /// The time given for the call ran out.
    #[error("context deadline exceeded")]
    Deadline {
        /// Whether a write may have happened.
        applied: Applied,
    },
    /// The options name no endpoint.
    #[error("etcdclient: no available endpoints")]
    NoEndpoints,
    /// An endpoint cannot be understood.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A member is to be given an address that is not one.
    #[error(transparent)]
    PeerUrl(#[from] PeerUrlError),
    /// TLS cannot be spoken as the options ask for.
    #[error("{}", tls::describe_policy_error(.0))]
    Tls(#[from] tls::PolicyError),
    /// Both a token and a user name with password are given.
    #[error("Username/Password and Token configurations are mutually exclusive")]
    ConflictingCredentials,
}

impl Error {
    /// Whether the write that failed may have had an effect. Meaningless for reads.
    #[must_use]
    pub fn applied(&self) -> Applied {
        match self {
            Self::Server { applied, .. } | Self::Rpc { applied, .. } => *applied,
            Self::Deadline { applied } => *applied,
            Self::NoEndpoints
            | Self::Endpoint(_)
            | Self::PeerUrl(_)
            | Self::Tls(_)
            | Self::ConflictingCredentials => Applied::No,
        }
    }

    /// Whether the server answered with exactly this text.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        matches!(self, Self::Server { message, .. } if message == text)
    }

    /// Whether another attempt, perhaps at another member, may succeed.
    pub(crate) fn is_unavailable(&self) -> bool {
        match self {
            Self::Server { code, .. } | Self::Rpc { code, .. } => *code == Code::Unavailable,
            Self::Deadline { .. }
            | Self::NoEndpoints
            | Self::Endpoint(_)
            | Self::PeerUrl(_)
            | Self::Tls(_)
            | Self::ConflictingCredentials => false,
        }
    }

    /// Reads the status of a call whose request was handed to an open connection.
    pub(crate) fn from_status(status: &Status) -> Self {
        let message = status.message().to_owned();
        if message.starts_with("etcdserver: ") {
            let applied = applied_by_code(status.code());
            return Self::Server { code: status.code(), message, applied };
        }
        if status.code() == Code::DeadlineExceeded || is_local_timeout(status) {
            return Self::Deadline { applied: Applied::Unknown };
        }
        if let Some(message) = too_large(&message) {
            let (code, applied) = (Code::ResourceExhausted, Applied::Unknown);
            return Self::Rpc { code, message, applied };
        }
        let code = code(status);
        let applied = if never_sent(status) { Applied::No } else { applied_by_code(code) };
        Self::Rpc { code, message, applied }
    }
}

/// In the words of gRPC for Go, that an answer came which is larger than the options let in.
fn too_large(message: &str) -> Option<String> {
    let rest = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (bytes, bytes_max) = rest.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    Some(format!("grpc: received message larger than max ({bytes} vs. {bytes_max})"))
}

/// The code of an answer, or "unavailable" if there was none because the connection broke. tonic
/// gives broken connections codes of its own, with the error that broke them as source.
pub(crate) fn code(status: &Status) -> Code {
    let is_answer = status.source().is_none() || is_local_timeout(status);
    if is_answer { status.code() } else { Code::Unavailable }
}

/// Whether nobody has looked at the request: no connection could be opened for it, or the server
/// took no more requests on it and said which ones it does not count (RFC 9113 section 6.8). Go's
/// gRPC sends these again, too.
pub(crate) fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        let is_unseen = error.downcast_ref::<h2::Error>().is_some_and(is_unseen);
        if is_unseen || error.downcast_ref::<ConnectError>().is_some() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The HTTP library ends with the server's farewell only requests that are behind the last one the
/// server counts, and those that were not sent yet.
fn is_unseen(error: &h2::Error) -> bool {
    let farewell =
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    let refused =
        error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    farewell || refused
}

/// tonic answers with this code and text when the timeout it was given for the request passes.
pub(crate) fn is_local_timeout(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == "Timeout expired"
}

/// A member decides these before it proposes, or every member decides them alike when applying.
/// With the others the proposal may be on its way.
fn applied_by_code(code: Code) -> Applied {
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => Applied::No,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Applied::Unknown,
    }
}

/// The code's name as gRPC for Go prints it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--max-recv-bytes`: what was asked for was done, only the answer is not let in.
    #[test]
    fn answer_that_is_too_large_is_told_as_in_go() {
        let text = "Error, decoded message length too large: found 43 bytes, the limit is: 1 bytes";
        let error = Error::from_status(&Status::out_of_range(text));
        let expected = "rpc error: code = ResourceExhausted desc = grpc: received message larger \
                        than max (43 vs. 1)";
        assert_eq!((error.to_string().as_str(), error.applied()), (expected, Applied::Unknown));
    }

    /// CTL3-17.
    #[test]
    fn servers_text_is_the_whole_text() {
        let status = Status::permission_denied("etcdserver: permission denied");
        let error = Error::from_status(&status);
        assert_eq!(error.to_string(), "etcdserver: permission denied");
        assert_eq!(error.applied(), Applied::No);
    }

    #[test]
    fn other_texts_carry_the_code() {
        let error = Error::from_status(&Status::unavailable("transport is closing"));
        assert_eq!(error.to_string(), "rpc error: code = Unavailable desc = transport is closing");
        assert_eq!(error.applied(), Applied::Unknown);
    }

    #[test]
    fn timed_out_proposal_may_be_applied() {
        let error = Error::from_status(&Status::unavailable("etcdserver: request timed out"));
        assert_eq!(error.applied(), Applied::Unknown);
    }
}
