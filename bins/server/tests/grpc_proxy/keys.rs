//! What stands between clients and keys: a namespace, a memory, ownership.

use anyhow::bail;
use client::{Client, WatchOptions};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request as Operation;

use super::{Proxy, connect, events, eventually, get, put, serve, text, watch};

/// SRV-179: a part of the keys as if it were all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_all_that_clients_see() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &["--namespace", "app/"])?;
    let (client, direct) = (proxy.client().await?, connect(&server.endpoint()).await?);
    direct.put(put("zzz", "not mine")).await?;
    direct.put(put("aaa", "not mine")).await?;
    let mut watcher = client.watch(WatchOptions { range_end: "\0".into(), ..watch("\0", 4) });
    client.put(put("k", "1")).await?;
    assert_eq!(events(&mut watcher, 1).await?, ["k=1@4"]);
    let all = client.get(pb::RangeRequest { range_end: "\0".into(), ..get("\0") }).await?;
    assert_eq!(all.kvs.iter().map(|pair| text(&pair.key)).collect::<Vec<_>>(), ["k"]);
    assert_eq!(direct.get(get("app/k")).await?.count, 1);
    let compare = pb::Compare {
        key: "k".into(),
        target: pb::compare::CompareTarget::Version.into(),
        result: pb::compare::CompareResult::Equal.into(),
        target_union: Some(pb::compare::TargetUnion::Version(1)),
        ..Default::default()
    };
    let delete = pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: true };
    let delete = pb::RequestOp { request: Some(Operation::RequestDeleteRange(delete)) };
    let txn =
        pb::TxnRequest { compare: vec![compare], success: vec![delete], ..Default::default() };
    let done = client.txn(txn).await?;
    let Some(pb::response_op::Response::ResponseDeleteRange(deleted)) = &done.responses[0].response
    else {
        bail!("{done:?}");
    };
    assert_eq!(deleted.prev_kvs[0].key, "k");
    assert_eq!(direct.get(get("zzz")).await?.count + direct.get(get("aaa")).await?.count, 2);
    Ok(())
}

/// SRV-179, SRV-181: reads that may be old come from memory until something is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_answers_are_kept_until_a_write() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    let (client, direct) = (proxy.client().await?, connect(&server.endpoint()).await?);
    client.put(put("k", "1")).await?;
    let old = || pb::RangeRequest { serializable: true, ..get("k") };
    let value = async |client: &Client| anyhow::Ok(text(&client.get(old()).await?.kvs[0].value));
    assert_eq!(value(&client).await?, "1");
    // By another way: the proxy does not hear of it.
    direct.put(put("k", "2")).await?;
    assert_eq!(value(&client).await?, "1");
    assert_eq!(proxy.number("etcd_grpc_proxy_cache_hits_total")?, 1.0);
    assert_eq!(proxy.number("etcd_grpc_proxy_cache_misses_total")?, 1.0);
    assert_eq!(text(&client.get(get("k")).await?.kvs[0].value), "2");
    client.put(put("k", "3")).await?;
    assert_eq!(value(&client).await?, "3");
    assert_eq!(proxy.number("etcd_grpc_proxy_cache_keys_total")?, 1.0);
    Ok(())
}

/// SRV-179: two proxies that own keys; nobody reads what was overwritten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owned_keys_are_given_up_for_a_write() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let flags = ["--experimental-leasing-prefix", "leased/"];
    let one = Proxy::start(folder.path(), &server, &flags)?;
    let two = Proxy::start(folder.path(), &server, &flags)?;
    let (one, two) = (one.client().await?, two.client().await?);
    let direct = connect(&server.endpoint()).await?;
    one.put(put("k", "0")).await?;
    // It owns the key as soon as it has a session.
    eventually(async || {
        one.get(get("k")).await?;
        Ok(direct.get(get("leased/k")).await?.count == 1)
    })
    .await?;
    // Past the owners: this is what they must not be asked for.
    direct.put(put("k", "unseen")).await?;
    assert_eq!(text(&one.get(get("k")).await?.kvs[0].value), "0");
    for number in 1..20 {
        let value = number.to_string();
        let (writer, reader) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
        writer.put(put("k", &value)).await?;
        assert_eq!(text(&reader.get(get("k")).await?.kvs[0].value), value);
        assert_eq!(text(&writer.get(get("k")).await?.kvs[0].value), value);
    }
    let all =
        pb::DeleteRangeRequest { key: "a".into(), range_end: "l".into(), ..Default::default() };
    assert_eq!(one.delete(all).await?.deleted, 1);
    assert_eq!(two.get(get("k")).await?.count, 0);
    let then = pb::RequestOp { request: Some(Operation::RequestPut(put("k", "last"))) };
    let txn = pb::TxnRequest { success: vec![then], ..Default::default() };
    assert!(two.txn(txn).await?.succeeded);
    assert_eq!(text(&one.get(get("k")).await?.kvs[0].value), "last");
    Ok(())
}
