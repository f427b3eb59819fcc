//! Calls over a websocket (GW-25), with real etcd beside ours where there is one.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use retcd_conformance::{Server, ask, real_etcd};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Bytes, Message};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// A websocket and what the server said to begin it.
struct Socket {
    stream: WebSocketStream<TcpStream>,
    protocol: Option<String>,
}

impl Socket {
    async fn open(
        server: &Server,
        path: &str,
        header: Option<(&str, &str)>,
    ) -> anyhow::Result<Self> {
        let port = server.client_port();
        let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request()?;
        if let Some((name, value)) = header {
            let name: tonic::codegen::http::HeaderName = name.parse()?;
            request.headers_mut().insert(name, value.parse()?);
        }
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let beginning = tokio_tungstenite::client_async(request, stream);
        let (stream, response) = timeout(PATIENCE, beginning).await??;
        let protocol = response.headers().get("sec-websocket-protocol");
        let protocol = protocol.map(|value| value.to_str().map(str::to_owned)).transpose()?;
        Ok(Self { stream, protocol })
    }

    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.stream.send(Message::text(text)).await?)
    }

    /// The next message of the server's; `None` once it has ended.
    async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            let message = timeout(PATIENCE, self.stream.next()).await.context("nothing comes")?;
            match message {
                Some(Ok(Message::Text(text))) => {
                    let mut value = serde_json::from_str(&text)?;
                    blank(&mut value);
                    return Ok(Some(value));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                Some(Ok(other)) => bail!("{other:?}"),
                // Real etcd hangs up without a word.
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

/// Takes away what differs between two clusters.
fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if ["cluster_id", "member_id", "raft_term"].contains(&name.as_str()) {
                    *value = Value::Null;
                }
                blank(value);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(blank),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

const WATCH: &str = r#"{"create_request":{"key":"Zm9v"}}"#;

struct Case {
    path: &'static str,
    header: Option<(&'static str, &'static str)>,
    messages: &'static [&'static str],
    replies: usize,
    /// Whether the server ends it behind them.
    ends: bool,
}

const fn case(path: &'static str, messages: &'static [&'static str], replies: usize) -> Case {
    Case { path, header: None, messages, replies, ends: false }
}

const fn ending(path: &'static str, messages: &'static [&'static str], replies: usize) -> Case {
    Case { ends: true, ..case(path, messages, replies) }
}

const CASES: &[Case] = &[
    case("/v3/watch", &[WATCH, WATCH], 2),
    case("/v3/watch?method=GET", &["{\"create_request\":", "{\"key\":\"Zm9v\"}}"], 1),
    case("/v3beta/watch", &[WATCH], 1),
    case("/v3/lease/keepalive", &[r#"{"ID":"77"}"#, r#"{"ID":"78"}"#], 2),
    ending("/v3/kv/put", &[r#"{"key":"Zm9v","value":"YQ=="}"#], 1),
    ending("/v3/kv/put", &["{}"], 1),
    ending("/v3/kv/put", &["xyz"], 1),
    ending("/v3/kv/range", &[r#"{"key":"Zm9v"}"#], 1),
    ending("/v3/nope", &[], 1),
    Case {
        header: Some(("sec-websocket-protocol", "Bearer, foo")),
        ..case("/v3/watch", &[WATCH], 1)
    },
    Case { header: Some(("cookie", "token=foo")), ..case("/v3/watch", &[WATCH], 1) },
];

async fn play(server: &Server, case: &Case) -> anyhow::Result<(Option<String>, Vec<Value>)> {
    let mut socket = Socket::open(server, case.path, case.header).await?;
    for message in case.messages {
        socket.send(message).await?;
    }
    let mut replies = Vec::new();
    while replies.len() < case.replies {
        replies.push(socket.next().await?.context("it ended early")?);
    }
    if case.ends {
        let more = socket.next().await?;
        ensure!(more.is_none(), "{more:?}");
    }
    Ok((socket.protocol, replies))
}

#[tokio::test]
async fn calls_are_answered_as_by_etcd() -> anyhow::Result<()> {
    let (ours, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let real =
        real_etcd("3.5").map(|folder| Server::fresh(&folder.join("etcd"), &[])).transpose()?;
    for case in CASES {
        let named = || format!("{} {:?}", case.path, case.messages);
        let ours = play(&ours, case).await.with_context(named)?;
        if let Some((theirs, _folder)) = &real {
            let theirs = play(theirs, case).await.with_context(named)?;
            assert_eq!(ours, theirs, "{}", named());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_tells_what_happens_and_goes_on() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let mut socket = Socket::open(&server, "/v3/watch", None).await?;
    socket.send(WATCH).await?;
    let created = socket.next().await?.context("it ended")?;
    assert_eq!(created["result"]["created"], json!(true));
    let address = ([127, 0, 0, 1], server.client_port()).into();
    for value in ["YQ==", "Yg=="] {
        let body = format!("{{\"key\":\"Zm9v\",\"value\":\"{value}\"}}");
        tokio::task::spawn_blocking(move || ask(address, "POST", "/v3/kv/put", &body)).await??;
        let told = socket.next().await?.context("it ended")?;
        assert_eq!(told["result"]["events"][0]["kv"]["value"], json!(value));
    }
    // Pings are answered, and a second request in bytes is one, too.
    socket.stream.send(Message::Ping(Bytes::from_static(b"here?"))).await?;
    let pong = timeout(PATIENCE, socket.stream.next()).await?.context("it ended")??;
    assert_eq!(pong, Message::Pong(Bytes::from_static(b"here?")));
    socket.stream.send(Message::binary(br#"{"cancel_request":{"watch_id":0}}"#.to_vec())).await?;
    let cancelled = socket.next().await?.context("it ended")?;
    assert_eq!(cancelled["result"]["canceled"], json!(true));
    socket.stream.close(None).await?;
    assert_eq!(socket.next().await?, None);
    Ok(())
}

/// GW-23, GW-25: with users, a token counts in each of the three places, and nothing without.
#[tokio::test]
async fn tokens_are_taken_from_where_pages_can_put_them() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let address = ([127, 0, 0, 1], server.client_port()).into();
    let token = tokio::task::spawn_blocking(move || {
        for (path, body) in [
            ("user/add", r#"{"name":"root","password":"r"}"#),
            ("role/add", r#"{"name":"root"}"#),
            ("user/grant", r#"{"user":"root","role":"root"}"#),
            ("enable", "{}"),
        ] {
            let answer = ask(address, "POST", &format!("/v3/auth/{path}"), body)?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        let body = r#"{"name":"root","password":"r"}"#;
        let answer = ask(address, "POST", "/v3/auth/authenticate", body)?;
        let answer: Value = serde_json::from_str(&answer.body)?;
        Ok(answer["token"].as_str().context("a token comes")?.to_owned())
    });
    let token = token.await??;
    let put = r#"{"key":"Zm9v","value":"YQ=="}"#;
    for (name, value, is_known) in [
        ("sec-websocket-protocol", format!("Bearer, {token}"), true),
        ("cookie", format!("other=x; token={token}"), true),
        ("authorization", token.clone(), true),
        ("sec-websocket-protocol", "Bearer, wrong".to_owned(), false),
        ("x-other", token.clone(), false),
    ] {
        let mut socket = Socket::open(&server, "/v3/kv/put", Some((name, &value))).await?;
        socket.send(put).await?;
        let reply = socket.next().await?.context("it ended")?;
        assert_eq!(reply["header"].is_object(), is_known, "{name} {value}: {reply}");
        assert_eq!(reply["message"].is_string(), !is_known, "{name} {value}: {reply}");
    }
    Ok(())
}

/// One request on a connection of its own; the head and body of the answer.
async fn raw(server: &Server, lines: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.client_port())).await?;
    let request = format!("{lines}\r\nHost: localhost\r\nConnection: close, Upgrade\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    let lines = answer.lines().filter(|line| !line.starts_with("Date:"));
    let mut lines: Vec<_> = lines.map(str::to_ascii_lowercase).collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

#[tokio::test]
async fn what_is_no_websocket_is_refused_as_by_etcd() -> anyhow::Result<()> {
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    const VERSION: &str = "Sec-WebSocket-Version: 13";
    let (ours, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let real =
        real_etcd("3.5").map(|folder| Server::fresh(&folder.join("etcd"), &[])).transpose()?;
    for (method, lines, status) in [
        ("POST", vec![KEY, VERSION], "405 method not allowed"),
        ("GET", vec![KEY], "400 bad request"),
        ("GET", vec![VERSION], "400 bad request"),
        ("GET", vec![VERSION, "Sec-WebSocket-Key: abc"], "400 bad request"),
        ("GET", vec![KEY, "Sec-WebSocket-Version: 8"], "400 bad request"),
    ] {
        let request =
            format!("{method} /v3/watch HTTP/1.1\r\nUpgrade: websocket\r\n{}", lines.join("\r\n"));
        let answer = raw(&ours, &request).await?;
        assert!(answer.contains(&format!("http/1.1 {status}")), "{answer}");
        if let Some((theirs, _folder)) = &real {
            assert_eq!(answer, raw(theirs, &request).await?, "{request}");
        }
    }
    Ok(())
}
