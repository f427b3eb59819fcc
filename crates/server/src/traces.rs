//! Distributed tracing: a span for every gRPC call that is sampled, sent to a collector (SRV-121).
//!
//! A caller that sends a W3C `traceparent` decides whether its call is traced; for the others
//! `--distributed-tracing-sampling-rate` does. Spans wait in a queue with an end: while the
//! collector is away they are lost, and nobody else notices. A member without
//! `--enable-distributed-tracing` has none of this.
//! Source: etcd server/embed/config_tracing.go; names and attributes as etcd's gRPC library gives
//! them.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span,
};
use tokio::runtime::{Builder, Runtime};
use tonic::Code;

use crate::config::Tracing;
use crate::grpc::Remote;

/// Spans that may wait to be sent; more are lost.
const QUEUE_SPANS_MAX: usize = 2048;

/// Spans are sent at least this often.
const SEND_INTERVAL: Duration = Duration::from_secs(5);

/// How long sending some of them may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server's end may wait for the last ones.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The address means nothing.
    #[error(
        "cannot send traces to {address}; set --distributed-tracing-address to the host and port of a collector such as localhost:4317"
    )]
    Address {
        /// Which.
        address: String,
        /// What is wrong with it.
        #[source]
        source: ExporterBuildError,
    },
    /// There is no thread.
    #[error("starting the thread that sends traces")]
    Thread(#[source] std::io::Error),
}

/// What sends spans; the last ones are sent when it is dropped.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    /// For the connection to the collector, which must go on whatever the others do.
    runtime: Option<Runtime>,
}

/// What begins spans; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Tracer(Arc<SdkTracer>);

impl Traces {
    /// Begins to send what [`Traces::tracer`] traces.
    ///
    /// # Errors
    ///
    /// See [`TracesError`].
    pub(crate) fn start(tracing: &Tracing) -> Result<Self, TracesError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .map_err(TracesError::Thread)?;
        let address = &tracing.address;
        let has_scheme = address.contains("://");
        let endpoint = if has_scheme { address.clone() } else { format!("http://{address}") };
        let exporter = {
            let _within = runtime.enter();
            SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(SEND_TIMEOUT)
                .build()
                .map_err(|source| TracesError::Address { address: address.clone(), source })?
        };
        let queue = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_scheduled_delay(SEND_INTERVAL)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(queue).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler(tracing.samples_per_million))
            .with_resource(resource(tracing))
            .build();
        tracing::info!(
            address,
            "service-name" = tracing.service_name,
            "service-instance-id" = tracing.instance_id,
            "sampling-rate" = tracing.samples_per_million,
            "distributed tracing enabled"
        );
        Ok(Self { provider, runtime: Some(runtime) })
    }

    pub(crate) fn tracer(&self) -> Tracer {
        Tracer(Arc::new(self.provider.tracer("etcd")))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(END_TIMEOUT) {
            tracing::debug!(error = %error, "the last traces were not sent");
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn sampler(per_million: u32) -> Sampler {
    let own = match per_million {
        0 => Sampler::AlwaysOff,
        some => Sampler::TraceIdRatioBased(f64::from(some) / 1_000_000.0),
    };
    Sampler::ParentBased(Box::new(own))
}

fn resource(tracing: &Tracing) -> Resource {
    let resource = Resource::builder().with_service_name(tracing.service_name.clone());
    match tracing.instance_id.as_str() {
        "" => resource.build(),
        id => resource.with_attribute(KeyValue::new("service.instance.id", id.to_owned())).build(),
    }
}

/// The span of one call.
#[derive(Debug)]
pub(crate) struct CallSpan(Span);

impl Tracer {
    /// Begins the span of a call of `/service/method`; `None` if it is not sampled.
    pub(crate) fn begin(
        &self,
        path: &'static str,
        remote: Remote,
        headers: &HeaderMap,
    ) -> Option<Box<CallSpan>> {
        let name = path.trim_start_matches('/');
        let (service, method) = name.split_once('/').unwrap_or((name, ""));
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        let mut attributes = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service),
            KeyValue::new("rpc.method", method),
        ];
        if let Remote(Some(address)) = remote {
            attributes.push(KeyValue::new("network.peer.address", address.ip().to_string()));
            attributes.push(KeyValue::new("network.peer.port", i64::from(address.port())));
        }
        let span =
            SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = self.0.build_with_context(span, &parent);
        span.is_recording().then(|| Box::new(CallSpan(span)))
    }
}

impl CallSpan {
    /// The call has ended.
    pub(crate) fn end(mut self, code: Code) {
        // What a caller did wrong is no error of the server's.
        let failed = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        if failed {
            self.0.set_status(Status::error(code.description()));
        }
        self.0.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(i32::from(code))));
        self.0.end();
    }
}

/// Where the caller's span is written.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
