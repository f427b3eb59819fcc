//! The operations of the crate `etcd-client` with the server at the address given.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, ConnectOptions,
    DeleteOptions, Error, EventType, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions,
    LockOptions, MemberAddOptions, Permission, ProclaimOptions, PutOptions, ResignOptions,
    SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions, WatchStream,
};

type Done = Result<(), Error>;

/// How long all of it may take.
const EVENTUALLY: Duration = Duration::from_secs(180);

/// The call is refused with a status that says so.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>, text: &str) {
    match answer {
        Err(error) => assert!(error.to_string().contains(text), "{error:?}"),
        Ok(answer) => panic!("it is not refused: {answer:?}"),
    }
}

async fn keys(client: &mut Client) -> Done {
    let first = client.put("rs/a", "1", None).await?;
    let revision = first.header().expect("a header").revision();
    let second = client.put("rs/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(second.prev_key().expect("one before").value(), b"1");
    let read = client.get("rs/a", None).await?;
    let kept = &read.kvs()[0];
    assert_eq!((kept.key(), kept.value(), kept.version()), (&b"rs/a"[..], &b"2"[..], 2));
    assert_eq!((kept.create_revision(), kept.mod_revision()), (revision, revision + 1));
    let old = client.get("rs/a", Some(GetOptions::new().with_revision(revision))).await?;
    assert_eq!(old.kvs()[0].value(), b"1");
    client.put("rs/b", "3", None).await?;
    client.put("rs/c", "0", None).await?;
    let down = GetOptions::new().with_prefix().with_sort(SortTarget::Value, SortOrder::Descend);
    let read = client.get("rs/", Some(down)).await?;
    let found: Vec<_> = read.kvs().iter().map(|kept| kept.key_str().unwrap().to_owned()).collect();
    assert_eq!(found, ["rs/b", "rs/a", "rs/c"]);
    let page = GetOptions::new().with_prefix().with_limit(2).with_keys_only();
    let read = client.get("rs/", Some(page)).await?;
    assert!(read.more() && read.count() == 3 && read.kvs()[0].value().is_empty());
    let all = GetOptions::new().with_all_keys().with_count_only().with_serializable();
    assert_eq!(client.get("", Some(all)).await?.count(), 3);
    let removal = DeleteOptions::new().with_prefix().with_prev_key();
    let removed = client.delete("rs/", Some(removal)).await?;
    assert_eq!((removed.deleted(), removed.prev_kvs().len()), (3, 3));
    refused(client.put("", "x", None).await, "etcdserver: key is not provided");
    Ok(())
}

async fn transactions(client: &mut Client) -> Done {
    let inner = Txn::new()
        .when([Compare::create_revision("tx/b", CompareOp::Greater, 0)])
        .and_then([TxnOp::delete("tx/c", None)])
        .or_else([TxnOp::put("tx/b", "2", None)]);
    let txn = Txn::new()
        .when([Compare::version("tx/a", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("tx/a", "1", None), TxnOp::get("tx/a", None), TxnOp::txn(inner)]);
    let done = client.txn(txn).await?;
    assert!(done.succeeded());
    match &done.op_responses()[..] {
        [TxnOpResponse::Put(_), TxnOpResponse::Get(read), TxnOpResponse::Txn(inner)] => {
            assert_eq!(read.kvs()[0].value(), b"1");
            assert!(!inner.succeeded());
        }
        other => panic!("{other:?}"),
    }
    let all = Compare::value("tx/", CompareOp::NotEqual, "3").with_prefix();
    let removal = TxnOp::delete("tx/", Some(DeleteOptions::new().with_prefix()));
    let done = client.txn(Txn::new().when([all]).and_then([removal])).await?;
    assert!(done.succeeded());
    let twice = [TxnOp::put("tx/a", "1", None), TxnOp::put("tx/a", "2", None)];
    refused(client.txn(Txn::new().and_then(twice)).await, "duplicate key given in txn request");
    Ok(())
}

async fn leases(client: &mut Client) -> Done {
    let lease = client.lease_grant(1000, Some(LeaseGrantOptions::new().with_id(99))).await?;
    assert_eq!((lease.id(), lease.ttl()), (99, 1000));
    client.put("lease/a", "x", Some(PutOptions::new().with_lease(99))).await?;
    let with_keys = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(99, Some(with_keys)).await?;
    assert_eq!((left.granted_ttl(), left.keys()), (1000, &[b"lease/a".to_vec()][..]));
    assert!(client.leases().await?.leases().iter().any(|lease| lease.id() == 99));
    let (mut keeper, mut answers) = client.lease_keep_alive(99).await?;
    for _ in 0..3 {
        keeper.keep_alive().await?;
        assert_eq!(answers.message().await?.expect("an answer").ttl(), 1000);
    }
    client.lease_revoke(99).await?;
    assert_eq!(client.get("lease/a", None).await?.count(), 0);
    refused(client.lease_revoke(99).await, "requested lease not found");
    refused(client.lease_keep_alive(99).await.map(|_| ()), "");
    let short = client.lease_grant(1, None).await?.id();
    client.put("lease/b", "x", Some(PutOptions::new().with_lease(short))).await?;
    while client.get("lease/b", None).await?.count() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// That many events of a watch, by its id.
async fn told(stream: &mut WatchStream, count: usize) -> Result<BTreeMap<i64, Vec<String>>, Error> {
    let mut seen: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    while seen.values().map(Vec::len).sum::<usize>() < count {
        let answer = stream.message().await?.expect("the stream goes on");
        assert!(!answer.canceled(), "{answer:?}");
        for event in answer.events() {
            let kept = event.kv().expect("an event has a key");
            let (key, value) = (kept.key_str()?, kept.value_str()?);
            let text = match (event.event_type(), event.prev_kv()) {
                (EventType::Delete, Some(before)) => format!("-{key} was {}", before.value_str()?),
                (EventType::Delete, None) => format!("-{key}"),
                (EventType::Put, _) => format!("{key}={value}"),
            };
            seen.entry(answer.watch_id()).or_default().push(text);
        }
    }
    Ok(seen)
}

async fn watches(client: &mut Client) -> Done {
    let start = client.put("w/a", "1", None).await?.header().expect("a header").revision();
    client.put("w/b", "2", None).await?;
    client.delete("w/a", None).await?;
    let options = || WatchOptions::new().with_prefix().with_start_revision(start);
    let mut stream = client.watch("w/", Some(options().with_watch_id(7).with_prev_key())).await?;
    assert_eq!(told(&mut stream, 3).await?[&7], ["w/a=1", "w/b=2", "-w/a was 1"]);
    // A second one on the same stream.
    let removals = options().with_watch_id(8).with_filters([WatchFilterType::NoPut]);
    stream.watch("w/", Some(removals)).await?;
    assert_eq!(told(&mut stream, 1).await?[&8], ["-w/a"]);
    stream.cancel(8).await?;
    while !stream.message().await?.expect("the stream goes on").canceled() {}
    client.put("w/c", "3", None).await?;
    assert_eq!(told(&mut stream, 1).await?[&7], ["w/c=3"]);
    stream.request_progress().await?;
    let progress = stream.message().await?.expect("the stream goes on");
    assert_eq!((progress.watch_id(), progress.events().len()), (-1, 0));
    assert!(progress.header().expect("a header").revision() >= start + 3);
    stream.watch("w/", Some(options().with_watch_id(7))).await?;
    let twice = stream.message().await?.expect("the stream goes on");
    assert!(twice.canceled() && twice.cancel_reason().contains("duplicate watch ID"), "{twice:?}");
    Ok(())
}

async fn locks_and_elections(client: &mut Client) -> Done {
    let (one, two) = (client.lease_grant(60, None).await?.id(), client.lease_grant(60, None).await?);
    let held = client.lock("lock", Some(LockOptions::new().with_lease(one))).await?;
    let mut rival = client.clone();
    let with_lease = LockOptions::new().with_lease(two.id());
    let waiting = tokio::spawn(async move { rival.lock("lock", Some(with_lease)).await });
    while client.get("lock/", Some(GetOptions::new().with_prefix())).await?.count() < 2 {}
    client.unlock(held.key()).await?;
    let next = waiting.await.expect("a task ends")?;
    assert_ne!(next.key(), held.key());
    client.unlock(next.key()).await?;

    refused(client.leader("mayor").await, "election: no leader");
    let won = client.campaign("mayor", "one", one).await?;
    let leader = won.leader().expect("a leader").clone();
    assert_eq!((leader.name(), leader.lease()), (&b"mayor"[..], one));
    let mut seen = client.observe("mayor").await?;
    let value = |answer: &etcd_client::LeaderResponse| {
        answer.kv().expect("a leader").value_str().expect("text").to_owned()
    };
    assert_eq!(value(&seen.message().await?.expect("it goes on")), "one");
    let proclaim = ProclaimOptions::new().with_leader(leader.clone());
    client.proclaim("still one", Some(proclaim)).await?;
    assert_eq!(value(&seen.message().await?.expect("it goes on")), "still one");
    assert_eq!(value(&client.leader("mayor").await?), "still one");
    let mut rival = client.clone();
    let campaign = tokio::spawn(async move { rival.campaign("mayor", "two", two.id()).await });
    client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
    campaign.await.expect("a task ends")?;
    assert_eq!(value(&seen.message().await?.expect("it goes on")), "two");
    Ok(())
}

async fn cluster(client: &mut Client) -> Done {
    let listed = client.member_list().await?;
    assert_eq!(listed.members().len(), 1);
    let only = &listed.members()[0];
    client.member_update(only.id(), only.peer_urls()).await?;
    refused(client.member_add(only.peer_urls(), None).await, "Peer URLs already exists");
    let learner = Some(MemberAddOptions::new().with_is_learner());
    let added = client.member_add(["http://127.0.0.1:1"], learner).await?;
    let learner = added.member().expect("a member").id();
    refused(client.member_promote(learner).await, "can only promote a learner member which is in sync");
    assert_eq!(client.member_remove(learner).await?.members().len(), 1);
    refused(client.move_leader(4711).await, "bad leader transferee");

    let status = client.status().await?;
    assert_eq!(status.leader(), only.id());
    assert!(status.version().starts_with("3.") && status.db_size() > 0 && status.errors().is_empty());
    assert!(client.alarm(AlarmAction::Get, AlarmType::None, None).await?.alarms().is_empty());
    client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await?;
    refused(client.put("full", "x", None).await, "database space exceeded");
    client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await?;
    let revision = client.put("full", "no more", None).await?.header().expect("a header").revision();
    assert_ne!(client.hash().await?.hash(), 0);
    assert_eq!(client.hash_kv(0).await?.hash(), client.hash_kv(revision).await?.hash());
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await?;
    refused(client.compact(revision, None).await, "required revision has been compacted");
    let mut stream =
        client.watch("full", Some(WatchOptions::new().with_start_revision(2))).await?;
    let told = loop {
        let answer = stream.message().await?.expect("the stream goes on");
        if answer.canceled() {
            break answer;
        }
    };
    assert_eq!(told.compact_revision(), revision);
    client.defragment().await?;
    let (mut copy, mut length) = (client.snapshot().await?, 0);
    while let Some(piece) = copy.message().await? {
        length += piece.blob().len();
    }
    // Whole pages, and a checksum behind.
    assert_eq!(length % 512, 32);
    Ok(())
}

async fn accounts(client: &mut Client, url: &str) -> Done {
    client.user_add("root", "secret", None).await?;
    client.role_add("root").await?;
    client.user_grant_role("root", "root").await?;
    client.role_add("crab").await?;
    let all = Permission::read_write("auth/").with_prefix();
    client.role_grant_permission("crab", all).await?;
    assert_eq!(client.role_get("crab").await?.permissions()[0].range_end(), b"auth0");
    client.user_add("ferris", "old", None).await?;
    client.user_change_password("ferris", "rust").await?;
    client.user_grant_role("ferris", "crab").await?;
    assert_eq!(client.user_get("ferris").await?.roles(), ["crab"]);
    assert_eq!(client.user_list().await?.users(), ["ferris", "root"]);
    assert_eq!(client.role_list().await?.roles(), ["crab", "root"]);
    client.auth_enable().await?;
    refused(client.put("auth/a", "1", None).await, "user name is empty");
    let signed_in = |user: &str, password: &str| {
        Client::connect([url.to_owned()], Some(ConnectOptions::new().with_user(user, password)))
    };
    refused(signed_in("ferris", "old").await.map(|_| ()), "authentication failed");
    let mut ferris = signed_in("ferris", "rust").await?;
    ferris.put("auth/a", "1", None).await?;
    refused(ferris.put("other", "1", None).await, "permission denied");
    let mut root = signed_in("root", "secret").await?;
    root.user_change_password("ferris", "went").await?;
    refused(ferris.put("auth/a", "2", None).await, "invalid auth token");
    root.user_change_password("ferris", "rust").await?;
    ferris.refresh_token().await?;
    ferris.put("auth/a", "3", None).await?;
    root.user_revoke_role("ferris", "crab").await?;
    refused(ferris.put("auth/a", "4", None).await, "permission denied");
    root.user_delete("ferris").await?;
    root.role_delete("crab").await?;
    root.auth_disable().await?;
    client.put("auth/a", "5", None).await?;
    Ok(())
}

async fn everything(url: &str) -> Done {
    let client = &mut Client::connect([url], None).await?;
    keys(client).await?;
    transactions(client).await?;
    leases(client).await?;
    watches(client).await?;
    locks_and_elections(client).await?;
    cluster(client).await?;
    accounts(client, url).await
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let url = format!("http://{}:{}", arguments[1], arguments[2]);
    let done = tokio::time::timeout(EVENTUALLY, everything(&url)).await;
    done.expect("it takes too long").expect("it works");
    println!("the crate etcd-client works");
}
