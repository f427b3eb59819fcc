//! Sockets that the ports serve: TCP and unix.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::config::{Address, ListenError, MemberUrl};

/// A bound socket.
#[derive(Debug)]
pub(crate) enum Listener {
    /// TCP, for any host.
    Tcp(TcpListener),
    /// A file, for this host.
    Unix(UnixListener),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Connection {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// A connection between two runtimes.
#[derive(Debug)]
pub(crate) enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Connection {
    /// Takes the connection away from this thread's runtime.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        match self {
            Self::Tcp(stream, _) => stream.into_std().map(Detached::Tcp),
            Self::Unix(stream) => stream.into_std().map(Detached::Unix),
        }
    }
}

impl Listener {
    /// Binds one URL that `flag` gave.
    pub(crate) async fn bind(
        url: &MemberUrl,
        flag: &'static str,
        reuse: Reuse,
    ) -> Result<Self, ListenError> {
        let failed = |error: &io::Error| ListenError::new(flag, url, error);
        match (url.address(), url.socket_address()) {
            (Address::Unix(path), _) => {
                remove_stale(path).map_err(|error| failed(&error))?;
                UnixListener::bind(path).map(Self::Unix).map_err(|error| failed(&error))
            }
            (Address::Tcp { .. }, Some(address)) => {
                bind_tcp(address, reuse).map(Self::Tcp).map_err(|error| failed(&error))
            }
            (Address::Tcp { host, port }, None) => {
                let addresses = tokio::net::lookup_host((host.as_str(), *port)).await;
                let addresses = addresses.map_err(|error| failed(&error))?;
                let mut bound = Err(io::ErrorKind::AddrNotAvailable.into());
                for address in addresses {
                    bound = bind_tcp(address, reuse);
                    if bound.is_ok() {
                        break;
                    }
                }
                bound.map(Self::Tcp).map_err(|error| failed(&error))
            }
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are small and must not wait for one another. A connection that is gone
                // already is found out when it is read.
                let _gone = stream.set_nodelay(true);
                Ok(Connection::Tcp(stream, address))
            }
            Self::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Connection::Unix(stream))
            }
        }
    }

    /// Where it listens, for the log.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Self::Unix(listener) => listener.local_addr().map(|address| {
                address.as_pathname().map_or_else(String::new, |path| path.display().to_string())
            }),
        }
        .unwrap_or_default()
    }
}

/// Whether an address may be shared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reuse {
    /// SO_REUSEPORT.
    pub(crate) port: bool,
    /// SO_REUSEADDR.
    pub(crate) address: bool,
}

/// Connections that wait to be accepted; the system's own limit is usually lower.
const BACKLOG_LEN: u32 = 1024;

fn bind_tcp(address: SocketAddr, reuse: Reuse) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Unless asked for, as libraries of Go and Rust do in any case on this kind of system.
    socket.set_reuseaddr(reuse.address || cfg!(unix))?;
    if reuse.port {
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG_LEN)
}

/// A socket file that a server which was killed left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) | Err(_) => Ok(()),
    }
}
