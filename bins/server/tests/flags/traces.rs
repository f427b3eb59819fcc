//! Distributed tracing, with a collector in this process. SRV-121, G-021.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
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
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::v3lockpb::lock_client::LockClient;
use retcd_conformance::Server;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
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
        any_value::Value::BoolValue(truth) => Some(truth.to_string()),
        any_value::Value::DoubleValue(_)
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
    let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!((spans.len(), names), (2, BTreeSet::from(["etcdserverpb.KV/Put", "put"])));
    let span = spans.iter().find(|span| span.name != "put").context("the call has one")?;
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), SPAN.into()));
    assert_eq!(span.kind, 2, "a server's");
    assert!(span.start_time_unix_nano < span.end_time_unix_nano);
    for (key, expected) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "etcdserverpb.KV/Put"),
        ("rpc.response.status_code", "OK"),
        ("server.address", "127.0.0.1"),
        ("server.port", server.endpoint().rsplit(':').next().unwrap_or_default()),
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

/// A traced call to a server: what it is sent with tells it from others.
struct Traced {
    server: Server,
    received: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    spans: Vec<Span>,
}

/// A request that is part of the trace with this number.
fn within<T>(trace: u128, message: T) -> anyhow::Result<Request<T>> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", format!("00-{trace:032x}-{SPAN}-01").parse()?);
    Ok(request)
}

/// A span, as far as it does not change from run to run: its name and what it tells, then its events.
fn shown(span: &Span) -> String {
    let mut about: Vec<String> = span
        .attributes
        .iter()
        .filter(|attribute| !attribute.key.starts_with("server."))
        .map(|at| format!("{}={}", at.key, text(&span.attributes, &at.key).unwrap_or_default()))
        .collect();
    about.sort();
    let mut shown = format!("{} [{}]", span.name, about.join(" "));
    for event in &span.events {
        shown.push_str("; ");
        shown.push_str(&event.name);
        let why = text(&event.attributes, "exception.message");
        shown.push_str(&why.map_or_else(String::new, |why| format!(": {why}")));
    }
    let status = span.status.as_ref().filter(|status| status.code != 0);
    shown.push_str(&status.map_or_else(String::new, |status| format!("; {}", status.message)));
    shown
}

impl Traced {
    /// Waits for the spans of a trace: that of the call, then those within it, in their order.
    async fn of(&mut self, trace: u128, count: usize) -> anyhow::Result<Vec<String>> {
        loop {
            let id = trace.to_be_bytes();
            let mut spans: Vec<&Span> =
                self.spans.iter().filter(|span| span.trace_id == id).collect();
            if count <= spans.len() {
                spans.sort_by_key(|span| (span.kind != 2, span.start_time_unix_nano));
                let call = spans[0];
                assert_eq!(hex(&call.parent_span_id), SPAN);
                assert_eq!(call.kind, 2, "a server's");
                for inner in &spans[1..] {
                    assert_eq!(inner.parent_span_id, call.span_id, "{}", inner.name);
                    assert_eq!(inner.kind, 1, "an internal one");
                }
                return Ok(spans.into_iter().map(shown).collect());
            }
            let sent = tokio::time::timeout(LONG, self.received.recv()).await;
            let sent = sent.with_context(|| format!("spans of {trace}, besides {spans:?}"))?;
            let sent = sent.context("the collector is there")?;
            let scopes = sent.resource_spans.into_iter().flat_map(|from| from.scope_spans);
            self.spans.extend(scopes.flat_map(|scope| scope.spans));
        }
    }
}

async fn traced() -> anyhow::Result<(Traced, tempfile::TempDir)> {
    let (collector, received) = collect().await?;
    let (server, folder) = start(&[
        "--enable-distributed-tracing",
        &format!("--distributed-tracing-address={collector}"),
    ])?;
    Ok((Traced { server, received, spans: Vec::new() }, folder))
}

/// What gRPC tells of a call.
fn call(method: &str, code: &str) -> String {
    format!("{method} [rpc.method={method} rpc.response.status_code={code} rpc.system.name=grpc]")
}

const PROPOSED: &str = "; Send raft proposal; Receive raft result";

/// What is done to keys has spans of its own, as in etcd 3.7: names, attributes and events.
#[tokio::test]
async fn spans_within_calls_tell_what_is_done_to_keys() -> anyhow::Result<()> {
    let (mut traced, _folder) = traced().await?;
    let mut kv = KvClient::connect(traced.server.endpoint()).await?;
    let key = |key: &'static str| Bytes::from_static(key.as_bytes());
    let put = pb::PutRequest { key: key("a"), ..Default::default() };
    kv.put(within(1, put.clone())?).await?;
    let range = pb::RangeRequest { key: key("a"), range_end: key("b"), ..Default::default() };
    kv.range(within(2, pb::RangeRequest { limit: 3, keys_only: true, ..range.clone() })?).await?;
    let mut stream = kv.range_stream(within(3, range.clone())?).await?.into_inner();
    while stream.message().await?.is_some() {}
    let operation = |request| pb::RequestOp { request: Some(request) };
    let success = vec![operation(pb::request_op::Request::RequestPut(put))];
    let compare = vec![pb::Compare { key: key("a"), ..Default::default() }];
    kv.txn(within(4, pb::TxnRequest { compare, success, failure: Vec::new() })?).await?;
    let success = vec![operation(pb::request_op::Request::RequestRange(range))];
    kv.txn(within(5, pb::TxnRequest { success, ..Default::default() })?).await?;
    let delete = pb::DeleteRangeRequest { key: key("a"), ..Default::default() };
    kv.delete_range(within(6, delete)?).await?;
    kv.compact(within(7, pb::CompactionRequest { revision: 2, physical: true })?).await?;
    let about_range = "range_begin=a range_end=b rev=0";
    let txn = |compared: &str, kind: &str, lease: i64, len: usize, read_only: bool| {
        format!(
            "txn [compare_first_key={compared} compare_len={len} failure_len=0 \
             read_only={read_only} success_first_key=a success_first_lease={lease} \
             success_first_type={kind} success_len=1]"
        )
    };
    for (trace, method, inner) in [
        (1, "Put", format!("put [key=a]{PROPOSED}")),
        (2, "Range", format!("range [count_only=false keys_only=true limit=3 {about_range}]")),
        (3, "RangeStream", format!("range_streaming [count_only=false limit=0 {about_range}]")),
        (4, "Txn", txn("a", "put", 0, 1, false) + PROPOSED),
        (5, "Txn", txn("", "range", -1, 0, true)),
        (6, "DeleteRange", format!("delete_range [range_begin=a range_end=]{PROPOSED}")),
        (7, "Compact", format!("compact [is_physical=true rev=2]{PROPOSED}")),
    ] {
        let method = format!("etcdserverpb.KV/{method}");
        assert_eq!(traced.of(trace, 2).await?, [call(&method, "OK"), inner]);
    }
    traced.server.stop()?;
    Ok(())
}

/// The same for leases and watches; a watch's span lasts as long as the watch.
#[tokio::test]
async fn spans_within_calls_tell_what_is_done_to_leases_and_watches() -> anyhow::Result<()> {
    let (mut traced, _folder) = traced().await?;
    let mut leases = LeaseClient::connect(traced.server.endpoint()).await?;
    leases.lease_grant(within(1, pb::LeaseGrantRequest { ttl: 100, id: 7 })?).await?;
    let renewals = [7, 8].map(|id| pb::LeaseKeepAliveRequest { id });
    let renewals = within(2, tokio_stream::iter(renewals))?;
    let mut renewed = leases.lease_keep_alive(renewals).await?.into_inner();
    while renewed.message().await?.is_some() {}
    leases.lease_revoke(within(3, pb::LeaseRevokeRequest { id: 7 })?).await?;
    let mut watch = WatchClient::connect(traced.server.endpoint()).await?;
    let (asks, asked) = mpsc::channel(8);
    let mut told = watch.watch(within(4, ReceiverStream::new(asked))?).await?.into_inner();
    let create = |key: &'static [u8]| pb::WatchCreateRequest {
        key: Bytes::from_static(key),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    };
    let all = pb::WatchCreateRequest { prev_kv: true, progress_notify: true, ..create(b"") };
    let ended = pb::WatchCancelRequest { watch_id: 0 };
    for request in [
        RequestUnion::CreateRequest(all),
        RequestUnion::CancelRequest(ended),
        RequestUnion::CreateRequest(create(b"b")),
    ] {
        asks.send(pb::WatchRequest { request_union: Some(request) }).await?;
        told.message().await?.context("each is answered")?;
    }
    drop((told, asks));
    let service = "etcdserverpb.Lease/Lease";
    let granted = format!("lease_grant [id=7 ttl=100]{PROPOSED}");
    assert_eq!(traced.of(1, 2).await?, [call(&format!("{service}Grant"), "OK"), granted]);
    let renewals = ["lease_renew [id=7]".into(), "lease_renew [id=8]".into()];
    let [first, second] = renewals;
    let kept = call(&format!("{service}KeepAlive"), "OK");
    assert_eq!(traced.of(2, 3).await?, [kept, first, second]);
    let revoked = format!("lease_revoke [id=7]{PROPOSED}");
    assert_eq!(traced.of(3, 2).await?, [call(&format!("{service}Revoke"), "OK"), revoked]);
    assert_eq!(
        traced.of(4, 3).await?,
        [
            call("etcdserverpb.Watch/Watch", "CANCELLED"),
            "watch [fragment=false key=\0 prev_kv=true progress_notify=true range_end= \
             start_rev=0]"
                .to_owned(),
            "watch [fragment=false key=b prev_kv=false progress_notify=false range_end= \
             start_rev=0]"
                .to_owned(),
        ]
    );
    traced.server.stop()?;
    Ok(())
}

/// A call that fails tells its code; a request that was not proposed tells why, and what is wrong
/// in itself has no span but that of the call.
#[tokio::test]
async fn spans_of_failed_calls_tell_why() -> anyhow::Result<()> {
    let (mut traced, _folder) = traced().await?;
    let mut kv = KvClient::connect(traced.server.endpoint()).await?;
    let put = pb::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    let asked = [
        pb::PutRequest::default(),
        pb::PutRequest { lease: 9, ..put.clone() },
        pb::PutRequest { value: vec![0; 1_700_000].into(), ..put },
    ];
    for (trace, put) in (1..).zip(asked) {
        kv.put(within(trace, put)?).await.unwrap_err();
    }
    let mut lock = LockClient::connect(traced.server.endpoint()).await?;
    lock.unlock(within(4, proto::v3lockpb::UnlockRequest { key: Bytes::from_static(b"a") })?)
        .await?;
    let called = |code| call("etcdserverpb.KV/Put", code);
    assert_eq!(traced.of(1, 1).await?, [called("INVALID_ARGUMENT")]);
    let proposed = format!("put [key=a]{PROPOSED}");
    assert_eq!(traced.of(2, 2).await?, [called("NOT_FOUND"), proposed]);
    let refused = "put [key=a]; exception: etcdserver: request is too large".to_owned();
    assert_eq!(traced.of(3, 2).await?, [called("INVALID_ARGUMENT"), refused]);
    let deleted = format!("delete_range [range_begin=a range_end=]{PROPOSED}");
    assert_eq!(traced.of(4, 2).await?, [call("v3lockpb.Lock/Unlock", "OK"), deleted]);
    traced.server.stop()?;
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
