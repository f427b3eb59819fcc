//! The client itself: its connections, its token, and the typed stubs on top of them.

use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::{AuthenticateRequest, AuthenticateResponse};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use crate::call::within;
use crate::connection::Connections;
use crate::endpoint::Endpoint;
use crate::error::{Applied, Error, never_sent};
use crate::options::{Credentials, Options};

/// A client of one cluster. Cloning is cheap and shares the connections and the token.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) connections: Arc<Connections>,
    pub(crate) options: Arc<Options>,
    token: Arc<Mutex<Option<String>>>,
}

/// A member without auth answers so to an attempt to authenticate; the client then goes without.
const AUTH_NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

impl Client {
    /// Reads the options and, if they hold a password, exchanges it for a token. Without a
    /// password nothing is sent: connections are opened by the first call.
    ///
    /// # Errors
    ///
    /// No or bad endpoints, TLS, or the cluster does not accept the user.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        if options.endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        let endpoints = options
            .endpoints
            .iter()
            .map(|text| Endpoint::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let token = match &options.credentials {
            Some(Credentials::Token(token)) => Some(token.clone()),
            Some(Credentials::Password { .. }) | None => None,
        };
        let client = Self {
            connections: Arc::new(Connections::new(endpoints, &options)?),
            options: Arc::new(options),
            token: Arc::new(Mutex::new(token)),
        };
        client.refresh_token().await?;
        Ok(client)
    }

    /// The error of a call whose time ran out; why it could not connect is told.
    pub(crate) fn out_of_time(&self, applied: Applied) -> Error {
        if let Some(why) = self.connections.trouble() {
            (self.options.on_unreachable)(&why);
        }
        Error::Deadline { applied }
    }

    /// The endpoints as they were written.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.connections.endpoints()
    }

    /// A client on the same connections whose calls may take as long as given.
    #[must_use]
    pub fn with_command_timeout(&self, timeout: Option<std::time::Duration>) -> Self {
        Self {
            connections: Arc::clone(&self.connections),
            options: Arc::new(self.options.with_command_timeout(timeout)),
            token: Arc::clone(&self.token),
        }
    }

    pub(crate) fn token(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn has_password(&self) -> bool {
        self.password().is_some()
    }

    /// The user and the password, if neither is empty.
    fn password(&self) -> Option<(&str, &str)> {
        match &self.options.credentials {
            Some(Credentials::Password { user, password })
                if !user.is_empty() && !password.is_empty() =>
            {
                Some((user, password))
            }
            Some(Credentials::Password { .. } | Credentials::Token(_)) | None => None,
        }
    }

    /// Exchanges the password for a token, within the dial timeout. Does nothing without one.
    pub(crate) async fn refresh_token(&self) -> Result<(), Error> {
        let Some((user, password)) = self.password() else {
            return Ok(());
        };
        let request = AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
        let deadline = Some(Instant::now() + self.options.dial_timeout);
        let token = match self.authenticate(request, deadline).await {
            Ok(response) => Some(response.token),
            Err(error) if error.is(AUTH_NOT_ENABLED) => None,
            Err(error) => return Err(error),
        };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }

    /// Tries each endpoint until one can be connected to. Not `unary`, whose retries need a token.
    async fn authenticate(
        &self,
        message: AuthenticateRequest,
        deadline: Option<Instant>,
    ) -> Result<AuthenticateResponse, Error> {
        debug_assert!(message.encoded_len() > 0, "only called with a user");
        loop {
            let (ticket, channel) = self.connections.current();
            // The old token, if any, must not be sent along.
            let request = tonic::Request::new(message.clone());
            let answer = within(deadline, AuthClient::new(channel).authenticate(request)).await;
            let status: Status = match answer {
                None => return Err(self.out_of_time(Applied::No)),
                Some(Ok(response)) => return Ok(response.into_inner()),
                Some(Err(status)) => status,
            };
            if !never_sent(&status) {
                return Err(Error::from_status(&status));
            }
            self.connections.leave(ticket);
            let pause = tokio::time::sleep(std::time::Duration::from_millis(25));
            if within(deadline, pause).await.is_none() {
                return Err(self.out_of_time(Applied::No));
            }
        }
    }
}

macro_rules! stubs {
    ($($name:ident: $stub:ident),* $(,)?) => {
        /// The generated stubs with this client's size limit.
        impl Client {
            $(pub(crate) fn $name(&self, channel: Channel) -> $stub<Channel> {
                $stub::new(channel).max_decoding_message_size(self.options.response_bytes_max)
            })*
        }
    };
}

stubs! {
    kv_stub: KvClient,
    watch_stub: WatchClient,
    lease_stub: LeaseClient,
    cluster_stub: ClusterClient,
    maintenance_stub: MaintenanceClient,
    auth_stub: AuthClient,
}
