//! Distributed tracing, with a collector in this process. SRV-121, G-021.

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use retcd_conformance::Server;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::{LONG, start};

/// What members send their spans to.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        // A test that has seen enough is gone.
        drop(self.0.send(request.into_inner()));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a collector: its address, and what it is sent.
async fn collect() -> anyhow::Result<(String, mpsc::UnboundedReceiver<ExportTraceServiceRequest>)> {
    let (sender, received) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let service = TraceServiceServer::new(Collector(sender));
    let serving = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
    Ok((address, received))
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        any_value::Value::StringValue(text) => Some(text),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        any_value::Value::BoolValue(_)
        | any_value::Value::DoubleValue(_)
        | any_value::Value::ArrayValue(_)
        | any_value::Value::KvlistValue(_)
        | any_value::Value::BytesValue(_)
        | any_value::Value::StringValueStrindex(_) => None,
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Puts a key as part of a caller's trace, which is sampled or not.
async fn put(server: &Server, key: &str, parent: Option<&str>) -> anyhow::Result<()> {
    let mut kv = KvClient::connect(server.endpoint()).await?;
    let key = key.as_bytes().to_vec().into();
    let mut request = Request::new(pb::PutRequest { key, ..Default::default() });
    if let Some(parent) = parent {
        request.metadata_mut().insert("traceparent", parent.parse()?);
    }
    kv.put(request).await?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A caller that traces its call gets the server's part of it, whatever the rate; others do not.
#[tokio::test]
async fn a_call_is_part_of_its_callers_trace() -> anyhow::Result<()> {
    let (collector, mut received) = collect().await?;
    let (mut server, _folder) = start(&[
        "--enable-distributed-tracing",
        &format!("--distributed-tracing-address={collector}"),
        "--distributed-tracing-service-name=keys",
        "--distributed-tracing-instance-id=m0",
        "--distributed-tracing-sampling-rate=0",
    ])?;
    put(&server, "untraced", None).await?;
    put(&server, "unsampled", Some(&format!("00-{TRACE}-{SPAN}-00"))).await?;
    put(&server, "traced", Some(&format!("00-{TRACE}-{SPAN}-01"))).await?;
    let sent = tokio::time::timeout(LONG, received.recv()).await?.context("spans are sent")?;
    let resource = &sent.resource_spans[0];
    let about = &resource.resource.as_ref().context("spans come from somewhere")?.attributes;
    assert_eq!(text(about, "service.name").as_deref(), Some("keys"));
    assert_eq!(text(about, "service.instance.id").as_deref(), Some("m0"));
    let spans: Vec<&Span> = resource.scope_spans.iter().flat_map(|scope| &scope.spans).collect();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let span = spans[0];
    assert_eq!(span.name, "etcdserverpb.KV/Put");
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), SPAN.into()));
    assert_eq!(span.kind, 2, "a server's");
    assert!(span.start_time_unix_nano < span.end_time_unix_nano);
    for (key, expected) in [
        ("rpc.system", "grpc"),
        ("rpc.service", "etcdserverpb.KV"),
        ("rpc.method", "Put"),
        ("rpc.grpc.status_code", "0"),
        ("network.peer.address", "127.0.0.1"),
    ] {
        assert_eq!(text(&span.attributes, key).as_deref(), Some(expected), "{key}");
    }
    server.stop()?;
    Ok(())
}

/// Of callers that trace nothing, the rate says how many are traced: here all. What waits is sent
/// when the server ends. The names of 3.5 do the same.
#[tokio::test]
async fn the_rate_decides_for_callers_that_trace_nothing() -> anyhow::Result<()> {
    let (collector, mut received) = collect().await?;
    let (mut server, _folder) = start(&[
        "--experimental-enable-distributed-tracing",
        &format!("--experimental-distributed-tracing-address={collector}"),
        "--experimental-distributed-tracing-service-name=keys",
        "--experimental-distributed-tracing-instance-id=m0",
        "--experimental-distributed-tracing-sampling-rate=1000000",
    ])?;
    put(&server, "a", None).await?;
    // Its end waits for the collector, which this thread is.
    tokio::task::spawn_blocking(move || server.stop()).await??;
    let sent = tokio::time::timeout(LONG, received.recv()).await?.context("spans are sent")?;
    let spans = sent.resource_spans.iter().flat_map(|from| &from.scope_spans);
    assert!(spans.flat_map(|scope| &scope.spans).any(|span| span.name == "etcdserverpb.KV/Put"));
    Ok(())
}

/// A collector that is away costs spans, and nobody else anything.
#[tokio::test]
async fn a_collector_that_is_away_hinders_nobody() -> anyhow::Result<()> {
    let nobody = ports::free_address()?;
    let (mut server, _folder) = start(&[
        "--enable-distributed-tracing",
        &format!("--distributed-tracing-address={nobody}"),
        "--distributed-tracing-sampling-rate=1000000",
    ])?;
    let mut kv = KvClient::connect(server.endpoint()).await?;
    for number in 0..300 {
        let key = format!("{number}").into_bytes().into();
        let put = kv.put(pb::PutRequest { key, ..Default::default() });
        tokio::time::timeout(Duration::from_secs(60), put).await??;
    }
    server.stop()?;
    assert!(!server.log().contains("\"level\":\"error\""), "{}", server.log());
    Ok(())
}
