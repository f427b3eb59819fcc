//! What etcd's security advisories taught, each as a test (reliability 6.1).
//!
//! `index` names the test of every advisory; the others are those tests, as far as no other file
//! has them.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod browsers;
mod index;
mod peers;
mod rights;
mod secrets;
mod slow;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use proto::authpb::{Permission, permission::Type};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use retcd_conformance::{Keys, Server};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// For anything that is awaited, on a machine that does much else.
const LONG: Duration = Duration::from_secs(120);

/// A server of ours with these flags, and the folder its data is in.
fn start(flags: &[&str]) -> anyhow::Result<(Server, tempfile::TempDir)> {
    Server::fresh(Path::new(OURS), flags)
}

/// Whether other clients are served as if nothing had happened.
async fn expect_service(server: &Server) -> anyhow::Result<()> {
    let keys = Keys::of(&server.endpoint())?;
    keys.put("still", "here").await?;
    anyhow::ensure!(keys.get("still").await? == Some("here".into()));
    let log = server.log();
    for bad in ["\"level\":\"error\"", "\"level\":\"panic\"", "panicked"] {
        anyhow::ensure!(!log.contains(bad), "{log}");
    }
    Ok(())
}

/// Sends bytes and reads until the other side ends; status and body as text.
fn exchange(address: SocketAddr, request: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LONG))?;
    // Whoever has heard enough may close before all is written.
    drop(stream.write_all(request));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A caller with a token, or nobody.
#[derive(Clone)]
struct Caller {
    channel: Channel,
    token: Option<String>,
}

impl Caller {
    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(LONG);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", MetadataValue::try_from(token).unwrap());
        }
        request
    }
}

/// Root, alice who reads and writes under `a/`, and nobody.
struct Callers {
    root: Caller,
    alice: Caller,
    nobody: Caller,
}

const PASSWORD_OF_ROOT: &str = "canary-of-root";
const PASSWORD_OF_ALICE: &str = "canary-of-alice";

async fn login(channel: &Channel, name: &str, password: &str) -> Result<Caller, Status> {
    let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    let token = AuthClient::new(channel.clone()).authenticate(request).await?.into_inner().token;
    Ok(Caller { channel: channel.clone(), token: Some(token) })
}

/// Makes the callers and switches auth on.
async fn protect(server: &Server) -> anyhow::Result<Callers> {
    let channel = Channel::from_shared(server.endpoint())?.connect().await?;
    let mut auth = AuthClient::new(channel.clone());
    for (name, password) in [("root", PASSWORD_OF_ROOT), ("alice", PASSWORD_OF_ALICE)] {
        let (name, password) = (name.to_owned(), password.to_owned());
        auth.user_add(pb::AuthUserAddRequest { name, password, ..Default::default() }).await?;
    }
    for name in ["root", "writer"] {
        auth.role_add(pb::AuthRoleAddRequest { name: name.to_owned() }).await?;
    }
    let perm = Permission {
        perm_type: Type::Readwrite.into(),
        key: Bytes::from_static(b"a/"),
        range_end: Bytes::from_static(b"a0"),
    };
    let name = "writer".to_owned();
    auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest { name, perm: Some(perm) })
        .await?;
    for (user, role) in [("root", "root"), ("alice", "writer")] {
        let (user, role) = (user.to_owned(), role.to_owned());
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await?;
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await?;
    Ok(Callers {
        root: login(&channel, "root", PASSWORD_OF_ROOT).await?,
        alice: login(&channel, "alice", PASSWORD_OF_ALICE).await?,
        nobody: Caller { channel, token: None },
    })
}
