//! Spans: one for a call, others within it. Whoever is not traced has none, and pays for none.
//!
//! A span ends when the last [`Trace`] of it is dropped, if nobody ended it before.
//! Source: names, attributes and codes are those of gRPC's library for Go, which etcd uses
//! (`otelgrpc` 0.68), and of etcd server/etcdserver/v3_server.go.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;
use tonic::Code;

/// What begins the spans of calls; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Tracer {
    shared: Arc<Shared>,
    /// Where calls arrive, if that is an address.
    local: Option<SocketAddr>,
}

#[derive(Debug)]
struct Shared {
    of_calls: SdkTracer,
    within: SdkTracer,
}

/// A span that something happens in, if it is traced; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Arc<Traced>>);

#[derive(Debug)]
struct Traced {
    shared: Arc<Shared>,
    /// Holds the span.
    context: Context,
}

impl Tracer {
    pub(crate) fn new(of_calls: SdkTracer, within: SdkTracer) -> Self {
        Self { shared: Arc::new(Shared { of_calls, within }), local: None }
    }

    /// The same for calls that arrive at this address.
    #[must_use]
    pub(crate) fn at(&self, local: Option<SocketAddr>) -> Self {
        Self { shared: Arc::clone(&self.shared), local }
    }

    /// Begins the span of a call of `/service/method`, which is none if it is not sampled.
    pub(crate) fn begin(&self, path: &'static str, headers: &HeaderMap) -> Trace {
        let name = path.trim_start_matches('/');
        let caller =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        let mut attributes =
            vec![KeyValue::new("rpc.method", name), KeyValue::new("rpc.system.name", "grpc")];
        if let Some(local) = self.local {
            attributes.push(KeyValue::new("server.address", local.ip().to_string()));
            attributes.push(KeyValue::new("server.port", i64::from(local.port())));
        }
        let span =
            SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = self.shared.of_calls.build_with_context(span, &caller);
        Trace::of(&self.shared, Context::new().with_span(span))
    }
}

impl Trace {
    fn of(shared: &Arc<Shared>, context: Context) -> Self {
        let is_sampled = context.span().is_recording();
        Self(is_sampled.then(|| Arc::new(Traced { shared: Arc::clone(shared), context })))
    }

    /// Whether there is a span.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span within this one.
    pub(crate) fn within(
        &self,
        name: &'static str,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) -> Self {
        let Some(traced) = &self.0 else { return Self(None) };
        let span = SpanBuilder::from_name(name).with_attributes(attributes());
        let span = traced.shared.within.build_with_context(span, &traced.context);
        Self::of(&traced.shared, Context::new().with_span(span))
    }

    /// Something happened.
    pub(crate) fn event(&self, name: &'static str) {
        if let Some(traced) = &self.0 {
            traced.context.span().add_event(name, Vec::new());
        }
    }

    /// What was to be done in this span failed.
    pub(crate) fn failed(&self, why: impl FnOnce() -> String) {
        if let Some(traced) = &self.0 {
            let message = KeyValue::new("exception.message", why());
            traced.context.span().add_event("exception", vec![message]);
        }
    }

    /// The call of this span has ended, with a message if it was no success.
    pub(crate) fn end(self, code: Code, message: impl FnOnce() -> String) {
        let Some(traced) = self.0 else { return };
        let span = traced.context.span();
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
            span.set_status(Status::error(message()));
        }
        span.set_attribute(KeyValue::new("rpc.response.status_code", name_of(code)));
        span.end();
    }
}

/// How a span names a code.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
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
