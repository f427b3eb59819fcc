//! Watches: joined, apart, behind, and without a member for a while.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::watch_request::RequestUnion;
use retcd_conformance::{Server, ServerOptions, ask};

use super::{OURS, Proxy, Raw, connect, create, eventually, number, put, serve, text, upstreams};

/// SRV-179, SRV-181: a hundred watches of a key are one at the member, and each sees everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watches_are_one() -> anyhow::Result<()> {
    for program in upstreams() {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions::default())?;
        let proxy = Proxy::start(folder.path(), &server, &[])?;
        let direct = connect(&server.endpoint()).await?;
        direct.put(put("k", "old")).await?;
        let mut raw = Raw::open(&proxy).await?;
        let (count, last) = (100_i64, 21_i64);
        for number in 0..count {
            let old = number % 10 == 0;
            let start_revision = if old { 2 } else { 0 };
            raw.create(pb::WatchCreateRequest { start_revision, ..create("k") }).await?;
        }
        let (mut created, mut seen) = (0, vec![Vec::new(); 100]);
        let mut written = false;
        while created < count || seen.iter().any(|seen: &Vec<i64>| seen.last() != Some(&last)) {
            let response = raw.next().await?;
            ensure!(!response.canceled, "{response:?}");
            created += i64::from(response.created);
            let of = &mut seen[usize::try_from(response.watch_id)?];
            of.extend(response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
            if created == count && !std::mem::replace(&mut written, true) {
                for _ in 3..=last {
                    direct.put(put("k", "new")).await?;
                }
            }
        }
        for (number, seen) in seen.iter().enumerate() {
            let first = if number % 10 == 0 { 2 } else { 3 };
            assert_eq!(*seen, (first..=last).collect::<Vec<_>>(), "watch {number}");
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.client_port()));
        eventually(async || {
            let metrics = ask(address, "GET", "/metrics", "")?.body;
            Ok(number(&metrics, "etcd_debugging_mvcc_watcher_total")? == 1.0)
        })
        .await?;
        assert_eq!(proxy.number("etcd_grpc_proxy_watchers_coalescing_total")?, 99.0);
        assert!(proxy.number("etcd_grpc_proxy_events_coalescing_total")? >= 99.0);
        drop(raw);
        eventually(async || {
            let metrics = ask(address, "GET", "/metrics", "")?.body;
            Ok(number(&metrics, "etcd_debugging_mvcc_watcher_total")? == 0.0)
        })
        .await?;
        assert_eq!(proxy.number("etcd_grpc_proxy_watchers_coalescing_total")?, 0.0);
    }
    Ok(())
}

/// SRV-179: what one watch asks for is not what another one gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_get_what_they_ask_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let client = proxy.client().await?;
    client.put(put("k", "1")).await?;
    let mut raw = Raw::open(&proxy).await?;
    let mut ids = Vec::new();
    for wanted in [
        pb::WatchCreateRequest { prev_kv: true, ..create("k") },
        pb::WatchCreateRequest { filters: vec![0], ..create("k") },
        pb::WatchCreateRequest { watch_id: 77, ..create("k") },
    ] {
        raw.create(wanted).await?;
        let response = raw.next().await?;
        assert!(response.created && response.header.unwrap().revision == 2, "{response:?}");
        ids.push(response.watch_id);
    }
    assert_eq!(ids, [0, 1, 77]);
    client.put(put("k", "2")).await?;
    client.delete(pb::DeleteRangeRequest { key: "k".into(), ..Default::default() }).await?;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let response = raw.next().await?;
        for event in response.events {
            let before = event.prev_kv.map(|pair| text(&pair.value));
            let revision = event.kv.unwrap().mod_revision;
            seen.push((response.watch_id, revision, before));
        }
    }
    seen.sort();
    let before = |value: &str| Some(value.to_owned());
    let expected =
        [(0, 3, before("1")), (0, 4, before("2")), (1, 4, None), (77, 3, None), (77, 4, None)];
    assert_eq!(seen, expected);
    // Progress, the end, and what cannot be watched.
    raw.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await?;
    let response = raw.next().await?;
    assert_eq!((response.watch_id, response.header.unwrap().revision), (-1, 4));
    raw.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 })).await?;
    let response = raw.next().await?;
    assert!(response.canceled && response.watch_id == 1, "{response:?}");
    client.compact(pb::CompactionRequest { revision: 4, physical: true }).await?;
    raw.create(pb::WatchCreateRequest { start_revision: 2, ..create("k") }).await?;
    // It may be told that it exists before.
    let mut response = raw.next().await?;
    if !response.canceled {
        response = raw.next().await?;
    }
    assert!(response.canceled && response.compact_revision == 4, "{response:?}");
    raw.create(pb::WatchCreateRequest { range_end: "a".into(), ..create("k") }).await?;
    let response = raw.next().await?;
    assert!(response.created && response.canceled && response.watch_id == -1, "{response:?}");
    Ok(())
}

/// SRV-179: a watch goes on, and misses nothing, when the member comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_be_away() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let client = proxy.client().await?;
    let mut raw = Raw::open(&proxy).await?;
    raw.create(create("k")).await?;
    assert!(raw.next().await?.created);
    client.put(put("k", "1")).await?;
    assert_eq!(raw.next().await?.events.len(), 1);
    server.kill()?;
    let once = client.with_command_timeout(Some(Duration::from_secs(2)));
    let error = once.put(put("k", "lost")).await.unwrap_err().to_string();
    // Nobody is there, or nobody any more.
    let expected = ["connection refused", "deadline", "error reading from server"];
    assert!(expected.iter().any(|text| error.contains(text)), "{error}");
    let health = ask(proxy.address(), "GET", "/health", "")?;
    assert_eq!(health.status, 503);
    assert!(health.body.starts_with("{\"health\":\"false\",\"reason\":\"GET ERROR:"), "{health:?}");
    server.restart(Path::new(OURS))?;
    let direct = connect(&server.endpoint()).await?;
    direct.put(put("k", "2")).await?;
    let response = raw.next().await?;
    assert_eq!(text(&response.events[0].kv.as_ref().unwrap().value), "2");
    client.put(put("k", "3")).await?;
    assert_eq!(text(&raw.next().await?.events[0].kv.as_ref().unwrap().value), "3");
    let health = ask(proxy.address(), "GET", "/health", "")?;
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"health":"true","reason":""}"#));
    Ok(())
}

/// Bounded memory: who does not read is behind and holds nobody up; it misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_nobody_up() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let mut idle = Raw::open(&proxy).await?;
    idle.create(create("k")).await?;
    assert!(idle.next().await?.created);
    let mut quick = Raw::open(&proxy).await?;
    quick.create(create("k")).await?;
    assert!(quick.next().await?.created);
    let client = proxy.client().await?;
    let (value, count) = ("x".repeat(64 << 10), 600);
    for _ in 0..count {
        client.put(put("k", &value)).await?;
        assert_eq!(quick.next().await?.events.len(), 1);
    }
    let mut next = 2;
    while next < 2 + count {
        for event in idle.next().await?.events {
            assert_eq!(event.kv.unwrap().mod_revision, next);
            next += 1;
        }
    }
    Ok(())
}
