//! For callers that make calls of their own on a client's connections: the proxy.
//!
//! They get a connection and what is needed to judge a failure by this library's rules; what is
//! sent, and whether it is sent again, is theirs to say.

use std::error::Error as StdError;

use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::Client;
use crate::connection::ConnectError;
use crate::error;

/// The connection to one endpoint.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What calls are made on.
    pub channel: Channel,
    ticket: usize,
}

impl Client {
    /// The connection in use; it is opened by the first call on it.
    #[must_use]
    pub fn connection(&self) -> Connection {
        let (ticket, channel) = self.connections.current();
        Connection { channel, ticket }
    }

    /// The endpoint that a connection is to, as it was written.
    #[must_use]
    pub fn endpoint_of(&self, connection: &Connection) -> &str {
        self.connections.endpoint(connection.ticket)
    }

    /// Moves on to the next endpoint, unless somebody else left this connection already.
    pub fn leave(&self, connection: &Connection) {
        self.connections.leave(connection.ticket);
    }
}

/// Whether nobody has looked at the request, so that even a write may be sent again.
#[must_use]
pub fn was_never_sent(status: &Status) -> bool {
    error::never_sent(status)
}

/// A failed call as Go's clients tell of it: a connection that could not be opened, or broke, is
/// "unavailable". Nothing but code and text is left.
#[must_use]
pub fn as_told_by_go(status: &Status) -> Status {
    let code = error::code(status);
    if error::is_local_timeout(status) {
        return Status::new(Code::DeadlineExceeded, "context deadline exceeded");
    }
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<ConnectError>() {
            return Status::new(Code::Unavailable, error.to_string());
        }
        source = error.source();
    }
    if code == Code::Unavailable && status.source().is_some() {
        return Status::new(code, "error reading from server: EOF");
    }
    Status::new(code, status.message())
}
