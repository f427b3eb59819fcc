//! Why a proxy does not start, in etcd's words.

use std::io;
use std::path::PathBuf;

/// Why a proxy does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The members cannot be reached as the settings say.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The certificate shown to members names somebody: everybody would be that user.
    #[error("cert has non empty Common Name ({common_name}): {}", path.display())]
    CommonName {
        /// The name.
        common_name: String,
        /// The certificate.
        path: PathBuf,
    },
    /// An address to listen on that is not host and port.
    #[error("listen tcp: address {0}: missing port in address")]
    ListenAddress(String),
    /// The address cannot be listened on.
    #[error("listen tcp {address}: {}", system_text(.source))]
    Listen {
        /// As given.
        address: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The port for scrapers is not given as a URL of http or https.
    #[error("cannot parse {0:?}")]
    MetricsUrl(String),
    /// TLS cannot be spoken on the port.
    #[error("{}", tls::describe_policy_error(.0))]
    Tls(tls::PolicyError),
    /// No certificate of its own.
    #[error("cannot make a certificate")]
    SelfSigned(#[from] tls::SelfSignedError),
    /// The operating system gave no threads.
    #[error("starting the network threads")]
    Threads(#[source] io::Error),
}

impl ProxyError {
    /// How to put it right, as one line.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Client(_) => "correct --endpoints, --cert, --key or --cacert",
            Self::CommonName { .. } => {
                "give --cert a certificate without a common name: members would take every client \
                 for that user"
            }
            Self::ListenAddress(_) => "--listen-addr takes host:port, such as 127.0.0.1:23790",
            Self::Listen { .. } => {
                "stop what listens there, or set --listen-addr or --metrics-addr to a free port of \
                 this machine"
            }
            Self::MetricsUrl(_) => "--metrics-addr takes a URL, such as http://127.0.0.1:2381",
            Self::Tls(_) => {
                "correct --cert-file, --key-file, --trusted-ca-file or --client-crl-file"
            }
            Self::SelfSigned(_) => "set --data-dir to a folder that this user may write to",
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
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    if error.raw_os_error().is_some() { format!("bind: {text}") } else { text }
}
