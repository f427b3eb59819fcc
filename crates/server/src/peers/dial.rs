//! Connections to other members, with TLS where their URL says so.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tls::ClientPolicy;
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};

use super::ask::{Dial, Socket, Stream};
use crate::config::{Address, MemberUrl};

/// Opens connections to peer URLs; clones share the policy.
#[derive(Clone, Debug)]
pub(crate) struct PeerDial {
    /// The longest time to open one, handshake included.
    timeout: Duration,
    /// `None` if nobody could be trusted.
    policy: Option<ClientPolicy>,
    /// Where connections leave from, if the system does not choose.
    local_address: Option<IpAddr>,
}

impl PeerDial {
    /// With the member's own certificate and authorities.
    pub(crate) fn new(timeout: Duration, policy: Option<ClientPolicy>) -> Self {
        Self { timeout, policy, local_address: None }
    }

    /// The same, with connections that leave from this address (SRV-145).
    pub(crate) fn leaving_from(self, local_address: Option<IpAddr>) -> Self {
        Self { local_address, ..self }
    }

    async fn open(self, url: MemberUrl) -> io::Result<Socket> {
        let secure = url.scheme().is_tls();
        match url.address() {
            Address::Tcp { host, port } => {
                let stream = match self.local_address {
                    None => TcpStream::connect((host.as_str(), *port)).await?,
                    Some(local) => connect_from(local, host, *port).await?,
                };
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

/// Connects to the first address of the host that can be reached from `local`.
async fn connect_from(local: IpAddr, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host((host, port)).await? {
        if address.is_ipv4() != local.is_ipv4() {
            continue;
        }
        let socket = if local.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(local, 0))?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Dial for PeerDial {
    fn dial(&self, url: &MemberUrl) -> BoxFuture<'static, io::Result<Socket>> {
        let (dial, url, timeout) = (self.clone(), url.clone(), self.timeout);
        Box::pin(async move { tokio::time::timeout(timeout, dial.open(url)).await? })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    /// SRV-145.
    #[tokio::test]
    async fn connections_leave_from_the_address_that_was_chosen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let url = MemberUrl::parse(&url).unwrap();
        // Every address of this network is this host's.
        let local = IpAddr::from([127, 0, 0, 7]);
        let dial = PeerDial::new(Duration::from_secs(60), None).leaving_from(Some(local));
        let (accepted, dialed) = tokio::join!(listener.accept(), dial.dial(&url));
        assert!(dialed.is_ok());
        assert_eq!(accepted.unwrap().1.ip(), local);
    }
}
