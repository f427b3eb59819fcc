//! Connections of a proxy to the members' client URLs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use transport::Timed;

use crate::config::{MemberUrl, ProxyTimeouts, UrlError};
use crate::peers::ask::{Connector, Dial, Socket, to_uri};
use crate::peers::dial::PeerDial;

/// Unused connections to each member: as many requests as are under way most of the time.
const IDLE_CONNECTIONS_MAX: usize = 128;

/// How long an unused connection is kept.
const IDLE_TIME_MAX: Duration = Duration::from_secs(90);

/// Why a member gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// What it advertises is no URL.
    #[error("reading its client URL")]
    Url(#[from] UrlError),
    /// It cannot stand in a request.
    #[error("making the request")]
    Request,
    /// No connection, or it broke.
    #[error("sending to it")]
    Exchange(#[from] legacy::Error),
}

/// Sends to members.
#[derive(Debug)]
pub(super) struct Upstream {
    client: Client<Connector, Full<Bytes>>,
}

impl Upstream {
    pub(super) fn new(dial: PeerDial, timeouts: ProxyTimeouts) -> Self {
        let dial = Arc::new(TimedDial { dial, timeouts });
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_title_case_headers(true)
            .build(Connector::new(dial));
        Self { client }
    }

    /// Sends a request, whose path counts alone, to the member at `url`; gives the head of its answer
    /// with the rest to come.
    pub(super) async fn send(
        &self,
        url: &str,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, SendError> {
        let url = MemberUrl::parse(url)?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = to_uri(&url, path).ok_or(SendError::Request)?;
        Ok(self.client.request(request).await?)
    }
}

/// Opens connections on which neither reading nor writing may come to a stop.
#[derive(Debug)]
struct TimedDial {
    dial: PeerDial,
    timeouts: ProxyTimeouts,
}

impl Dial for TimedDial {
    fn dial(&self, url: &MemberUrl) -> BoxFuture<'static, io::Result<Socket>> {
        let (opening, timeouts) = (self.dial.dial(url), self.timeouts);
        Box::pin(async move {
            let socket = Timed::writes(opening.await?, Some(timeouts.write));
            Ok(Box::new(socket.and_reads(timeouts.read)) as Socket)
        })
    }
}
