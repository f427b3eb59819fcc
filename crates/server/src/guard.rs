//! How connections to a port begin: TLS, told apart from plain requests by the first byte, and a
//! log line for whoever does not pass (CB-70 to CB-74).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tls::{First, Identity, Rejection, ServerPolicy};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::logging::Spread;
use crate::peers::ask::Socket;
use crate::security::Role;

/// Somebody who connects has this long to say anything (G24).
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who may pass through a port.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    policy: ServerPolicy,
    role: Role,
    /// The port's address is given with http, too.
    plain_too: bool,
}

/// Said with every request that came through TLS, as an extension of the request.
#[derive(Clone, Debug)]
pub(crate) struct Secured {
    /// Who the client is, if the port demands certificates.
    pub(crate) identity: Option<Arc<Identity>>,
}

/// A connection that passed.
pub(crate) struct Admitted {
    pub(crate) socket: Socket,
    /// `None` for a plain one.
    pub(crate) secured: Option<Secured>,
}

impl Guard {
    pub(crate) fn new(policy: ServerPolicy, role: Role, plain_too: bool) -> Self {
        Self { policy, role, plain_too }
    }

    /// Whether plain requests pass, too.
    pub(crate) fn is_for_plain_too(&self) -> bool {
        self.plain_too
    }

    /// Lets a connection pass, or logs why not. Bounded in time.
    pub(crate) async fn admit<S>(&self, stream: S, remote: Option<SocketAddr>) -> Option<Admitted>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let first = tokio::time::timeout(FIRST_BYTE_TIMEOUT, First::read(stream)).await;
        let first = match first {
            Ok(Ok(first)) => first,
            // Whoever only looks whether somebody listens is no news.
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "a connection ended before it began");
                return None;
            }
            Err(_) => {
                tracing::debug!("closed a connection that said nothing");
                return None;
            }
        };
        if self.plain_too && !first.is_tls() {
            return Some(Admitted { socket: Box::new(first), secured: None });
        }
        match self.policy.accept(first, remote).await {
            Ok(accepted) => Some(Admitted {
                socket: Box::new(accepted.stream),
                secured: Some(Secured { identity: accepted.identity }),
            }),
            Err(rejection) => {
                self.log(&rejection, remote);
                None
            }
        }
    }

    /// Waits until who passed may not pass any more.
    pub(crate) async fn revoked(&self, secured: Option<Secured>) {
        match secured.and_then(|secured| secured.identity) {
            Some(identity) => self.policy.revoked(&identity).await,
            None => std::future::pending().await,
        }
    }

    fn log(&self, rejection: &Rejection, remote: Option<SocketAddr>) {
        let remote = remote.map_or_else(|| "@".to_owned(), |remote| remote.to_string());
        let mut fields = vec![
            ("remote-addr", Value::from(remote)),
            ("server-name", Value::from(rejection.server_name.as_str())),
        ];
        if let Some(identity) = &rejection.identity {
            let addresses: Vec<_> = identity.ip_addresses.iter().map(ToString::to_string).collect();
            fields.push(("ip-addresses", addresses.into()));
            fields.push(("dns-names", identity.dns_names.clone().into()));
        }
        fields.push(("error", rejection.cause.as_str().into()));
        let fields = Spread::new(fields);
        let role = self.role.name();
        if rejection.is_end {
            tracing::debug!(spread = ?fields, "rejected connection on {role} endpoint");
        } else {
            tracing::warn!(spread = ?fields, "rejected connection on {role} endpoint");
        }
    }
}
