//! Why a gateway does not start, in etcd's words.

use std::io;
use std::net::IpAddr;

use base::quote::quote;
use client::srv::NoEndpoints;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The records of the domain cannot be looked up.
    #[error(transparent)]
    Discovery(#[from] NoEndpoints),
    /// An endpoint that is not host and port.
    #[error("error parsing endpoint {}", quote(.0))]
    Endpoint(String),
    /// An address to listen on that is not host and port.
    #[error("failed to validate listen address: {0}")]
    ListenAddress(String),
    /// Nobody knows the host to listen on.
    #[error("failed to resolve listen host: {0}")]
    ListenHost(String),
    /// Nobody knows the host of an endpoint.
    #[error("failed to resolve endpoint host: {0}")]
    EndpointHost(String),
    /// The gateway would connect to itself.
    #[error(
        "SRV or endpoint ({host}:{port}->{address}:{port}) should not resolve to the gateway listen \
         addr ({listen})"
    )]
    Itself {
        /// Of the endpoint.
        host: String,
        /// Of the endpoint and the gateway.
        port: u16,
        /// What the host resolves to.
        address: IpAddr,
        /// Where the gateway listens.
        listen: String,
    },
    /// Nothing to connect to.
    #[error("no endpoints found")]
    NoEndpoints,
    /// The address cannot be listened on.
    #[error("listen tcp {address}: bind: {}", system_text(.source))]
    Listen {
        /// As given.
        address: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The operating system gave no threads.
    #[error("starting the network threads")]
    Threads(#[source] io::Error),
}

impl GatewayError {
    /// Whether etcd writes it to standard error; the other texts go to standard output.
    #[must_use]
    pub fn is_for_stderr(&self) -> bool {
        matches!(self, Self::Discovery(_) | Self::Listen { .. } | Self::Threads(_))
    }

    /// How to put it right, as one line.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Discovery(_) => {
                "make SRV records for _etcd-client-ssl._tcp or _etcd-client._tcp of the domain that \
                 --discovery-srv names"
            }
            Self::Endpoint(_) => "--endpoints takes host:port or URLs, with commas between them",
            Self::ListenAddress(_) => "--listen-addr takes host:port, such as 127.0.0.1:23790",
            Self::ListenHost(_) => "set --listen-addr to an address of this machine",
            Self::EndpointHost(_) => "correct the host in --endpoints or in DNS",
            Self::Itself { .. } => "set --listen-addr to another port, or correct --endpoints",
            Self::NoEndpoints => "name the members with --endpoints",
            Self::Listen { .. } => {
                "stop what listens there, or set --listen-addr to a free port of this machine"
            }
            Self::Threads(_) => "allow this user more processes",
        }
    }
}

/// The system's answer in the words of Go's programs.
fn system_text(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return "i/o timeout".to_owned();
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Why an endpoint cannot be reached.
pub(super) fn dial_text(address: &str, error: &io::Error) -> String {
    let doing = if error.raw_os_error().is_some() { "connect: " } else { "" };
    format!("dial tcp {address}: {doing}{}", system_text(error))
}
