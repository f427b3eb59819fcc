//! The API of the second generation (features 1), from outside; and random sequences of calls to
//! ours and to etcd 3.4 side by side.

mod client_libraries;
mod v2_auth;
mod v2_clients;
mod v2_cluster;
mod v2_discovery;
mod v2_over_v3;
mod v2_proxy;
mod v2_support;
mod v2_waiters;

use std::path::Path;

use retcd_conformance::{Server, eventually};
use v2_support::{OURS, V2, start};

const FORM: &str = "application/x-www-form-urlencoded";

/// What is asked, the status, and how the body begins.
const STEPS: &[(&str, u16, &str)] = &[
    (
        "PUT /message value=Hello",
        201,
        "{\"action\":\"set\",\"node\":{\"key\":\"/message\",\"value\":\"Hello\",\
         \"modifiedIndex\":4,\"createdIndex\":4}}",
    ),
    (
        "GET /message",
        200,
        "{\"action\":\"get\",\"node\":{\"key\":\"/message\",\"value\":\"Hello\",\
         \"modifiedIndex\":4,\"createdIndex\":4}}",
    ),
    (
        "GET /message?quorum=true",
        200,
        "{\"action\":\"get\",\"node\":{\"key\":\"/message\",\"value\":\"Hello\",\
         \"modifiedIndex\":4,\"createdIndex\":4}}",
    ),
    (
        "PUT /message value=%3Cb%3E%26",
        200,
        "{\"action\":\"set\",\"node\":{\"key\":\"/message\",\"value\":\"\\u003cb\\u003e\\u0026\",\
         \"modifiedIndex\":5,\"createdIndex\":5},\"prevNode\":{\"key\":\"/message\",\
         \"value\":\"Hello\",\"modifiedIndex\":4,\"createdIndex\":4}}",
    ),
    (
        "DELETE /message",
        200,
        "{\"action\":\"delete\",\"node\":{\"key\":\"/message\",\"modifiedIndex\":6,\
         \"createdIndex\":5},\"prevNode\":{\"key\":\"/message\",\
         \"value\":\"\\u003cb\\u003e\\u0026\",\"modifiedIndex\":5,\"createdIndex\":5}}",
    ),
    (
        "GET /message",
        404,
        "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/message\",\"index\":6}",
    ),
    (
        "POST /queue value=Job1",
        201,
        "{\"action\":\"create\",\"node\":{\"key\":\"/queue/00000000000000000007\",\
         \"value\":\"Job1\",\"modifiedIndex\":7,\"createdIndex\":7}}",
    ),
    (
        "PUT /queue dir=true",
        403,
        "{\"errorCode\":102,\"message\":\"Not a file\",\"cause\":\"/queue\",\"index\":7}",
    ),
    (
        "PUT /d/f value=one",
        201,
        "{\"action\":\"set\",\"node\":{\"key\":\"/d/f\",\"value\":\"one\",\"modifiedIndex\":8,\
         \"createdIndex\":8}}",
    ),
    (
        "PUT /d/f value=x&prevValue=two",
        412,
        "{\"errorCode\":101,\"message\":\"Compare failed\",\"cause\":\"[two != one]\",\
         \"index\":8}",
    ),
    (
        "PUT /d/f value=two&prevIndex=8",
        200,
        "{\"action\":\"compareAndSwap\",\"node\":{\"key\":\"/d/f\",\"value\":\"two\",\
         \"modifiedIndex\":9,\"createdIndex\":8},\"prevNode\":{\"key\":\"/d/f\",\
         \"value\":\"one\",\"modifiedIndex\":8,\"createdIndex\":8}}",
    ),
    ("PUT /d/f value=three&noValueOnSuccess=true", 200, "{\"action\":\"set\"}"),
    ("PUT /d/f value=x&prevExist=false", 412, "{\"errorCode\":105,"),
    ("PUT /d/f/g value=x", 400, "{\"errorCode\":104,"),
    ("DELETE /d?dir=true", 403, "{\"errorCode\":108,"),
    ("DELETE /", 400, "{\"errorCode\":107,"),
    ("PUT /d/_h value=x", 201, "{\"action\":\"set\""),
    (
        "GET /?recursive=true&sorted=true",
        200,
        "{\"action\":\"get\",\"node\":{\"dir\":true,\"nodes\":[{\"key\":\"/d\",\"dir\":true,\
         \"nodes\":[{\"key\":\"/d/f\",\"value\":\"three\",\"modifiedIndex\":10,\
         \"createdIndex\":10}],\"modifiedIndex\":8,\"createdIndex\":8},{\"key\":\"/queue\",\
         \"dir\":true,\"nodes\":[{\"key\":\"/queue/00000000000000000007\",\"value\":\"Job1\",\
         \"modifiedIndex\":7,\"createdIndex\":7}],\"modifiedIndex\":7,\"createdIndex\":7}]}}",
    ),
    ("DELETE /d/f?prevValue=three", 200, "{\"action\":\"compareAndDelete\""),
    ("DELETE /d?recursive=true", 200, "{\"action\":\"delete\""),
    ("PUT /e prevExist=true&value=x", 404, "{\"errorCode\":100,"),
];

/// V2-007 to V2-009, V2-012, V2-040 to V2-062, V2-090 to V2-099: one after the other on a fresh
/// member, whose index is 3.
#[test]
fn keys_are_as_in_etcd() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let v2 = V2::of(&server)?;
    let fresh = v2.get("/keys/")?;
    assert_eq!(fresh.body, "{\"action\":\"get\",\"node\":{\"dir\":true}}\n");
    assert_eq!(fresh.header("x-etcd-index"), "3");
    assert_eq!(fresh.header("content-type"), "application/json");
    for name in ["x-raft-index", "x-raft-term", "x-etcd-cluster-id"] {
        assert!(!fresh.header(name).is_empty(), "{name}");
    }
    for &(step, status, body) in STEPS {
        let answer = v2.step(step)?;
        assert_eq!(answer.status, status, "{step}: {}", answer.body);
        assert!(answer.body.starts_with(body), "{step}: {}", answer.body);
        assert!(answer.body.ends_with("}\n"), "{step}: {}", answer.body);
    }
    Ok(())
}

/// What is no request, as etcd 3.4.23 answers it; paths that are not in their shortest form lead
/// there.
const BAD_STEPS: &[(&str, u16, &str)] = &[
    ("PUT /a?prevIndex=abc value=1", 400, "{\"errorCode\":203,"),
    ("PUT /a?prevIndex=-1 value=1", 400, "{\"errorCode\":203,"),
    ("PUT /a?prevIndex=99999999999999999999 value=1", 400, "{\"errorCode\":203,"),
    ("PUT /a?prevExist=maybe value=1", 400, "{\"errorCode\":209,"),
    ("PUT /a value=1&ttl=abc", 400, "{\"errorCode\":202,"),
    ("PUT /a value=1&ttl=-5", 400, "{\"errorCode\":202,"),
    ("PUT /a value=1&ttl=1.5", 400, "{\"errorCode\":202,"),
    ("PUT /a value=1&ttl=99999999999999999999", 400, "{\"errorCode\":202,"),
    ("PUT /c dir=maybe", 400, "{\"errorCode\":209,"),
    ("PUT /a value=%zz", 400, "{\"errorCode\":210,"),
    ("PUT /a?wait=true value=1", 400, "{\"errorCode\":209,"),
    ("GET /a?waitIndex=abc", 400, "{\"errorCode\":203,"),
    ("GET /a?sorted=maybe", 400, "{\"errorCode\":209,"),
    ("GET /a?quorum=2", 400, "{\"errorCode\":209,"),
    ("GET /a?recursive=yes", 400, "{\"errorCode\":209,"),
    ("PUT /../a value=x", 301, "/v2/a"),
    ("PUT /%2e%2e/z value=x", 301, "/v2/z"),
    ("PUT //a value=x", 301, "/v2/keys/a"),
    ("PUT /a//b value=x", 301, "/v2/keys/a/b"),
    ("PUT /./z value=x", 301, "/v2/keys/z"),
    // Both are taken: a directory, and not a key.
    ("PUT /b value=1&dir=true", 201, "{\"action\":\"set\",\"node\":{\"key\":\"/b\",\"dir\":true,"),
    (
        "PUT /n%00l value=x",
        201,
        "{\"action\":\"set\",\"node\":{\"key\":\"/n\\u0000l\",\"value\":\"x\",",
    ),
];

/// B21. A key of 4 KiB is one here; etcd 3.4 breaks off the connection, as it looks for the protocol
/// only so far.
#[test]
fn bad_requests_are_refused() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let v2 = V2::of(&server)?;
    for &(step, status, text) in BAD_STEPS {
        let answer = v2.step(step)?;
        assert_eq!(answer.status, status, "{step}: {}", answer.body);
        let found = if status == 301 { answer.header("location") } else { &answer.body };
        assert!(found.starts_with(text), "{step}: {found}");
    }
    let long = "a".repeat(4096);
    assert_eq!(v2.step(&format!("PUT /{long} value=x"))?.status, 201);
    assert!(v2.step(&format!("GET /{long}"))?.body.contains("\"value\":\"x\""));
    Ok(())
}

/// V2-001 to V2-006, V2-014, V2-036.
#[test]
fn the_surroundings_are_as_in_etcd() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let v2 = V2::of(&server)?;
    let refused = v2.ask("PATCH", "/keys/a", "", "")?;
    assert_eq!((refused.status, refused.body.as_str()), (405, "Method Not Allowed\n"));
    assert_eq!(refused.header("allow"), "HEAD,GET,PUT,POST,DELETE");
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    let options = v2.ask("OPTIONS", "/keys/a", "", "")?;
    assert_eq!((options.status, options.body.as_str()), (200, ""));
    let unclean = v2.get("/keys//a/../b?sorted=true")?;
    assert_eq!(unclean.status, 301);
    assert_eq!(unclean.header("location"), "/v2/keys/b?sorted=true");
    let put = v2.ask("PUT", "/keys/b", FORM, "value=1")?;
    assert_eq!(put.status, 201);
    let head = v2.ask("HEAD", "/keys/b", "", "")?;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("x-etcd-index"), "4");
    assert_eq!(v2.get("/nothing")?.body, "404 page not found\n");
    // V2-036: no path leads out of the keys to its code.
    assert_eq!(v2.get("/keysa")?.body, "404 page not found\n");
    assert_eq!(v2.get("/keys/../members")?.header("location"), "/v2/members");
    // V2-020, V2-035, V2-066.
    let json = v2.ask("PUT", "/keys/b", "application/json", "{\"value\":\"x\"}")?;
    assert!(json.body.contains("\"value\":\"\","), "{}", json.body);
    let wrong = v2.ask("PUT", "/keys/b", FORM, "value=%zz")?;
    assert!(wrong.body.starts_with("{\"errorCode\":210,\"message\":\"Invalid POST form\","));
    assert_eq!(wrong.header("x-etcd-index"), "0");
    assert_eq!(wrong.header("x-raft-index"), "");

    let (off, _folder) = start(&["--enable-v2=false"])?;
    for path in ["/keys/", "/members", "/stats/self"] {
        let answer = V2::of(&off)?.get(path)?;
        assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found\n"), "{path}");
    }
    Ok(())
}

/// Keys and values that are no UTF-8, one after the other, and what is answered.
const ODD_STEPS: &[(&str, u16, &str)] = &[
    (
        "PUT /a%ffb value=x%ffy",
        201,
        "{\"action\":\"set\",\"node\":{\"key\":\"/a\\ufffdb\",\"value\":\"x\\ufffdy\",",
    ),
    (
        "GET /a%ffb",
        200,
        "{\"action\":\"get\",\"node\":{\"key\":\"/a\\ufffdb\",\"value\":\"x\\ufffdy\",",
    ),
    (
        "GET /a%feb",
        404,
        "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/a\\ufffdb\",",
    ),
    (
        "GET /a%ef%bf%bdb",
        404,
        "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/a\u{fffd}b\",",
    ),
    (
        "PUT /a%feb value=z",
        201,
        "{\"action\":\"set\",\"node\":{\"key\":\"/a\\ufffdb\",\"value\":\"z\",",
    ),
    (
        "GET /?sorted=true",
        200,
        "{\"action\":\"get\",\"node\":{\"dir\":true,\"nodes\":[{\"key\":\"/a\\ufffdb\",\"value\":\"z\",\
         \"modifiedIndex\":5,\"createdIndex\":5},{\"key\":\"/a\\ufffdb\",\"value\":\"x\\ufffdy\",",
    ),
    (
        "DELETE /a%ffb?prevValue=x%fe",
        412,
        "{\"errorCode\":101,\"message\":\"Compare failed\",\"cause\":\"[x\\ufffd != x\\ufffdy]\",",
    ),
    ("PUT /a%ffb value=q&prevValue=x%ffy", 200, "{\"action\":\"compareAndSwap\","),
    (
        "GET /a%ffb?wait=true&waitIndex=1",
        200,
        "{\"action\":\"set\",\"node\":{\"key\":\"/a\\ufffdb\",\"value\":\"x\\ufffdy\",\"modifiedIndex\":4,",
    ),
    (
        "DELETE /a%ffb",
        200,
        "{\"action\":\"delete\",\"node\":{\"key\":\"/a\\ufffdb\",\"modifiedIndex\":7,",
    ),
    ("GET /a%feb", 200, "{\"action\":\"get\",\"node\":{\"key\":\"/a\\ufffdb\",\"value\":\"z\","),
    ("PUT /%f4%8f%bf%bf value=1", 201, "{\"action\":\"set\",\"node\":{\"key\":\"/\u{10ffff}\","),
    (
        "PUT /e%e2%82 value=%e2%82",
        201,
        "{\"action\":\"set\",\"node\":{\"key\":\"/e\\ufffd\\ufffd\",",
    ),
];

/// V2-065: on ours, across a restart, and on etcd 3.4.
#[test]
fn keys_of_any_bytes_are_as_in_etcd() -> anyhow::Result<()> {
    let (mut server, _folder) = start(&[])?;
    let v2 = V2::of(&server)?;
    let tell = |v2: &V2| -> anyhow::Result<()> {
        for &(step, status, body) in ODD_STEPS {
            let answer = v2.step(step)?;
            assert_eq!(answer.status, status, "{step}: {}", answer.body);
            assert!(answer.body.starts_with(body), "{step}: {}", answer.body);
        }
        let unclean = v2.get("/keys/x/../y%fe")?;
        assert_eq!((unclean.status, unclean.header("location")), (301, "/v2/keys/y%FE"));
        Ok(())
    };
    tell(&v2)?;
    let before = v2.get("/keys/?sorted=true")?;
    server.kill()?;
    server.restart(Path::new(OURS))?;
    assert_eq!(V2::of(&server)?.get("/keys/?sorted=true")?.body, before.body);
    assert_eq!(V2::of(&server)?.step("GET /a%feb")?.status, 200);
    let Some(real) = retcd_conformance::real_etcd("3.4") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let options = retcd_conformance::ServerOptions { flags: vec!["--enable-v2".to_owned()] };
    let server = Server::start(&real.join("etcd"), folder.path(), options)?;
    let v2 = V2::of(&server)?;
    v2_support::await_index(&v2, "3")?;
    tell(&v2)
}

/// V2-183: what was acknowledged is there after a kill and after an ordered end, with indexes and
/// history.
#[test]
fn keys_survive() -> anyhow::Result<()> {
    let (mut server, _folder) = start(&["--snapshot-count", "10"])?;
    for number in 0..30 {
        let v2 = V2::of(&server)?;
        v2.step(&format!("PUT /k/{} value={number}", number % 7))?;
        if number % 5 == 0 {
            v2.step(&format!("PUT /t/{number} value=x&ttl=1000"))?;
        }
        if number % 10 == 9 {
            let before = v2.get("/keys/?recursive=true&sorted=true")?;
            let first = v2.get("/keys/k?recursive=true&wait=true&waitIndex=1")?;
            if number == 19 {
                server.stop()?;
            } else {
                server.kill()?;
            }
            server.restart(Path::new(OURS))?;
            let v2 = V2::of(&server)?;
            let after = v2.get("/keys/?recursive=true&sorted=true")?;
            assert_eq!(v2_support::without_ttl(&after.body), v2_support::without_ttl(&before.body));
            assert_eq!(after.header("x-etcd-index"), before.header("x-etcd-index"));
            let again = v2.get("/keys/k?recursive=true&wait=true&waitIndex=1")?;
            assert_eq!(again.body, first.body);
        }
    }
    Ok(())
}

/// V2-021, V2-046, V2-063, V2-064: what ends is gone soon after, and not before.
#[test]
fn keys_end() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let v2 = V2::of(&server)?;
    v2.step("PUT /d/a value=x")?;
    v2.step("PUT /d dir=true&prevExist=true&ttl=1")?;
    let set = v2.step("PUT /b value=x&ttl=1000")?;
    assert!(set.body.contains("\",\"ttl\":1000,"), "{}", set.body);
    let wait = v2.begin("/keys/d/a?wait=true&waitIndex=5")?;
    let expired = wait.finish()?;
    assert!(
        expired.body.starts_with("{\"action\":\"expire\",\"node\":{\"key\":\"/d\",\"dir\":true,")
    );
    assert_eq!(v2.get("/keys/d")?.status, 404);
    assert_eq!(v2.get("/keys/b")?.status, 200);
    assert!(
        !v2.step("PUT /b value=y")?.body.contains("\"node\":{\"key\":\"/b\",\"value\":\"y\",\"exp")
    );
    Ok(())
}

/// V2-070 to V2-082, V2-084, V2-117.
#[test]
fn watches_wait() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let v2 = V2::of(&server)?;
    let wait = v2.begin("/keys/w?wait=true")?;
    assert_eq!(wait.head().status, 200);
    assert_eq!(wait.head().header("x-etcd-index"), "3");
    let mut stream = v2.begin("/keys/?wait=true&recursive=true&stream=true")?;
    v2.step("PUT /w value=1")?;
    let set = "{\"action\":\"set\",\"node\":{\"key\":\"/w\",\"value\":\"1\",\"modifiedIndex\":4,\
               \"createdIndex\":4}}\n";
    assert_eq!(wait.finish()?.body, set);
    assert_eq!(stream.chunk()?, set);
    v2.step("DELETE /w")?;
    assert!(stream.chunk()?.starts_with("{\"action\":\"delete\""));
    let late = v2.get("/keys/w?wait=true&waitIndex=4")?;
    assert_eq!(late.body, set);
    for number in 0..1001 {
        v2.step(&format!("PUT /n value={number}"))?;
    }
    let cleared = v2.get("/keys/w?wait=true&waitIndex=5")?;
    assert_eq!(cleared.status, 400);
    assert_eq!(
        cleared.body,
        "{\"errorCode\":401,\"message\":\"The event in requested index is outdated and cleared\",\
         \"cause\":\"the requested history has been cleared [7/5]\",\"index\":1006}\n"
    );
    // V2-080: nobody reads the stream any more.
    drop(stream);
    eventually("nobody watches", || {
        v2.step("PUT /n value=x")?;
        Ok(v2.get("/stats/store")?.body.ends_with("\"watchers\":0}"))
    })
}

/// V2-122, V2-130 to V2-146.
#[test]
fn members_and_stats_are_as_in_etcd() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let v2 = V2::of(&server)?;
    let endpoint = server.endpoint();
    assert_eq!(v2.get("/machines")?.body, endpoint);
    let members = v2.get("/members")?;
    let list: serde_json::Value = serde_json::from_str(&members.body)?;
    let member = &list["members"][0];
    assert_eq!(member["clientURLs"][0], endpoint);
    let leader: serde_json::Value = serde_json::from_str(&v2.get("/members/leader")?.body)?;
    assert_eq!(&leader, member);
    assert!(members.body.ends_with("}\n"));
    let id = member["id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(v2.get(&format!("/members/{id}"))?.body, "{\"message\":\"Not found\"}");
    for (method, path, kind, body, status, expected) in [
        (
            "POST",
            "/members",
            FORM,
            "peerURLs=x",
            415,
            "{\"message\":\"Bad Content-Type application/x-www-form-urlencoded, accept application/json\"}",
        ),
        (
            "POST",
            "/members",
            "application/json",
            "{\"peerURLs\":[\"http://127.0.0.1\"]}",
            400,
            "{\"message\":\"URL address does not have the form \\\"host:port\\\": http://127.0.0.1\"}",
        ),
        ("DELETE", "/members/abc", "", "", 404, "{\"message\":\"No such member: abc\"}"),
        ("DELETE", "/members/xyz", "", "", 404, "{\"message\":\"No such member: xyz\"}"),
        ("DELETE", "/members", "", "", 405, "Method Not Allowed\n"),
        (
            "PUT",
            "/members/abc",
            "application/json",
            "{\"peerURLs\":[\"http://127.0.0.1:1\"]}",
            404,
            "{\"message\":\"No such member: abc\"}",
        ),
    ] {
        let answer = v2.ask(method, path, kind, body)?;
        assert_eq!((answer.status, answer.body.as_str()), (status, expected), "{method} {path}");
    }
    let own: serde_json::Value = serde_json::from_str(&v2.get("/stats/self")?.body)?;
    assert_eq!(own["state"], "StateLeader");
    assert_eq!(own["leaderInfo"]["leader"], id.as_str());
    assert_eq!(
        v2.get("/stats/leader")?.body,
        format!("{{\"leader\":\"{id}\",\"followers\":{{}}}}")
    );
    Ok(())
}

/// V2-181, V2-184, VER-01, SEEDX-02: two unrelated stores on one port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_generations_are_apart() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let v2 = V2::of(&server)?;
    v2.step("PUT /a value=two")?;
    let client = client::Client::connect(client::Options::new(vec![server.endpoint()])).await?;
    let read = async |key: &'static str| {
        let key = key.into();
        let request = proto::etcdserverpb::RangeRequest { key, ..Default::default() };
        client.get(request).await.map(|found| found.kvs)
    };
    for key in ["/a", "a", "/1/a"] {
        assert!(read(key).await?.is_empty(), "{key}");
    }
    let (key, value) = ("/a".into(), "three".into());
    client.put(proto::etcdserverpb::PutRequest { key, value, ..Default::default() }).await?;
    assert!(v2.get("/keys/a")?.body.contains("\"value\":\"two\""));
    v2.step("DELETE /a")?;
    assert_eq!(&read("/a").await?[0].value[..], b"three");
    // What clients use from here on.
    let members: serde_json::Value = serde_json::from_str(&v2.get("/members")?.body)?;
    assert_eq!(members["members"][0]["clientURLs"][0], server.endpoint());
    Ok(())
}

/// All of features 1.1 to 1.5: seeds from `V2_SEEDS` as `0..1000`, twenty of them else.
#[test]
fn random_calls_are_answered_as_by_etcd_3_4() -> anyhow::Result<()> {
    let Some(real) = retcd_conformance::real_etcd("3.4") else { return Ok(()) };
    let (ours, _ours) = start(&[])?;
    let folder = tempfile::tempdir()?;
    let options = retcd_conformance::ServerOptions { flags: vec!["--enable-v2".to_owned()] };
    let theirs = Server::start(&real.join("etcd"), folder.path(), options)?;
    let (ours, theirs) = (V2::of(&ours)?, V2::of(&theirs)?);
    v2_support::await_index(&ours, "3")?;
    v2_support::await_index(&theirs, "3")?;
    for seed in v2_support::seeds()? {
        v2_support::compare(&ours, &theirs, seed)?;
    }
    Ok(())
}

/// U5, V2-183: a directory goes from etcd to ours and back with its keys, their indexes and
/// history.
fn there_and_back(line: &str) -> anyhow::Result<()> {
    let Some(real) = retcd_conformance::real_etcd(line) else { return Ok(()) };
    let (theirs, ours) = (real.join("etcd"), Path::new(OURS));
    let folder = tempfile::tempdir()?;
    let flags = ["--enable-v2", "--snapshot-count", "20"].map(str::to_owned).into();
    let options = retcd_conformance::ServerOptions { flags };
    let mut server = Server::start(&theirs, folder.path(), options)?;
    for round in 0..4 {
        let program = if round % 2 == 0 { ours } else { &theirs };
        let v2 = V2::of(&server)?;
        for number in 0..33 {
            let ttl = if number % 3 == 0 { "&ttl=100000" } else { "" };
            v2.step(&format!("PUT /k/{}/{round} value={number}{ttl}", number % 7))?;
        }
        v2.step("DELETE /k/3?recursive=true")?;
        let ask = |v2: &V2| -> anyhow::Result<(String, String)> {
            let all = v2.get("/keys/?recursive=true&sorted=true")?;
            let first = v2.get("/keys/k?recursive=true&wait=true&waitIndex=5")?;
            Ok((v2_support::without_ttl(&all.body), v2_support::without_ttl(&first.body)))
        };
        let before = ask(&v2)?;
        server.stop()?;
        server.restart(program)?;
        assert_eq!(ask(&V2::of(&server)?)?, before, "{line}, round {round}");
    }
    Ok(())
}

#[test]
fn a_directory_of_3_4_comes_and_goes() -> anyhow::Result<()> {
    there_and_back("3.4")
}

#[test]
fn a_directory_of_3_5_comes_and_goes() -> anyhow::Result<()> {
    there_and_back("3.5")
}
