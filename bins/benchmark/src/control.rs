//! Calls outside of measured time: health, leases, the text of an error.
//!
//! Not fast, and therefore an ordinary tonic client.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use proto::etcdserverpb::{LeaseGrantRequest, LeaseGrantResponse, RangeRequest, StatusRequest};
use proto::etcdserverpb::{StatusResponse, maintenance_client::MaintenanceClient};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;

use crate::connection::Endpoint;
use crate::workload::{LEASE_GRANT, LEASE_SECONDS, RANGE};

/// A client of one server, used from a thread without a runtime.
#[derive(Debug)]
pub(crate) struct Control {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

/// Why the server did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// No runtime for the call.
    #[error("starting a runtime")]
    Runtime(#[source] std::io::Error),
    /// No connection.
    #[error("connecting to {endpoint}")]
    Connect {
        /// The server.
        endpoint: Endpoint,
        /// The transport's error.
        #[source]
        source: tonic::transport::Error,
    },
    /// The server refused.
    #[error("server answers {}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The answer is not the message it should be.
    #[error("decoding the answer")]
    Decode(#[from] prost::DecodeError),
}

/// Longest wait for an answer to any of these calls.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

impl Control {
    /// Connects.
    ///
    /// # Errors
    /// If the server does not accept.
    pub(crate) fn connect(endpoint: &Endpoint) -> Result<Self, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ControlError::Runtime)?;
        let connect = |source| ControlError::Connect { endpoint: endpoint.clone(), source };
        let transport = tonic::transport::Endpoint::from_shared(format!("http://{endpoint}"))
            .map_err(connect)?
            .connect_timeout(CALL_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        let channel = runtime.block_on(transport.connect()).map_err(connect)?;
        Ok(Self { runtime, channel })
    }

    /// Reads a key through consensus: the server serves.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn linearizable_get(&self) -> Result<(), ControlError> {
        let request = RangeRequest { key: Bytes::from_static(b"health"), ..Default::default() };
        self.call(RANGE, request.encode_to_vec().into()).map(drop)
    }

    /// Grants leases for the keep-alive workload.
    ///
    /// # Errors
    /// If the server refuses one.
    pub(crate) fn grant_leases(&self, count: u32) -> Result<Vec<i64>, ControlError> {
        let request = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 }.encode_to_vec();
        let request = Bytes::from(request);
        let grant = |_| {
            let answer = self.call(LEASE_GRANT, request.clone())?;
            Ok(LeaseGrantResponse::decode(answer)?.id)
        };
        (0..count).map(grant).collect()
    }

    /// Version and size of the server.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) fn status(&self) -> Result<StatusResponse, ControlError> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let answer = self
            .runtime
            .block_on(client.status(StatusRequest::default()))
            .map_err(|status| ControlError::Status(Box::new(status)))?;
        Ok(answer.into_inner())
    }

    /// Makes a unary call with an encoded message.
    ///
    /// # Errors
    /// If the server refuses.
    pub(crate) fn call(&self, path: &'static str, message: Bytes) -> Result<Bytes, ControlError> {
        let mut client =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let call = async {
            client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
            let path = path.parse().expect("methods are valid paths");
            client.unary(tonic::Request::new(message), path, EncodedCodec).await
        };
        let answer = self.runtime.block_on(call);
        Ok(answer.map_err(|status| ControlError::Status(Box::new(status)))?.into_inner())
    }
}

/// Hands encoded messages through.
#[derive(Debug, Default, Clone, Copy)]
struct EncodedCodec;

impl Codec for EncodedCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for EncodedCodec {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for EncodedCodec {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
