//! The v3 API as JSON over HTTP: what curl sends and gets, compared with real etcd's where there is
//! one.

mod learner;
mod streams;
mod users;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use retcd_conformance::{Answer, Server, ask, real_etcd};
use serde_json::Value;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// G-003, GW-02 to GW-14, GW-17 to GW-22, GW-27: requests in order, on one store.
const REQUESTS: &[(&str, &str, &str)] = &[
    ("POST", "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("POST", "/v3/kv/put", r#"{"key":"Zm9v","value":"_w==","prev_kv":true}"#),
    ("POST", "/v3/kv/range", r#"{"key":"Zm9v"}"#),
    (
        "POST",
        "/v3/kv/range",
        r#"{"key":"AA==","rangeEnd":"AA==","limit":1,"sort_order":"DESCEND"}"#,
    ),
    ("POST", "/v3/kv/range", r#"{"key":"Zm9v","countOnly":true,"unknown":{"a":[1,2]}}"#),
    ("POST", "/v3/kv/range", r#"{"key":"Zm9v","sort_order":"NOPE","sort_target":3}"#),
    ("POST", "/v3/kv/range", r#"{"key":"bm9uZQ=="} trailing"#),
    (
        "POST",
        "/v3/kv/txn",
        r#"{"compare":[{"key":"Zm9v","target":"VERSION","version":"2","result":"EQUAL"}],
            "success":[{"request_range":{"key":"Zm9v"}},{"requestPut":{"key":"YQ==","value":"Yg=="}}],
            "failure":[{"request_delete_range":{"key":"Zm9v"}}]}"#,
    ),
    ("POST", "/v3/kv/txn", r#"{"compare":[{"key":"bm8=","target":"CREATE","createRevision":1}]}"#),
    ("POST", "/v3/kv/deleterange", r#"{"key":"Zm9v","prev_kv":true}"#),
    ("POST", "/v3/kv/compaction", r#"{"revision":"3"}"#),
    ("POST", "/v3/kv/compaction", r#"{"revision":"1000"}"#),
    ("POST", "/v3/kv/range", r#"{"key":"Zm9v","revision":"1"}"#),
    ("POST", "/v3/kv/put", ""),
    ("POST", "/v3/kv/put", "{}"),
    ("POST", "/v3/kv/put", "xyz"),
    ("POST", "/v3/kv/put", r#"{"key":"#),
    ("GET", "/v3/kv/put", ""),
    ("PUT", "/v3/kv/put", r#"{"key":"Zm9v"}"#),
    ("POST", "/v3/kv/rangestream", "{}"),
    ("POST", "/v3/kv/put/", "{}"),
    ("POST", "/v3", "{}"),
    ("GET", "/v3", ""),
    ("POST", "/v3//kv/range", "{}"),
    ("GET", "//v3/kv/../kv/range", ""),
    ("POST", "/v3/kv/r%61nge", r#"{"key":"Zm9v"}"#),
    ("POST", "/v3/kv/put", r#"{"key":"YQ==","key":"YQ=="}"#),
    ("POST", "/v3/kv/put", r#"{"key":"YQ==","lease":7.5}"#),
    ("POST", "/v3/kv/put", r#"{"key":"YQ","lease":"-0.0"}"#),
    ("POST", "/v3/kv/txn", r#"{"compare":[{"version":1,"lease":1}]}"#),
    ("POST", "/v3/kv/txn", r#"{"compare":[null]}"#),
    ("POST", "/v3/kv/put", "[]"),
    ("POST", "/v3/kv/put", r#"{"key":"YQ=="]"#),
    ("POST", "/v3/", "{}"),
    ("POST", "/v3alpha/kv/range", "{}"),
    ("POST", "/v3beta/kv/range", r#"{"key":"YQ=="}"#),
    ("GET", "/v3beta/kv/range", ""),
    ("POST", "/v3beta//kv/range", "{}"),
    ("GET", "/v3beta/./kv/range?x=1", ""),
    ("POST", "/v3beta%2fkv/range", r#"{"key":"YQ=="}"#),
    ("POST", "/v3beta", "{}"),
    ("POST", "/v3beta/", "{}"),
    ("POST", "/v3beta/none", "{}"),
    ("POST", "/v3beta/v3beta/kv/range", "{}"),
    ("POST", "/v3betas/kv/range", "{}"),
    ("GET", "/v3beta/openapi.json", ""),
    ("GET", "/v3alpha", ""),
    ("POST", "/v3alpha/", "{}"),
    ("POST", "/v3alpha/watch", r#"{"create_request":{"key":"Zm9v"}}"#),
    ("POST", "/V3/kv/range", "{}"),
    ("POST", "/v3/v3beta/kv/range", "{}"),
    ("OPTIONS", "/v3/kv/put", ""),
    ("POST", "/v3/lease/grant", r#"{"TTL":"1000","ID":"77"}"#),
    ("POST", "/v3/lease/grant", r#"{"TTL":"1000","ID":"77"}"#),
    ("POST", "/v3/kv/put", r#"{"key":"bGVhc2Vk","lease":77}"#),
    ("POST", "/v3/lease/keepalive", r#"{"ID":"77"}"#),
    ("POST", "/v3/lease/leases", "{}"),
    ("POST", "/v3/kv/lease/leases", "{}"),
    ("POST", "/v3/kv/lease/revoke", r#"{"ID":"77"}"#),
    ("POST", "/v3/lease/revoke", r#"{"ID":"77"}"#),
    ("POST", "/v3/lease/timetolive", r#"{"ID":"77","keys":true}"#),
    ("POST", "/v3/cluster/member/list", "{}"),
    ("POST", "/v3/cluster/member/remove", r#"{"ID":"1"}"#),
    ("POST", "/v3/cluster/member/promote", r#"{"ID":"1"}"#),
    ("POST", "/v3/maintenance/alarm", r#"{"action":"GET"}"#),
    ("POST", "/v3/maintenance/defragment", "{}"),
    ("POST", "/v3/maintenance/hashkv", r#"{"revision":"0"}"#),
    ("POST", "/v3/maintenance/transfer-leadership", r#"{"targetID":"1"}"#),
    ("POST", "/v3/maintenance/downgrade", r#"{"action":9}"#),
    ("POST", "/v3/auth/status", "{}"),
    ("POST", "/v3/auth/role/add", r#"{"name":"r"}"#),
    ("POST", "/v3/auth/role/add", r#"{"name":"r"}"#),
    ("POST", "/v3/auth/role/grant", r#"{"name":"r","perm":{"permType":"READ","key":"YQ=="}}"#),
    ("POST", "/v3/auth/role/get", r#"{"role":"r"}"#),
    ("POST", "/v3/auth/role/list", "{}"),
    ("POST", "/v3/auth/role/revoke", r#"{"role":"r","key":"YQ=="}"#),
    ("POST", "/v3/auth/role/revoke", r#"{"role":"r","key":"YQ=="}"#),
    ("POST", "/v3/auth/role/delete", r#"{"role":"r"}"#),
    ("POST", "/v3/auth/role/delete", r#"{"role":"r"}"#),
    ("POST", "/v3/lock/lock", r#"{"name":"bG9jaw==","lease":"123"}"#),
    ("POST", "/v3/lock/unlock", "{}"),
    ("POST", "/v3/lock/unlock", r#"{"key":"bG9jaw=="}"#),
    ("POST", "/v3/election/leader", r#"{"name":"ZWw="}"#),
    ("POST", "/v3/election/campaign", r#"{"name":"ZWw=","value":"djE=","lease":"99"}"#),
    ("POST", "/v3/election/proclaim", r#"{"value":"djI="}"#),
    (
        "POST",
        "/v3/election/proclaim",
        r#"{"leader":{"name":"ZWw=","key":"ZWw=","rev":"1","lease":"5"},"value":"djI="}"#,
    ),
    ("POST", "/v3/election/resign", "{}"),
    ("POST", "/v3/election/resign", r#"{"leader":{"name":"ZWw=","key":"ZWw=","rev":"1"}}"#),
    ("POST", "/v3/auth/authenticate", r#"{"name":"a","password":"b"}"#),
];

/// What differs between two clusters is taken away, and blanks with it (GW-15).
fn comparable(mut answer: Answer) -> anyhow::Result<(Answer, Value)> {
    // Built with Go 1.26, as 3.7.1 is, etcd sends on with 307.
    if answer.status == 301 {
        answer.status = 307;
        answer.body = answer.body.replace("Moved Permanently", "Temporary Redirect");
    }
    // Which blank follows is another one in every build of protojson.
    answer.body = answer.body.replace('\u{a0}', " ");
    for header in ["date", "content-length", "transfer-encoding"] {
        answer.headers.remove(header);
    }
    let mut body = match answer.headers.get("content-type").map(String::as_str) {
        Some("application/json") => serde_json::from_str(&answer.body)
            .with_context(|| format!("no JSON: {:?}", answer.body))?,
        Some(_) | None => Value::from(answer.body.as_str()),
    };
    blank(&mut body);
    answer.body.clear();
    Ok((answer, body))
}

fn blank(value: &mut Value) {
    const OWN: [&str; 7] =
        ["cluster_id", "member_id", "raft_term", "ID", "peerURLs", "clientURLs", "version"];
    match value {
        Value::Object(fields) => {
            // Since 3.6.
            fields.remove("hash_revision");
            for (name, value) in fields {
                if OWN.contains(&name.as_str()) {
                    *value = Value::Null;
                }
                blank(value);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(blank),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// B22, VER-11, VER-15: errors as the second gateway's, under `/v3` and `/v3beta`, not `/v3alpha`.
#[test]
fn answers_are_etcds() -> anyhow::Result<()> {
    for real in ["3.5", "3.7"].into_iter().filter_map(real_etcd) {
        let (ours, _ours) = Server::fresh(Path::new(OURS), &[])?;
        let (theirs, _theirs) = Server::fresh(&real.join("etcd"), &[])?;
        for (method, path, body) in REQUESTS {
            let request = format!("{method} {path} {body}");
            let ours =
                comparable(ask(ours.address(), method, path, body)?).context(request.clone())?;
            let theirs = comparable(ask(theirs.address(), method, path, body)?)?;
            assert_eq!(ours, theirs, "{request}");
        }
    }
    Ok(())
}

/// G-003: two answers have no header, and so nothing at all.
#[test]
fn two_answers_are_empty() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let address = server.address();
    let status = ask(address, "POST", "/v3/maintenance/status", "{}")?;
    let status: Value = serde_json::from_str(&status.body)?;
    let own = status["leader"].as_str().context("it leads")?;
    let target = format!("{{\"targetID\":\"{own}\"}}");
    for (path, body) in
        [("/v3/maintenance/defragment", "{}"), ("/v3/maintenance/transfer-leadership", &target)]
    {
        let answer = ask(address, "POST", path, body)?;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"), "{path}");
    }
    Ok(())
}

/// G-007, GW-29: an answer may be longer than any request.
#[test]
fn only_requests_are_bounded() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let address = server.address();
    let value = "A".repeat(1_600_000);
    for key in ["MQ==", "Mg==", "Mw==", "NA==", "NQ=="] {
        let put = format!(r#"{{"key":"{key}","value":"{value}"}}"#);
        assert_eq!(ask(address, "POST", "/v3/kv/put", &put)?.status, 200);
    }
    let all = ask(address, "POST", "/v3/kv/range", r#"{"key":"AA==","range_end":"AA=="}"#)?;
    assert_eq!(all.status, 200);
    assert!(5 * value.len() < all.body.len(), "{}", all.body.len());
    let put = format!(r#"{{"key":"MQ==","value":"{}"}}"#, "A".repeat(2_800_000));
    let refused = ask(address, "POST", "/v3/kv/put", &put)?;
    let text = "grpc: received message larger than max (2100008 vs. 2097152)";
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.body.contains(text), "{refused:?}");
    Ok(())
}

/// GW-13, GW-14: the order of the fields is that of their declaration.
#[test]
fn rows_come_as_curl_users_know_them() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let put = ask(server.address(), "POST", "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#)?;
    assert_eq!(put.status, 200, "{put:?}");
    let range = ask(server.address(), "POST", "/v3/kv/range", r#"{"key":"Zm9v"}"#)?;
    let rows = r#""kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}],"count":"1"}"#;
    assert!(range.body.ends_with(rows), "{}", range.body);
    Ok(())
}

/// GW-17: what is no message is answered with the place and the cause.
#[test]
fn bad_fields_are_named() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    for (body, cause) in [
        (r#"{"key":"%%"}"#, "proto: (line 1:"),
        (r#"{"key":1}"#, "proto: (line 1:"),
        (r#"{"lease":"x"}"#, "proto: (line 1:"),
        ("[1]", "proto: syntax error (line 1:1): unexpected token ["),
    ] {
        let answer = ask(server.address(), "POST", "/v3/kv/put", body)?;
        let error: Value = serde_json::from_str(&answer.body)?;
        assert_eq!((answer.status, &error["code"]), (400, &Value::from(3)), "{body}");
        let text = error["message"].as_str().unwrap_or_default();
        assert!(text.starts_with(cause), "{body}: {text}");
    }
    Ok(())
}

/// A request whose answer goes on, and its lines.
struct Lines {
    reader: BufReader<TcpStream>,
}

impl Lines {
    fn of(address: SocketAddr, path: &str, body: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let len = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes())?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// The next line that is JSON; heads and lengths of chunks are passed over.
    fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            let mut line = String::new();
            anyhow::ensure!(self.reader.read_line(&mut line)? != 0, "the answer ended");
            if line.starts_with('{') {
                return Ok(serde_json::from_str(&line)?);
            }
        }
    }
}

/// GW-03, GW-16: a watch lasts although its request has ended.
#[test]
fn a_watch_is_a_line_for_each_reply() -> anyhow::Result<()> {
    let mut servers = vec![Server::fresh(Path::new(OURS), &[])?];
    if let Some(real) = real_etcd("3.5") {
        servers.push(Server::fresh(&real.join("etcd"), &[])?);
    }
    let mut seen = Vec::new();
    for (server, _folder) in &servers {
        let address = server.address();
        let mut lines = Lines::of(address, "/v3/watch", r#"{"create_request":{"key":"Zm9v"}}"#)?;
        let mut replies = vec![lines.next()?];
        for value in ["MQ==", "Mg=="] {
            let put = format!(r#"{{"key":"Zm9v","value":"{value}"}}"#);
            assert_eq!(ask(address, "POST", "/v3/kv/put", &put)?.status, 200);
            replies.push(lines.next()?);
        }
        let delete = ask(address, "POST", "/v3/kv/deleterange", r#"{"key":"Zm9v"}"#)?;
        assert_eq!(delete.status, 200, "{delete:?}");
        replies.push(lines.next()?);
        let mut later = Lines::of(
            address,
            "/v3/watch",
            r#"{"create_request":{"key":"Zm9v","start_revision":"2","filters":["NODELETE"]}}"#,
        )?;
        replies.extend([later.next()?, later.next()?]);
        replies.iter_mut().for_each(blank);
        seen.push(replies);
    }
    let ours = &seen[0];
    assert_eq!(ours[0]["result"]["created"], Value::from(true));
    assert_eq!(ours[3]["result"]["events"][0]["type"], Value::from("DELETE"));
    if let Some(theirs) = seen.get(1) {
        assert_eq!(ours, theirs);
    }
    Ok(())
}

/// GW-06: a snapshot is a stream of parts.
#[test]
fn a_snapshot_comes_in_lines() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let answer = ask(server.address(), "POST", "/v3/maintenance/snapshot", "{}")?;
    assert_eq!(answer.status, 200);
    let lines: Vec<Value> =
        answer.body.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert!(lines.iter().all(|line| line["result"]["blob"].is_string()), "{}", lines.len());
    assert!(lines.len() > 1);
    Ok(())
}

/// GW-01.
#[test]
fn the_gateway_can_be_turned_off() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &["--enable-grpc-gateway=false"])?;
    let answer = ask(server.address(), "POST", "/v3/kv/range", r#"{"key":"Zm9v"}"#)?;
    assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found\n"));
    Ok(())
}

/// GW-28: etcd has nothing at this path.
#[test]
fn the_gateway_describes_itself() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let answer = ask(server.address(), "GET", "/v3/openapi.json", "")?;
    assert_eq!(answer.status, 200);
    let document: Value = serde_json::from_str(&answer.body)?;
    let paths = document["paths"].as_object().context("it has paths")?;
    assert_eq!(paths.len(), 51);
    for path in ["/v3/kv/range", "/v3/watch", "/v3/lock/lock", "/v3/election/observe"] {
        assert!(paths[path]["post"]["parameters"][0]["schema"]["$ref"].is_string(), "{path}");
    }
    let revision = &document["definitions"]["etcdserverpbRangeRequest"]["properties"]["revision"];
    assert_eq!(*revision, serde_json::json!({ "type": "string", "format": "int64" }));
    Ok(())
}
