//! A TCP connection that drives [`Http2`] for a session.
//!
//! Not the policy of what is sent when: that is the session's. One task per connection, no locks,
//! one read and one write per wake-up where the socket allows it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::str::FromStr;
use std::task::Poll;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::http2::{Event, Http2, Http2Error};

/// Decides what a connection sends, and learns what arrives.
pub(crate) trait Session {
    /// Sends what is due and says when to ask again.
    ///
    /// # Errors
    /// If the connection cannot carry it.
    fn refill(&mut self, http2: &mut Http2, now: Instant) -> Result<Next, Http2Error>;

    /// Takes an event. What it calls for is sent at the next `refill`, which follows at once.
    fn on_event(&mut self, event: Event<'_>, now: Instant);
}

/// When a session wants to be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// After something has arrived.
    Wait,
    /// After something has arrived, or at this time.
    WaitUntil(Instant),
    /// Never.
    Done,
}

/// A server's client address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    authority: String,
    address: SocketAddr,
}

/// Why an endpoint's text was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    /// TLS is not offered: its cost would hide the server's.
    #[error("endpoint {0:?} asks for TLS, which this program does not speak")]
    Tls(String),
    /// Not a host and port.
    #[error("endpoint {text:?} is not a host and port")]
    Address {
        /// What was given.
        text: String,
        /// Why it does not resolve.
        #[source]
        source: io::Error,
    },
    /// A name without an address.
    #[error("endpoint {0:?} has no address")]
    NoAddress(String),
}

/// Why a connection broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The socket failed.
    #[error("connection to {endpoint}")]
    Io {
        /// The server.
        endpoint: Endpoint,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The server closed the socket.
    #[error("{endpoint} closed the connection")]
    Closed {
        /// The server.
        endpoint: Endpoint,
    },
    /// The protocol was violated or ended.
    #[error("connection to {endpoint}")]
    Http2 {
        /// The server.
        endpoint: Endpoint,
        /// What went wrong.
        #[source]
        source: Http2Error,
    },
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    endpoint: Endpoint,
    socket: TcpStream,
    http2: Http2,
    buffer: Vec<u8>,
}

/// Large enough for every answer of a well filled connection; only its head is touched otherwise.
const READ_BYTES: usize = 128 << 10;

impl Connection {
    /// Connects without waiting for the server's first frame.
    ///
    /// # Errors
    /// If the server does not accept.
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Self, ConnectionError> {
        let io = |source| ConnectionError::Io { endpoint: endpoint.clone(), source };
        let socket = TcpStream::connect(endpoint.address).await.map_err(io)?;
        socket.set_nodelay(true).map_err(io)?;
        Ok(Self {
            endpoint: endpoint.clone(),
            socket,
            http2: Http2::new(&endpoint.authority),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Serves the session until it is done.
    ///
    /// # Errors
    /// If the connection breaks first.
    pub(crate) async fn drive(
        &mut self,
        session: &mut impl Session,
    ) -> Result<(), ConnectionError> {
        loop {
            let next = session
                .refill(&mut self.http2, Instant::now())
                .map_err(|source| http2_error(&self.endpoint, source))?;
            match next {
                Next::Done => return Ok(()),
                Next::Wait => self.exchange(session).await?,
                Next::WaitUntil(at) => {
                    tokio::select! {
                        biased;
                        result = self.exchange(session) => result?,
                        () = tokio::time::sleep_until(at.into()) => {}
                    }
                }
            }
        }
    }

    /// Writes what is waiting and handles one read. Nothing is lost if it is dropped half-way.
    async fn exchange(&mut self, session: &mut impl Session) -> Result<(), ConnectionError> {
        let Self { endpoint, socket, http2, buffer } = self;
        std::future::poll_fn(|context| {
            let io = |source| ConnectionError::Io { endpoint: endpoint.clone(), source };
            while !http2.output().is_empty() {
                match Pin::new(&mut *socket).poll_write(context, http2.output()) {
                    Poll::Ready(Ok(len)) => http2.on_written(len),
                    Poll::Ready(Err(source)) => return Poll::Ready(Err(io(source))),
                    Poll::Pending => break,
                }
            }
            let mut read = ReadBuf::new(buffer);
            match Pin::new(&mut *socket).poll_read(context, &mut read) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(source)) => Poll::Ready(Err(io(source))),
                Poll::Ready(Ok(())) if read.filled().is_empty() => {
                    Poll::Ready(Err(ConnectionError::Closed { endpoint: endpoint.clone() }))
                }
                Poll::Ready(Ok(())) => {
                    let now = Instant::now();
                    let fed = http2.feed(read.filled(), &mut |event| session.on_event(event, now));
                    Poll::Ready(fed.map_err(|source| http2_error(endpoint, source)))
                }
            }
        })
        .await
    }
}

fn http2_error(endpoint: &Endpoint, source: Http2Error) -> ConnectionError {
    ConnectionError::Http2 { endpoint: endpoint.clone(), source }
}

impl Endpoint {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { authority: address.to_string(), address }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Takes `host:port`, with or without `http://`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.starts_with("https:") {
            return Err(EndpointError::Tls(text.to_owned()));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let mut addresses = authority
            .to_socket_addrs()
            .map_err(|source| EndpointError::Address { text: text.to_owned(), source })?;
        let address = addresses.next().ok_or_else(|| EndpointError::NoAddress(text.to_owned()))?;
        Ok(Self { authority: authority.to_owned(), address })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_taken_with_and_without_scheme() {
        let plain: Endpoint = "127.0.0.1:2379".parse().unwrap();
        let url: Endpoint = "http://127.0.0.1:2379/".parse().unwrap();
        assert_eq!(plain, url);
        assert_eq!(plain.to_string(), "127.0.0.1:2379");
    }

    #[test]
    fn tls_and_missing_ports_are_refused() {
        let text = |text: &str| text.parse::<Endpoint>().unwrap_err().to_string();
        assert!(text("https://127.0.0.1:1").contains("TLS"));
        assert!(text("127.0.0.1").contains("not a host and port"));
    }
}
