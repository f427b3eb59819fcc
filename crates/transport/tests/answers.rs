//! The codes, texts and headers of answers, which etcd's members act on.
#![allow(clippy::unwrap_used, reason = "a test may end here")]

mod support;

use base::MemberId;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use retcd_transport::{Pieces, ReplyBody, wire};
use support::{Host, heartbeat};

const LOCAL: u64 = 0xa;
const PEER: u64 = 0xb;
const GONE: u64 = 0xdead;

struct Asked {
    host: Host,
}

impl Asked {
    async fn start() -> Self {
        let host = Host::start(LOCAL).await;
        host.listener.removed.lock().insert(MemberId(GONE));
        host.transport.set_members(&[(MemberId(PEER), vec!["http://127.0.0.1:1".into()])]);
        Self { host }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        change: &[(&'static str, &str)],
        body: Bytes,
    ) -> Response<ReplyBody> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        let usual = [
            ("x-server-from", "b"),
            ("x-server-version", "3.5.30"),
            ("x-min-cluster-version", "3.0.0"),
            ("x-etcd-cluster-id", "c1"),
            ("x-raft-to", "a"),
        ];
        for (name, value) in usual.iter().chain(change) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        self.host.transport.handle(request).await
    }

    /// Code and text.
    async fn get(&self, path: &str, change: &[(&'static str, &str)]) -> (u16, String) {
        code_and_text(self.ask(Method::GET, path, change, Bytes::new()).await).await
    }

    async fn post(&self, path: &str, body: Bytes) -> (u16, String) {
        code_and_text(self.ask(Method::POST, path, &[], body).await).await
    }
}

async fn code_and_text(reply: Response<ReplyBody>) -> (u16, String) {
    let (head, body) = reply.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8(text.to_vec()).unwrap())
}

fn encoded(message: &raft::Message) -> Bytes {
    let mut pieces = Pieces::default();
    wire::encode(message, &Bytes::new(), &mut pieces);
    pieces.take_joined()
}

fn says(code: u16, text: &str) -> (u16, String) {
    (code, format!("{text}\n"))
}

/// HTTP-33, CB-05.
#[tokio::test]
async fn streams_are_attached_or_refused_as_in_etcd() {
    let asked = Asked::start().await;
    let path = "/raft/stream/message/b";
    let attached = asked.ask(Method::GET, path, &[], Bytes::new()).await;
    assert_eq!(attached.status(), 200);
    assert_eq!(attached.headers()["x-etcd-cluster-id"], "c1");
    assert_eq!(attached.headers()["x-server-version"], base::version::COMPATIBLE);
    assert!(attached.body().is_stream());
    assert_eq!(asked.host.transport.attached_streams(MemberId(PEER)), 1);

    let cluster = [("x-etcd-cluster-id", "c2")];
    assert_eq!(asked.get(path, &cluster).await, says(412, "cluster ID mismatch"));
    let zeros = [("x-etcd-cluster-id", "00c1")];
    assert_eq!(asked.get(path, &zeros).await, says(412, "cluster ID mismatch"));
    let old = [("x-server-version", "2.3.8")];
    assert_eq!(asked.get(path, &old).await, says(412, "incompatible version"));
    let later = [("x-min-cluster-version", "4.0.0")];
    assert_eq!(asked.get(path, &later).await, says(412, "incompatible version"));
    let to = [("x-raft-to", "f")];
    assert_eq!(asked.get(path, &to).await, says(412, "to field mismatch"));
    let gone = "/raft/stream/msgapp/dead";
    assert_eq!(asked.get(gone, &[]).await, says(410, "removed member"));
    let stranger = "/raft/stream/msgapp/f";
    assert_eq!(asked.get(stranger, &[]).await, says(404, "error sender not found"));
    assert_eq!(asked.get("/raft/stream/msgapp/xyz", &[]).await, says(404, "invalid from"));
    assert_eq!(asked.get("/raft/stream/other/b", &[]).await, says(404, "invalid path"));
    assert_eq!(asked.get("/raft/stream/b", &[]).await, says(404, "invalid path"));
    let posted = asked.ask(Method::POST, path, &[], Bytes::new()).await;
    assert_eq!(posted.headers()["allow"], "GET");
    assert_eq!(code_and_text(posted).await, says(405, "Method Not Allowed"));
}

/// HTTP-33.
#[tokio::test]
async fn posted_messages_are_taken_or_refused_as_in_etcd() {
    let asked = Asked::start().await;
    let (local, peer) = (MemberId(LOCAL), MemberId(PEER));
    let good = encoded(&heartbeat(peer, local, 1));
    let taken = asked.ask(Method::POST, "/raft", &[], good.clone()).await;
    assert_eq!(taken.headers()["x-etcd-cluster-id"], "c1");
    assert_eq!(code_and_text(taken).await, (204, String::new()));
    asked.host.heard(|heard| assert_eq!(heard.messages, [heartbeat(peer, local, 1)]));

    let unreadable = says(400, "error unmarshalling raft message");
    assert_eq!(asked.post("/raft", Bytes::from_static(b"\xff\xff")).await, unreadable);
    let got = asked.ask(Method::GET, "/raft", &[], Bytes::new()).await;
    assert_eq!(got.headers()["allow"], "POST");
    let foreign = [("x-etcd-cluster-id", "c2")];
    let refused = asked.ask(Method::POST, "/raft", &foreign, good).await;
    assert_eq!(code_and_text(refused).await, says(412, "cluster ID mismatch"));

    // Only these two may be answered by 403.
    let removed = asked.post("/raft", encoded(&heartbeat(MemberId(GONE), local, 1))).await;
    let text = "{\"message\":\"cannot process message from removed member\"}";
    assert_eq!(removed, (403, text.to_owned()));
    let misled = asked.post("/raft", encoded(&heartbeat(peer, MemberId(0xf), 1))).await;
    let text = "{\"message\":\"cannot process message to mismatch member\"}";
    assert_eq!(misled, (403, text.to_owned()));
}

/// HTTP-33, N12.
#[tokio::test]
async fn posted_snapshots_are_refused_as_in_etcd() {
    let asked = Asked::start().await;
    let empty = says(400, "failed to decode raft message (unexpected EOF)");
    assert_eq!(asked.post("/raft/snapshot", Bytes::new()).await, empty);
    let endless = asked.post("/raft/snapshot", Bytes::from_static(b"GET / HTTP/1.1\r\n")).await;
    assert_eq!(endless.0, 400);
    let message = encoded(&heartbeat(MemberId(PEER), MemberId(LOCAL), 1));
    let mut body = (message.len() as u64).to_be_bytes().to_vec();
    body.extend(&message);
    let wrong = says(400, "wrong raft message type");
    assert_eq!(asked.post("/raft/snapshot", body.into()).await, wrong);
    assert_eq!(asked.host.transport.metrics().unknown_snapshot_failures.value(), 0);
}

#[tokio::test]
async fn probes_are_answered_and_other_paths_are_not() {
    let asked = Asked::start().await;
    let (code, text) = asked.get("/raft/probing", &[("x-etcd-cluster-id", "c2")]).await;
    assert_eq!(code, 200);
    assert!(text.starts_with("{\"OK\":true,\"Now\":\""), "{text}");
    assert_eq!(asked.get("/raft/other", &[]).await, says(404, "404 page not found"));
}
