//! The gateway with users: where a token may be, and what is answered to who has none, a wrong one,
//! an old one, or too few rights; beside real etcd where there is one.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use retcd_conformance::cluster::PATIENCE;
use retcd_conformance::http::{HttpAnswer, HttpOpen, HttpQuestion};
use retcd_conformance::{Server, real_etcd};
use serde_json::Value;

use super::{OURS, blank};

/// Names and values.
type Headers<'h> = &'h [(&'h str, &'h str)];

fn question(
    address: SocketAddr,
    path: &str,
    headers: Headers<'_>,
    body: &str,
) -> anyhow::Result<HttpOpen> {
    HttpOpen::question(address, &HttpQuestion { method: "POST", path, headers, body })
}

fn post(address: SocketAddr, path: &str, token: &str, body: &str) -> anyhow::Result<HttpAnswer> {
    let header = [("Authorization", token)];
    let headers = if token.is_empty() { &[] } else { &header[..] };
    question(address, path, headers, body)?.finish()
}

fn token(address: SocketAddr, name: &str) -> anyhow::Result<String> {
    let body = format!(r#"{{"name":"{name}","password":"{name}"}}"#);
    let answer = post(address, "/v3/auth/authenticate", "", &body)?;
    let answer: Value = serde_json::from_str(&answer.body)?;
    Ok(answer["token"].as_str().with_context(|| answer.to_string())?.to_owned())
}

/// `root`, and `ann` who may read `foo`; lease 77 has a key that she may not write.
fn enable(address: SocketAddr) -> anyhow::Result<()> {
    for (path, body) in [
        ("kv/put", r#"{"key":"Zm9v","value":"dg=="}"#),
        ("lease/grant", r#"{"ID":"77","TTL":"1000"}"#),
        ("kv/put", r#"{"key":"c2VjcmV0","value":"dg==","lease":"77"}"#),
        ("auth/user/add", r#"{"name":"root","password":"root"}"#),
        ("auth/role/add", r#"{"name":"root"}"#),
        ("auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("auth/user/add", r#"{"name":"ann","password":"ann"}"#),
        ("auth/user/add", r#"{"name":"bare","options":{"no_password":true}}"#),
        ("auth/role/add", r#"{"name":"reader"}"#),
        ("auth/user/grant", r#"{"user":"ann","role":"reader"}"#),
        ("auth/role/grant", r#"{"name":"reader","perm":{"permType":"READ","key":"Zm9v"}}"#),
        ("auth/enable", "{}"),
    ] {
        let answer = post(address, &format!("/v3/{path}"), "", body)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
    }
    Ok(())
}

/// Ours, and real etcd where there is one, with users.
fn servers(flags: &[&str]) -> anyhow::Result<Vec<(Server, tempfile::TempDir)>> {
    let mut servers = vec![Server::fresh(Path::new(OURS), flags)?];
    if let Some(real) = real_etcd("3.7") {
        servers.push(Server::fresh(&real.join("etcd"), flags)?);
    }
    for (server, _folder) in &servers {
        enable(server.address())?;
    }
    Ok(servers)
}

/// What an answer says, without what is only of one cluster.
fn said(mut answer: HttpAnswer) -> anyhow::Result<(HttpAnswer, Vec<Value>)> {
    answer.headers.retain(|name, _| name != "date" && name != "content-length");
    answer.body = answer.body.replace('\u{a0}', " ");
    let values = serde_json::Deserializer::from_str(&answer.body).into_iter();
    let mut values =
        values.collect::<Result<Vec<Value>, _>>().with_context(|| answer.body.clone())?;
    for value in &mut values {
        blank(value);
        for own in ["dbSize", "dbSizeInUse", "raftIndex", "raftAppliedIndex", "leader", "hash"] {
            if let Some(fields) = value.as_object_mut() {
                fields.remove(own);
            }
        }
    }
    answer.body.clear();
    Ok((answer, values))
}

const NOBODY: &str = "etcdserver: user name is empty";
const INVALID: &str = "etcdserver: invalid auth token";
const DENIED: &str = "etcdserver: permission denied";
const FAILED: &str = "etcdserver: authentication failed, invalid user ID or password";

fn message(answer: &HttpAnswer) -> anyhow::Result<String> {
    let body: Value = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
    Ok(body["message"].as_str().unwrap_or_default().to_owned())
}

/// GW-23: the header and metadata of that name; of two the first; `Bearer` as it is written here.
#[test]
fn a_token_counts_where_etcd_looks_for_it() -> anyhow::Result<()> {
    for (server, _folder) in servers(&[])? {
        let address = server.address();
        let token = token(address, "ann")?;
        let bearer = format!("Bearer {token}");
        let lower = format!("bearer {token}");
        let (name, _index) = token.split_once('.').context("a token has an index")?;
        let (token, cookie) = (token.as_str(), format!("token={token}"));
        let cases: &[(Headers<'_>, u16, &str)] = &[
            (&[("Authorization", token)], 200, ""),
            (&[("authorization", token)], 200, ""),
            (&[("AUTHORIZATION", token)], 200, ""),
            (&[("Authorization", &bearer)], 200, ""),
            (&[("Authorization", &lower)], 401, INVALID),
            (&[("Authorization", "Basic YW5uOmFubg==")], 401, INVALID),
            (&[("Authorization", "wrong")], 401, INVALID),
            (&[("Authorization", name)], 401, INVALID),
            (&[("Authorization", "")], 401, INVALID),
            (&[("Authorization", token), ("Authorization", "wrong")], 200, ""),
            (&[("Authorization", "wrong"), ("Authorization", token)], 401, INVALID),
            (&[("Grpc-Metadata-Authorization", token)], 200, ""),
            (&[("Grpc-Metadata-Token", token)], 200, ""),
            (&[("Grpc-Metadata-Token", token), ("Authorization", "wrong")], 200, ""),
            (&[("Grpc-Metadata-Token", "wrong"), ("Authorization", token)], 401, INVALID),
            (&[("Token", token)], 400, NOBODY),
            (&[("Cookie", &cookie)], 400, NOBODY),
            (&[], 400, NOBODY),
        ];
        for (headers, status, text) in cases {
            let path = "/v3/kv/range";
            let answer = question(address, path, headers, r#"{"key":"Zm9v"}"#)?.finish()?;
            assert_eq!(
                (answer.status, message(&answer)?.as_str()),
                (*status, *text),
                "{headers:?}"
            );
            let challenge = if *status == 401 { INVALID } else { "" };
            assert_eq!(answer.header("www-authenticate"), challenge, "{headers:?}");
        }
    }
    Ok(())
}

/// GW-07, GW-18, GW-19: who says who he is.
#[test]
fn names_and_passwords_are_answered_as_by_etcd() -> anyhow::Result<()> {
    const BARE: &str = "auth: authentication failed, password was given for no password user";
    let not_json = "invalid character 'x' looking for beginning of value";
    for (server, _folder) in servers(&[])? {
        for (body, status, text) in [
            (r#"{"name":"ann","password":"ann"}"#, 200, ""),
            (r#"{"name":"ann","password":"x"}"#, 400, FAILED),
            (r#"{"name":"nobody","password":"x"}"#, 400, FAILED),
            (r#"{"name":"ann"}"#, 400, FAILED),
            ("{}", 400, FAILED),
            (r#"{"name":"bare","password":""}"#, 500, BARE),
            ("xyz", 400, not_json),
        ] {
            let answer = post(server.address(), "/v3/auth/authenticate", "", body)?;
            assert_eq!((answer.status, message(&answer)?.as_str()), (status, text), "{body}");
        }
    }
    Ok(())
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Nobody,
    Wrong,
    Ann,
    Root,
}

/// Calls that are answered at once, whoever asks, and change nothing that others see.
const CALLS: &[(&str, &str)] = &[
    ("kv/range", r#"{"key":"Zm9v"}"#),
    ("kv/range", r#"{"key":"c2VjcmV0"}"#),
    ("kv/range", "{}"),
    ("kv/put", r#"{"key":"YQ=="}"#),
    ("kv/put", "{}"),
    ("kv/deleterange", r#"{"key":"bm9uZQ=="}"#),
    ("kv/txn", r#"{"success":[{"requestPut":{"key":"YQ=="}}]}"#),
    ("kv/txn", r#"{"success":[{"requestRange":{"key":"Zm9v"}}]}"#),
    ("kv/compaction", r#"{"revision":"1000"}"#),
    ("lease/grant", r#"{"TTL":"100","ID":"78"}"#),
    ("lease/revoke", r#"{"ID":"999"}"#),
    ("lease/timetolive", r#"{"ID":"999","keys":true}"#),
    ("lease/timetolive", r#"{"ID":"999"}"#),
    ("lease/keepalive", r#"{"ID":"77"}"#),
    ("lease/keepalive", r#"{"ID":"77"}{"ID":"999"}"#),
    ("cluster/member/list", "{}"),
    ("cluster/member/promote", r#"{"ID":"1"}"#),
    ("maintenance/alarm", r#"{"action":"GET"}"#),
    ("maintenance/status", "{}"),
    ("maintenance/defragment", "{}"),
    ("maintenance/hash", "{}"),
    ("maintenance/hashkv", "{}"),
    ("maintenance/transfer-leadership", r#"{"targetID":"1"}"#),
    ("auth/status", "{}"),
    ("auth/enable", "{}"),
    ("auth/user/list", "{}"),
    ("auth/user/get", r#"{"name":"ann"}"#),
    ("auth/user/get", r#"{"name":"root"}"#),
    ("auth/user/get", r#"{"name":"none"}"#),
    ("auth/user/add", r#"{"name":"ann","password":"x"}"#),
    ("auth/user/delete", r#"{"name":"none"}"#),
    ("auth/user/changepw", r#"{"name":"none","password":"a"}"#),
    ("auth/user/grant", r#"{"user":"ann","role":"none"}"#),
    ("auth/user/revoke", r#"{"name":"ann","role":"none"}"#),
    ("auth/role/list", "{}"),
    ("auth/role/get", r#"{"role":"reader"}"#),
    ("auth/role/get", r#"{"role":"root"}"#),
    ("auth/role/add", r#"{"name":"reader"}"#),
    ("auth/role/delete", r#"{"role":"none"}"#),
    ("auth/role/grant", r#"{"name":"none","perm":{"permType":"WRITE","key":"eg=="}}"#),
    ("auth/role/revoke", r#"{"role":"none","key":"eg=="}"#),
    ("lock/unlock", r#"{"key":"bA=="}"#),
    ("election/leader", r#"{"name":"bA=="}"#),
    (
        "election/proclaim",
        r#"{"leader":{"name":"bA==","key":"bA==","rev":"1","lease":"77"},"value":"eA=="}"#,
    ),
];

/// Calls that may not be made without rights; the others wait, or have no end.
const REFUSED: &[(&str, &str)] = &[
    ("lease/revoke", r#"{"ID":"77"}"#),
    ("lease/timetolive", r#"{"ID":"77","keys":true}"#),
    ("maintenance/snapshot", "{}"),
    ("auth/disable", "{}"),
    ("lock/lock", r#"{"name":"bA=="}"#),
    ("election/campaign", r#"{"name":"bA==","value":"eA=="}"#),
    ("election/observe", r#"{"name":"bA=="}"#),
];

/// GW-04 to GW-10, GW-16, GW-18, GW-19, GW-23: every call, by nobody, with a wrong token, with few
/// rights and with all.
#[test]
fn rights_are_answered_as_by_etcd() -> anyhow::Result<()> {
    let servers = servers(&[])?;
    let addresses: Vec<_> = servers.iter().map(|(server, _folder)| server.address()).collect();
    for who in [Who::Nobody, Who::Wrong, Who::Ann, Who::Root] {
        let token = |address| match who {
            Who::Nobody => Ok(String::new()),
            Who::Wrong => Ok("wrong".to_owned()),
            Who::Ann => token(address, "ann"),
            Who::Root => token(address, "root"),
        };
        let tokens = addresses.iter().copied().map(token).collect::<Result<Vec<_>, _>>()?;
        let refused = if who == Who::Root { &[] } else { REFUSED };
        for (path, body) in CALLS.iter().chain(refused) {
            let ask = |(address, token): (&SocketAddr, &String)| {
                said(post(*address, &format!("/v3/{path}"), token, body)?)
            };
            let answers = addresses.iter().zip(&tokens).map(ask);
            let answers = answers
                .collect::<anyhow::Result<Vec<_>>>()
                .with_context(|| format!("{who:?} {path} {body}"))?;
            assert!(
                answers.iter().all(|answer| *answer == answers[0]),
                "{who:?} {path} {body}: {answers:#?}"
            );
        }
    }
    Ok(())
}

/// The lines of the answer to two watches: of `secret`, then of `foo`.
fn watches(address: SocketAddr, token: &str) -> anyhow::Result<(u16, Vec<Value>)> {
    let header = [("Authorization", token)];
    let headers = if token.is_empty() { &[] } else { &header[..] };
    let body = r#"{"create_request":{"key":"c2VjcmV0"}}{"create_request":{"key":"Zm9v"}}"#;
    let mut open = question(address, "/v3/watch", headers, body)?;
    let mut lines = Vec::new();
    while lines.len() < 2 {
        lines.push(serde_json::from_str(&open.chunk()?)?);
    }
    Ok((open.head().status, lines))
}

/// W-14, GW-16, GW-23: what may not be watched is refused in the stream, which goes on.
#[test]
fn a_watch_without_rights_is_refused_in_the_stream() -> anyhow::Result<()> {
    for (server, _folder) in servers(&[])? {
        let address = server.address();
        let (ann, root) = (token(address, "ann")?, token(address, "root")?);
        for (token, refusals) in [
            ("", [Some(("InvalidArgument", NOBODY)); 2]),
            ("wrong", [Some(("Unauthenticated", INVALID)); 2]),
            (&ann, [Some(("PermissionDenied", DENIED)), None]),
            (&root, [None, None]),
        ] {
            let (status, lines) = watches(address, token)?;
            assert_eq!(status, 200);
            for (line, refusal) in lines.iter().zip(refusals) {
                let result = &line["result"];
                assert_eq!(result["created"], Value::from(true), "{line}");
                let reason = refusal.map(|(code, text)| {
                    Value::from(format!("rpc error: code = {code} desc = {text}"))
                });
                assert_eq!(result.get("cancel_reason"), reason.as_ref(), "{token}: {line}");
                assert_eq!(result.get("canceled").is_some(), refusal.is_some(), "{line}");
            }
        }
    }
    Ok(())
}

/// GW-23, W-16: a token that nobody used for its time is refused, but a watch that was made with it
/// goes on.
#[test]
fn a_watch_outlives_its_token() -> anyhow::Result<()> {
    for (server, _folder) in servers(&["--auth-token-ttl=2"])? {
        let address = server.address();
        let body = r#"{"create_request":{"key":"Zm9v"}}"#;
        // On a slow machine a token may be too old before it is used.
        let began = Instant::now();
        let (ann, mut watch) = loop {
            ensure!(began.elapsed() < PATIENCE, "no token lives long enough");
            let ann = token(address, "ann")?;
            let mut watch = question(address, "/v3/watch", &[("Authorization", &ann)], body)?;
            if !watch.chunk()?.contains("\"canceled\"") {
                break (ann, watch);
            }
        };
        let header = [("Authorization", ann.as_str())];
        // Every use of it lets it live on.
        let range = || post(address, "/v3/kv/range", &ann, r#"{"key":"Zm9v"}"#);
        let mut answer = range()?;
        for _ in 0..20 {
            if answer.status != 200 {
                break;
            }
            std::thread::sleep(Duration::from_secs(6));
            answer = range()?;
        }
        assert_eq!((answer.status, message(&answer)?.as_str()), (401, INVALID));
        let again = question(address, "/v3/watch", &header, body)?.chunk()?;
        assert!(again.contains(&format!("code = Unauthenticated desc = {INVALID}")), "{again}");
        let lease = post(address, "/v3/lease/keepalive", &ann, r#"{"ID":"77"}"#)?;
        let told = format!(r#""message":"{INVALID}""#);
        assert_eq!(lease.status, 401, "{lease:?}");
        assert!(lease.body.replace("\": \"", "\":\"").contains(&told), "{lease:?}");

        let put = r#"{"key":"Zm9v","value":"bGF0ZQ=="}"#;
        let began = Instant::now();
        while post(address, "/v3/kv/put", &token(address, "root")?, put)?.status != 200 {
            ensure!(began.elapsed() < PATIENCE, "no token lives long enough");
        }
        let event = watch.chunk()?;
        assert!(event.contains("\"value\":\"bGF0ZQ==\""), "{event}");
    }
    Ok(())
}
