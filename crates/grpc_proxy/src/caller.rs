//! Who asks: what of a call's metadata goes on to a member, and nothing else does.
//!
//! Source: etcd server/proxy/grpcproxy/util.go.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

const TOKEN: &str = "token";
const NEEDS_LEADER: &str = "hasleader";
const TIMEOUT: &str = "grpc-timeout";

/// What a member sees of who asks. Only callers that are equal in this may share anything.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    token: Option<String>,
    /// The answer must come to an end once the member has no leader.
    pub(crate) needs_leader: bool,
}

/// One caller of one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    /// As the caller wrote it.
    timeout: Option<AsciiMetadataValue>,
}

impl Identity {
    /// The metadata of a call on behalf of this caller.
    pub(crate) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        let version = AsciiMetadataValue::from_static(base::version::API);
        metadata.insert("client-api-version", version);
        let token = self.token.as_ref().and_then(|token| token.parse().ok());
        if let Some(token) = token {
            metadata.insert(TOKEN, token);
        }
        if self.needs_leader {
            metadata.insert(NEEDS_LEADER, AsciiMetadataValue::from_static("true"));
        }
        request
    }

    /// Whether the caller proves who it is.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

impl Caller {
    /// Reads who makes a call.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        let token = text(TOKEN).filter(|token| !token.is_empty()).map(ToOwned::to_owned);
        let needs_leader = text(NEEDS_LEADER) == Some("true");
        Self { identity: Identity { token, needs_leader }, timeout: metadata.get(TIMEOUT).cloned() }
    }

    /// When the caller no longer wants an answer, for a call that begins now.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let text = self.timeout.as_ref()?.to_str().ok()?;
        Instant::now().checked_add(parse_timeout(text)?)
    }

    /// As [`Identity::request`], with the time that the caller gives.
    pub(crate) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = self.identity.request(message);
        if let Some(timeout) = &self.timeout {
            request.metadata_mut().insert(TIMEOUT, timeout.clone());
        }
        request
    }
}

/// A number and its unit, as gRPC writes them.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => number.checked_mul(3600).map(Duration::from_secs),
        "M" => number.checked_mul(60).map(Duration::from_secs),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

impl fmt::Debug for Identity {
    // Secrets stay out of logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("has_token", &self.token.is_some())
            .field("needs_leader", &self.needs_leader)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_units() {
        assert_eq!(parse_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "2", "2x", "-1S", "2\u{e9}"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong}");
        }
    }
}
