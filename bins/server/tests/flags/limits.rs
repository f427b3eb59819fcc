//! Limits of connections and requests, and what is told of slow ones.

use std::time::Duration;

use anyhow::Context as _;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::watch_client::WatchClient;
use retcd_conformance::Keys;
use retcd_conformance::frames::{Frames, PING, SETTINGS};
use tonic::{Code, Request};

use super::{LONG, metric, start, until};

/// SRV-058, G-009: the number is told in the first settings of a connection.
#[test]
fn a_connection_may_have_so_many_streams() -> anyhow::Result<()> {
    let (server, _folder) = start(&["--max-concurrent-streams=77"])?;
    let mut frames = Frames::open(server.address())?;
    let settings = frames.next_question()?.context("a connection begins with settings")?;
    assert_eq!(settings.kind, SETTINGS);
    let streams = settings.payload.chunks_exact(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(streams.map(|setting| &setting[2..]), Some(&[0, 0, 0, 77][..]));
    Ok(())
}

/// SRV-060, SRV-061: an idle client is asked whether it lives, and sent away if it does not say so.
#[test]
fn an_idle_client_is_asked_whether_it_lives() -> anyhow::Result<()> {
    let (server, _folder) =
        start(&["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s"])?;
    let mut frames = Frames::open(server.address())?;
    let mut pings = 0;
    while let Some(frame) = frames.next_question()? {
        pings += u32::from(frame.kind == PING);
    }
    assert!(pings > 0, "the connection ended without a question");
    Ok(())
}

/// SRV-119, SRV-120, G-020: with no patience at all every request is slow, and every entry.
#[tokio::test]
async fn slow_requests_and_entries_are_told() -> anyhow::Result<()> {
    let (server, _folder) = start(&[
        "--warning-unary-request-duration=1ns",
        "--experimental-warning-apply-duration=1ns",
    ])?;
    Keys::of(&server.endpoint())?.put("slow", "").await?;
    for text in ["\"request stats\"", "\"apply request took too long\""] {
        let is_told = |line: &str| line.contains(text) && line.contains("\"level\":\"warn\"");
        until(text, || Ok(server.log().lines().any(is_told)))?;
    }
    assert!(metric(&server, "etcd_server_slow_apply_total")? > 0.0);
    Ok(())
}

/// SRV-125: a watch that wants to know hears how far it is.
#[tokio::test]
async fn an_idle_watch_hears_how_far_it_is() -> anyhow::Result<()> {
    let (server, _folder) = start(&["--experimental-watch-progress-notify-interval=100ms"])?;
    let create = pb::WatchCreateRequest {
        key: b"idle".to_vec().into(),
        progress_notify: true,
        ..Default::default()
    };
    let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
    let requests = tokio_stream::iter([pb::WatchRequest { request_union }]);
    // The stream goes on only while its requests do.
    let requests = tokio_stream::StreamExt::chain(requests, tokio_stream::pending());
    let mut client = WatchClient::connect(server.endpoint()).await?;
    let mut replies = client.watch(requests).await?.into_inner();
    let created = replies.message().await?.context("a watch is created")?;
    assert!(created.created);
    let notice = tokio::time::timeout(LONG, replies.message()).await??;
    let notice = notice.context("the stream goes on")?;
    assert!(notice.events.is_empty() && !notice.created && !notice.canceled);
    assert_eq!(notice.header.map(|header| header.revision), Some(1));
    Ok(())
}

/// SRV-108: a simple token that is not used ends, sooner if the flag says so.
#[tokio::test]
async fn an_unused_token_ends() -> anyhow::Result<()> {
    let (server, _folder) = start(&["--auth-token-ttl=1", "--bcrypt-cost=4"])?;
    let mut auth = AuthClient::connect(server.endpoint()).await?;
    let name = || "root".to_owned();
    let password = || "secret".to_owned();
    let user = pb::AuthUserAddRequest { name: name(), password: password(), ..Default::default() };
    auth.user_add(user).await?;
    auth.role_add(pb::AuthRoleAddRequest { name: name() }).await?;
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: name(), role: name() }).await?;
    auth.auth_enable(pb::AuthEnableRequest::default()).await?;
    let login = pb::AuthenticateRequest { name: name(), password: password() };
    let token = auth.authenticate(login).await?.into_inner().token;
    let mut kv = KvClient::connect(server.endpoint()).await?;
    // Each use gives it another second.
    for pause in [1_u64, 2, 4, 8, 16, 32] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let mut request =
            Request::new(pb::RangeRequest { key: b"a".to_vec().into(), ..Default::default() });
        request.metadata_mut().insert("token", token.parse()?);
        if let Err(status) = kv.range(request).await {
            assert_eq!(status.code(), Code::Unauthenticated);
            assert_eq!(status.message(), "etcdserver: invalid auth token");
            return Ok(());
        }
    }
    anyhow::bail!("the token never ends")
}

/// SRV-082: a second member that never started keeps a third one out, unless the flag says no.
#[tokio::test]
async fn a_change_that_may_lose_the_quorum_is_refused_if_asked() -> anyhow::Result<()> {
    for strict in [true, false] {
        let (server, _folder) = start(&[&format!("--strict-reconfig-check={strict}")])?;
        let mut cluster = ClusterClient::connect(server.endpoint()).await?;
        let add = |port: u16| {
            let urls = vec![format!("http://127.0.0.1:{port}")];
            let mut request =
                Request::new(pb::MemberAddRequest { peer_ur_ls: urls, ..Default::default() });
            request.set_timeout(Duration::from_secs(2));
            request
        };
        // A lone member may always add one. Whether it hears of it depends on the new one.
        drop(cluster.member_add(add(ports::free()?)).await);
        let second = cluster.member_add(add(ports::free()?)).await;
        let status = second.err().context("two of three never started")?;
        let is_refused = status.message().contains("re-configuration failed");
        assert_eq!(is_refused, strict, "{status:?}");
    }
    Ok(())
}
