//! Distributed tracing: spans of the gRPC calls that are sampled, sent to a collector (SRV-121).
//!
//! A call has a span, and so has what it does to keys and leases (`span`), about which it tells
//! what was asked for (`about`). A caller that sends a W3C `traceparent` decides whether its call is traced; for the others
//! `--distributed-tracing-sampling-rate` does. Spans wait in a queue with an end: while the
//! collector is away they are lost, and nobody else notices. A member without
//! `--enable-distributed-tracing` has none of this.
//! Source: etcd server/embed/config_tracing.go.

pub(crate) mod about;
mod span;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};
use tokio::runtime::{Builder, Runtime};

use crate::config::Tracing;
pub(crate) use span::{Trace, Tracer};

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

/// What the spans of calls come from: they are those that gRPC's library for Go tells of.
const SCOPE_OF_CALLS: &str =
    "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc";

/// What the spans within calls come from.
const SCOPE_WITHIN: &str = "go.etcd.io/etcd";

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
        let of_calls = self.provider.tracer(SCOPE_OF_CALLS);
        Tracer::new(of_calls, self.provider.tracer(SCOPE_WITHIN))
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
    let environment = Resource::builder_empty().with_detector(Box::new(EnvResourceDetector::new()));
    let resource = environment.with_service_name(tracing.service_name.clone());
    match tracing.instance_id.as_str() {
        "" => resource.build(),
        id => resource.with_attribute(KeyValue::new("service.instance.id", id.to_owned())).build(),
    }
}
