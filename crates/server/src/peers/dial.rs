//! Connections to other members, with TLS where their URL says so.

use std::io;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tls::ClientPolicy;
use tokio::net::{TcpStream, UnixStream};

use super::ask::{Dial, Socket, Stream};
use crate::config::{Address, MemberUrl};

/// Opens connections to peer URLs; clones share the policy.
#[derive(Clone, Debug)]
pub(crate) struct PeerDial {
    /// The longest time to open one, handshake included.
    timeout: Duration,
    /// `None` if nobody could be trusted.
    policy: Option<ClientPolicy>,
}

impl PeerDial {
    /// With the member's own certificate and authorities.
    pub(crate) fn new(timeout: Duration, policy: Option<ClientPolicy>) -> Self {
        Self { timeout, policy }
    }

    async fn open(self, url: MemberUrl) -> io::Result<Socket> {
        let secure = url.scheme().is_tls();
        match url.address() {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                self.secured(secure, host, stream).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                self.secured(secure, "localhost", stream).await
            }
        }
    }

    async fn secured<S>(self, secure: bool, host: &str, stream: S) -> io::Result<Socket>
    where
        S: Stream + 'static,
    {
        if !secure {
            return Ok(Box::new(stream));
        }
        let policy = self.policy.ok_or_else(|| {
            let why = "no authority is trusted: set --peer-trusted-ca-file";
            io::Error::new(io::ErrorKind::Unsupported, why)
        })?;
        Ok(Box::new(policy.connect(host, stream).await?))
    }
}

impl Dial for PeerDial {
    fn dial(&self, url: &MemberUrl) -> BoxFuture<'static, io::Result<Socket>> {
        let (dial, url, timeout) = (self.clone(), url.clone(), self.timeout);
        Box::pin(async move { tokio::time::timeout(timeout, dial.open(url)).await? })
    }
}
