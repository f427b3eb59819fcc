//! The Lock and Election services, ours and, where there is one, real etcd's by the same steps.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::v3electionpb::election_client::ElectionClient;
use proto::v3electionpb::{self as election};
use proto::v3lockpb::lock_client::LockClient;
use proto::v3lockpb::{self as lock};
use retcd_conformance::{Server, ServerOptions, real_etcd};
use tonic::Code;
use tonic::transport::Channel;

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// How long what must happen may take.
const TIME_MAX: Duration = Duration::from_secs(60);

/// A server, and a connection to it.
struct Asked {
    channel: Channel,
    _server: Server,
    _folder: tempfile::TempDir,
}

/// Ours, and real etcd if it is there.
async fn servers() -> anyhow::Result<Vec<Asked>> {
    let mut programs = vec![Path::new(OURS).to_owned()];
    programs.extend(real_etcd("3.5").map(|real| real.join("etcd")));
    let mut servers = Vec::new();
    for program in programs {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions::default())?;
        let channel = Channel::from_shared(server.endpoint())?.connect().await?;
        servers.push(Asked { channel, _server: server, _folder: folder });
    }
    Ok(servers)
}

async fn lease(channel: &Channel, id: i64) -> anyhow::Result<()> {
    let request = pb::LeaseGrantRequest { ttl: 600, id };
    LeaseClient::new(channel.clone()).lease_grant(request).await?;
    Ok(())
}

async fn keys(channel: &Channel) -> anyhow::Result<Vec<Bytes>> {
    let all = Bytes::from_static(b"\0");
    let request = pb::RangeRequest {
        key: all.clone(),
        range_end: all,
        keys_only: true,
        ..Default::default()
    };
    let rows = KvClient::new(channel.clone()).range(request).await?.into_inner().kvs;
    Ok(rows.into_iter().map(|row| row.key).collect())
}

/// Waits until these are the keys.
async fn await_keys(channel: &Channel, wanted: &[&'static str]) -> anyhow::Result<()> {
    let waited = tokio::time::timeout(TIME_MAX, async {
        loop {
            let found = keys(channel).await?;
            if found == wanted {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await?
}

/// a lock goes to the next in the queue when its key is deleted, and a caller that
/// goes away leaves the queue.
#[tokio::test]
async fn a_lock_is_handed_on_in_order() -> anyhow::Result<()> {
    for server in servers().await? {
        let channel = &server.channel;
        for id in [0xa1, 0xb2, 0xc3] {
            lease(channel, id).await?;
        }
        let name = Bytes::from_static(b"l");
        let request = |lease| lock::LockRequest { name: name.clone(), lease };
        let mut client = LockClient::new(channel.clone());
        let first = client.lock(request(0xa1)).await?.into_inner();
        assert_eq!(first.key, "l/a1");
        // Who holds it already has it at once.
        assert_eq!(client.lock(request(0xa1)).await?.into_inner().key, "l/a1");

        let ask = |lease| {
            let (mut client, request) = (client.clone(), request(lease));
            tokio::spawn(async move { client.lock(request).await })
        };
        let gone = ask(0xb2);
        await_keys(channel, &["l/a1", "l/b2"]).await?;
        let next = ask(0xc3);
        await_keys(channel, &["l/a1", "l/b2", "l/c3"]).await?;
        gone.abort();
        await_keys(channel, &["l/a1", "l/c3"]).await?;
        assert!(!next.is_finished());
        client.unlock(lock::UnlockRequest { key: first.key }).await?;
        let second = tokio::time::timeout(TIME_MAX, next).await??;
        assert_eq!(second?.into_inner().key, "l/c3");
    }
    Ok(())
}

/// without a lease the server makes one of 60 seconds.
#[tokio::test]
async fn a_lock_without_a_lease_gets_one() -> anyhow::Result<()> {
    for server in servers().await? {
        let mut client = LockClient::new(server.channel.clone());
        let request = lock::LockRequest { name: Bytes::from_static(b"l"), lease: 0 };
        let key = client.lock(request).await?.into_inner().key;
        let id = i64::from_str_radix(std::str::from_utf8(&key)?.trim_start_matches("l/"), 16)?;
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let mut leases = LeaseClient::new(server.channel.clone());
        let told = leases.lease_time_to_live(request).await?.into_inner();
        assert_eq!((told.granted_ttl, told.keys), (60, vec![key]));
    }
    Ok(())
}

///
#[tokio::test]
async fn an_election_has_one_leader_and_everyone_sees_it() -> anyhow::Result<()> {
    for server in servers().await? {
        let channel = &server.channel;
        lease(channel, 0xa1).await?;
        lease(channel, 0xb2).await?;
        let name = Bytes::from_static(b"e");
        let mut client = ElectionClient::new(channel.clone());
        let asked = election::LeaderRequest { name: name.clone() };
        let none = client.leader(asked.clone()).await.unwrap_err();
        assert_eq!((none.code(), none.message()), (Code::Unknown, "election: no leader"));
        let observing = {
            let (mut client, asked) = (client.clone(), asked.clone());
            tokio::spawn(async move {
                let mut leaders = client.observe(asked).await?.into_inner();
                let mut seen = Vec::new();
                while seen.last().is_none_or(|last| last != "last") {
                    let Some(leader) = leaders.message().await? else { break };
                    seen.push(leader.kv.map(|row| row.value).unwrap_or_default());
                }
                Ok::<_, tonic::Status>(seen)
            })
        };
        let campaign = |lease, value: &'static str| {
            let value = Bytes::from_static(value.as_bytes());
            let request = election::CampaignRequest { name: name.clone(), lease, value };
            let mut client = client.clone();
            tokio::spawn(async move { client.campaign(request).await })
        };
        let first = campaign(0xa1, "one").await??.into_inner();
        let held = first.leader.clone().unwrap_or_default();
        let header = first.header.unwrap_or_default();
        assert_eq!((&held.name, &held.key, held.lease), (&name, &Bytes::from("e/a1"), 0xa1));
        assert_eq!(held.rev, header.revision);
        let next = campaign(0xb2, "two");
        await_keys(channel, &["e/a1", "e/b2"]).await?;
        // Who leads already proclaims by campaigning again.
        campaign(0xa1, "other").await??;
        let leader = client.leader(asked.clone()).await?.into_inner().kv.unwrap_or_default();
        assert_eq!((leader.value, leader.create_revision), (Bytes::from("other"), held.rev));

        let proclaim = |leader: &election::LeaderKey, value: &'static str| {
            let value = Bytes::from_static(value.as_bytes());
            election::ProclaimRequest { leader: Some(leader.clone()), value }
        };
        client.proclaim(proclaim(&held, "third")).await?;
        client.resign(election::ResignRequest { leader: Some(held.clone()) }).await?;
        let refused = client.proclaim(proclaim(&held, "late")).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, "election: not leader"));
        let second = tokio::time::timeout(TIME_MAX, next).await???.into_inner();
        let held = second.leader.unwrap_or_default();
        assert_eq!(held.key, "e/b2");
        client.proclaim(proclaim(&held, "last")).await?;
        let seen = tokio::time::timeout(TIME_MAX, observing).await???;
        // How many an observer sees depends on how fast it is; the newest is among them.
        assert_eq!(seen.last().map(|value| &value[..]), Some(&b"last"[..]), "{seen:?}");
        for missing in [
            client.proclaim(election::ProclaimRequest::default()).await.unwrap_err(),
            client.resign(election::ResignRequest::default()).await.unwrap_err(),
        ] {
            assert_eq!(missing.message(), "\"leader\" field must be provided");
        }
    }
    Ok(())
}
