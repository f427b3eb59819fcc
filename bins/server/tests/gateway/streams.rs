//! Streams of JSON: bodies with several requests, what is wrong in the middle of them, and how
//! answers end; beside real etcd where there is one.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use retcd_conformance::cluster::PATIENCE;
use retcd_conformance::{Server, ask, real_etcd};
use serde_json::{Value, json};

use super::OURS;

/// A request whose body is sent piece by piece, and its answer.
struct Talk {
    reader: BufReader<TcpStream>,
    /// Of the answer's body and not yet taken.
    text: String,
    has_ended: bool,
}

/// The head of an answer: status and what is not the same for every answer.
type Head = (u16, BTreeMap<String, String>);

impl Talk {
    fn begin(address: SocketAddr, path: &str, headers: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let chunked = "Transfer-Encoding: chunked\r\n";
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}{chunked}\r\n");
        stream.write_all(head.as_bytes())?;
        Ok(Self { reader: BufReader::new(stream), text: String::new(), has_ended: false })
    }

    /// Sends one piece of the body; an empty one ends it.
    fn send(&mut self, piece: &str) -> anyhow::Result<()> {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        Ok(self.reader.get_mut().write_all(chunk.as_bytes())?)
    }

    fn head(&mut self) -> anyhow::Result<Head> {
        let mut line = String::new();
        self.reader.read_line(&mut line).context("waiting for the head")?;
        let status = line.split(' ').nth(1).context("no status")?.parse()?;
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        headers.remove("date");
        headers.remove("connection");
        if let Some(len) = headers.remove("content-length") {
            let mut body = vec![0; len.parse()?];
            self.reader.read_exact(&mut body)?;
            self.text = String::from_utf8(body)? + "\n";
            self.has_ended = true;
        }
        Ok((status, headers))
    }

    /// The next line of the answer; `None` at its end.
    fn line(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let mut value = serde_json::from_str(line).with_context(|| line.to_owned())?;
                without_ids(&mut value);
                self.text = rest.to_owned();
                return Ok(Some(value));
            }
            if self.has_ended {
                ensure!(self.text.is_empty(), "no end of a line: {:?}", self.text);
                return Ok(None);
            }
            let mut len = String::new();
            self.reader.read_line(&mut len).context("waiting for a chunk")?;
            let len = usize::from_str_radix(len.trim_end(), 16).context("no chunk's length")?;
            let mut chunk = vec![0; len + 2];
            self.reader.read_exact(&mut chunk)?;
            chunk.truncate(len);
            self.has_ended = len == 0;
            self.text.push_str(&String::from_utf8(chunk)?);
        }
    }

    fn next(&mut self) -> anyhow::Result<Value> {
        self.line()?.context("the answer ended")
    }
}

/// Takes away what differs between two clusters.
fn without_ids(line: &mut Value) {
    if let Some(header) = line.pointer_mut("/result/header").and_then(Value::as_object_mut) {
        header.retain(|name, _| name == "revision");
    }
}

/// What is sent, and what must come.
struct Case {
    path: &'static str,
    headers: &'static str,
    /// Pieces of the body, which ends behind them.
    body: &'static [&'static str],
    status: u16,
    /// Without their headers.
    lines: &'static [&'static str],
    end: End,
}

/// What follows the lines.
#[derive(Clone, Copy)]
enum End {
    /// Nothing: the answer ends.
    Now,
    /// Events of a watch.
    Events,
    /// More that is not looked at.
    Open,
}

const fn watch(body: &'static [&'static str], lines: &'static [&'static str], end: End) -> Case {
    Case { path: "/v3/watch", headers: "", body, status: 200, lines, end }
}

const fn keep_alive(body: &'static [&'static str], lines: &'static [&'static str]) -> Case {
    let path = "/v3/lease/keepalive";
    Case { path, headers: "", body, status: 200, lines, end: End::Now }
}

const CREATE: &str = r#"{"create_request":{"key":"Zm9v"}}"#;
const CREATED: &str = r#"{"result":{"created":true}}"#;
const ALIVE: &str = r#"{"result":{"ID":"77","TTL":"1000"}}"#;

/// Before: `foo` was put three times, the third revision compacted, lease 77 granted, lock `l` taken.
const CASES: &[Case] = &[
    watch(&[CREATE], &[CREATED], End::Events),
    watch(
        &[
            CREATE,
            "\n{\"create_request\":{\"key\":\"YmFy\",\"watch_id\":\"7\"}}{\"cancel_request\":{",
            "\"watch_id\":7}}",
        ],
        &[
            CREATED,
            r#"{"result":{"watch_id":"7","created":true}}"#,
            r#"{"result":{"watch_id":"7","canceled":true}}"#,
        ],
        End::Events,
    ),
    // What is no JSON, no such message or not whole ends the requests, not the watch.
    watch(&[CREATE, "xyz", CREATE], &[CREATED], End::Events),
    watch(&[CREATE, r#"{"create_request":{"key":5}}"#, CREATE], &[CREATED], End::Events),
    watch(&[CREATE, r#"{"create"#], &[CREATED], End::Events),
    // Nobody is told that there is nothing to do.
    watch(&["{}", CREATE], &[CREATED], End::Events),
    watch(&[r#"{"cancel_request":{"watch_id":"99"}}"#, CREATE], &[CREATED], End::Events),
    watch(
        &[
            r#"{"create_request":{"key":"Zm9v","watch_id":"5"}}"#,
            r#"{"create_request":{"key":"Zm9v","watch_id":"5"}}"#,
        ],
        &[
            r#"{"result":{"watch_id":"5","created":true}}"#,
            r#"{"result":{"watch_id":"-1","created":true,"canceled":true,
                "cancel_reason":"mvcc: duplicate watch ID provided on the WatchStream"}}"#,
        ],
        End::Events,
    ),
    watch(
        &[r#"{"create_request":{"key":"Zm9v","start_revision":"1"}}"#],
        &[CREATED, r#"{"result":{"canceled":true,"compact_revision":"3"}}"#],
        End::Open,
    ),
    watch(
        &[r#"{"create_request":{"key":"Zm9v","start_revision":"-5"}}"#],
        &[r#"{"result":{"watch_id":"-1","created":true,"canceled":true,
            "cancel_reason":"etcdserver: mvcc: required revision has been compacted"}}"#],
        End::Open,
    ),
    watch(
        &[r#"{"create_request":{"key":"Zm9v","range_end":"YQ=="}}"#],
        &[r#"{"result":{"watch_id":"-1","created":true,"canceled":true,
            "cancel_reason":"mvcc: watcher range is empty"}}"#],
        End::Open,
    ),
    watch(&[r#"{"create_request":{"key":"Zm9v","start_revision":"1000"}}"#], &[CREATED], End::Open),
    keep_alive(
        &[r#"{"ID":"77"}"#, r#"{"ID":"77"}{"ID":"78"}"#, r#"{"ID":"0"}{}"#],
        &[ALIVE, ALIVE, r#"{"result":{"ID":"78"}}"#, r#"{"result":{}}"#, r#"{"result":{}}"#],
    ),
    keep_alive(&[r#"{"ID":"77"}"#, r#"{"ID":"x"}"#, r#"{"ID":"77"}"#], &[ALIVE]),
    keep_alive(&[r#"{"ID":"77"}{"I"#], &[ALIVE]),
    keep_alive(&["xyz", r#"{"ID":"77"}"#], &[]),
    keep_alive(&[], &[]),
    Case {
        path: "/v3/maintenance/snapshot",
        headers: "",
        body: &["{"],
        status: 400,
        lines: &[r#"{"code":3,"message":"unexpected EOF"}"#],
        end: End::Now,
    },
];

/// What came.
#[derive(Debug, PartialEq)]
struct Seen {
    head: Head,
    lines: Vec<Value>,
}

fn play(address: SocketAddr, case: &Case) -> anyhow::Result<Seen> {
    let mut talk = Talk::begin(address, case.path, case.headers)?;
    for piece in case.body {
        talk.send(piece)?;
    }
    talk.send("")?;
    let head = talk.head()?;
    let mut lines = Vec::new();
    while lines.len() < case.lines.len() {
        lines.push(talk.next()?);
    }
    match case.end {
        End::Now => {
            let more = talk.line()?;
            ensure!(more.is_none(), "{more:?}");
        }
        End::Events => {
            let put = ask(address, "POST", "/v3/kv/put", r#"{"key":"Zm9v"}"#)?;
            ensure!(put.status == 200, "{put:?}");
            lines.push(talk.next()?);
        }
        End::Open => {}
    }
    Ok(Seen { head, lines })
}

/// The store that [`CASES`] begin with.
fn prepare(address: SocketAddr) -> anyhow::Result<()> {
    for (path, body) in [
        ("kv/put", r#"{"key":"Zm9v","value":"MQ=="}"#),
        ("kv/put", r#"{"key":"Zm9v","value":"Mg=="}"#),
        ("kv/put", r#"{"key":"Zm9v","value":"Mw=="}"#),
        ("kv/compaction", r#"{"revision":"3"}"#),
        ("lease/grant", r#"{"ID":"77","TTL":"1000"}"#),
        ("lock/lock", r#"{"name":"bA==","lease":"77"}"#),
    ] {
        let answer = ask(address, "POST", &format!("/v3/{path}"), body)?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    Ok(())
}

fn without_header(mut line: Value) -> Value {
    if let Some(result) = line.get_mut("result").and_then(Value::as_object_mut) {
        result.remove("header");
    }
    line
}

/// GW-03, GW-04, GW-16, W-06: several requests in one body, errors among them, and how the answer
/// ends. With real etcd heads, framing and headers of the replies are compared, too.
#[test]
fn bodies_of_several_requests_are_answered_as_by_etcd() -> anyhow::Result<()> {
    let (ours, _folder) = Server::fresh(Path::new(OURS), &[])?;
    prepare(ours.address())?;
    let real =
        real_etcd("3.7").map(|folder| Server::fresh(&folder.join("etcd"), &[])).transpose()?;
    if let Some((theirs, _folder)) = &real {
        prepare(theirs.address())?;
    }
    for case in CASES {
        let named = || format!("{} {}{:?}", case.path, case.headers, case.body);
        let seen = play(ours.address(), case).with_context(named)?;
        if let Some((theirs, _folder)) = &real {
            let theirs = play(theirs.address(), case).with_context(named)?;
            assert_eq!(seen, theirs, "{}", named());
        }
        assert_eq!(seen.head.0, case.status, "{}", named());
        let expected = case.lines.iter().map(|line| serde_json::from_str(line));
        let expected = expected.collect::<Result<Vec<Value>, _>>()?;
        let lines = seen.lines.into_iter().take(expected.len()).map(without_header);
        assert_eq!(lines.collect::<Vec<_>>(), expected, "{}", named());
    }
    Ok(())
}

/// GW-16, GW-19: a call whose time is over is told so in the gateway's words, as 3.7.1 was seen to do:
/// in the stream if that has begun, and without one if the call never could begin.
#[test]
fn a_call_whose_time_is_over_is_told_so() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    prepare(server.address())?;
    let late = json!({ "code": 4, "message": "context deadline exceeded" });
    let in_stream = json!({ "error": late });
    for (path, timeout, body, expected) in [
        ("/v3/watch", "2S", CREATE, &in_stream),
        ("/v3/election/observe", "1S", r#"{"name":"ZWw="}"#, &in_stream),
        ("/v3/lock/lock", "1S", r#"{"name":"bA=="}"#, &late),
        ("/v3/watch", "1n", CREATE, &late),
    ] {
        let timeout = format!("Grpc-Timeout: {timeout}\r\n");
        let mut talk = Talk::begin(server.address(), path, &timeout)?;
        talk.send(body)?;
        talk.send("")?;
        let (status, _headers) = talk.head()?;
        let mut lines = Vec::new();
        while let Some(line) = talk.line()? {
            lines.push(line);
        }
        let last = lines.pop().context("an error at least")?;
        assert_eq!(last, *expected, "{path} {timeout}");
        // A slow machine may have no time for the first reply of the watch.
        assert_eq!(status, if lines.is_empty() { 504 } else { 200 }, "{path} {timeout}");
        assert!(lines.iter().all(|line| line["result"]["created"] == json!(true)), "{lines:?}");
    }
    Ok(())
}

/// GW-03, GW-04: replies come while the body goes on. Etcd's come so over HTTP/2 only: over HTTP/1.1
/// its library reads to the end of the body before it answers.
#[test]
fn who_asks_on_is_answered_meanwhile() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let address = server.address();
    prepare(address)?;
    let mut watch = Talk::begin(address, "/v3/watch", "")?;
    watch.send(CREATE)?;
    assert_eq!(watch.head()?.0, 200);
    assert_eq!(watch.next()?["result"]["created"], json!(true));
    watch.send(r#"{"progress_request":{}}"#)?;
    assert_eq!(watch.next()?["result"]["watch_id"], json!("-1"));
    ask(address, "POST", "/v3/kv/put", r#"{"key":"Zm9v"}"#)?;
    assert!(watch.next()?["result"]["events"][0]["kv"].is_object());
    watch.send(r#"{"cancel_request":{}}"#)?;
    assert_eq!(watch.next()?["result"]["canceled"], json!(true));

    let mut lease = Talk::begin(address, "/v3/lease/keepalive", "")?;
    lease.send(r#"{"ID":"77"}"#)?;
    assert_eq!(lease.head()?.0, 200);
    assert_eq!(without_header(lease.next()?), serde_json::from_str::<Value>(ALIVE)?);
    ask(address, "POST", "/v3/lease/revoke", r#"{"ID":"77"}"#)?;
    lease.send(r#"{"ID":"77"}"#)?;
    assert_eq!(without_header(lease.next()?), json!({ "result": { "ID": "77" } }));
    lease.send("")?;
    assert_eq!(lease.line()?, None);
    Ok(())
}

/// GW-16: the answer to who breaks off in the middle of a body ends with an error, as 3.7.1's was seen
/// to do.
#[test]
fn a_body_that_is_broken_off_cancels_the_call() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let mut talk = Talk::begin(server.address(), "/v3/watch", "")?;
    talk.send(CREATE)?;
    assert_eq!(talk.head()?.0, 200);
    assert_eq!(talk.next()?["result"]["created"], json!(true));
    talk.reader.get_mut().shutdown(Shutdown::Write)?;
    let cancelled = json!({ "error": { "code": 1, "message": "context canceled" } });
    assert_eq!(talk.next()?, cancelled);
    assert_eq!(talk.line()?, None);
    Ok(())
}

/// GW-16: a server that ends says so to whoever waits, as etcd's gateway does.
#[test]
fn open_calls_are_told_that_the_server_ends() -> anyhow::Result<()> {
    let mut servers = vec![Server::fresh(Path::new(OURS), &[])?];
    if let Some(real) = real_etcd("3.7") {
        servers.push(Server::fresh(&real.join("etcd"), &[])?);
    }
    let lost = json!({ "code": 14, "message": "error reading from server: EOF" });
    for (server, _folder) in &mut servers {
        let address = server.address();
        prepare(address)?;
        let mut watch = Talk::begin(address, "/v3/watch", "")?;
        watch.send(CREATE)?;
        watch.send("")?;
        assert_eq!(watch.head()?.0, 200);
        watch.next()?;
        let mut observe = Talk::begin(address, "/v3/election/observe", "")?;
        observe.send(r#"{"name":"ZWw="}"#)?;
        observe.send("")?;
        let mut lock = Talk::begin(address, "/v3/lock/lock", "")?;
        lock.send(r#"{"name":"bA=="}"#)?;
        lock.send("")?;
        // Whoever waits for the lock has a key; the other call is only counted.
        let are_waiting = || -> anyhow::Result<bool> {
            let range = r#"{"key":"bC8=","range_end":"bDA=","count_only":true}"#;
            let range = ask(address, "POST", "/v3/kv/range", range)?;
            let metrics = ask(address, "GET", "/metrics", "")?.body;
            let mut started = metrics.lines().filter(|line| line.contains("_started_total{"));
            let observes = started.any(|line| line.contains("\"Observe\"") && line.ends_with(" 1"));
            let range: Value = serde_json::from_str(&range.body)?;
            Ok(observes && range["count"] == json!("2"))
        };
        let began = Instant::now();
        while !are_waiting()? {
            ensure!(began.elapsed() < PATIENCE, "the calls do not begin");
            std::thread::sleep(Duration::from_millis(50));
        }
        server.signal("TERM")?;
        assert_eq!(watch.next()?, json!({ "error": lost }));
        assert_eq!(watch.line()?, None);
        assert_eq!(observe.head()?.0, 503);
        assert_eq!(observe.next()?, json!({ "error": lost }));
        assert_eq!(lock.head()?.0, 503);
        assert_eq!(lock.next()?, lost);
        server.wait()?;
    }
    Ok(())
}
