//! What must not be found anywhere: passwords and tokens.

use std::fs;
use std::path::{Path, PathBuf};

use proto::authpb::UserAddOptions;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_conformance::ask;

use super::{Callers, PASSWORD_OF_ALICE, PASSWORD_OF_ROOT, login, protect, start};

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A12, CB-81, CVE-2021-28235: neither logs at their most talkative, nor pages for debugging,
/// metrics, the log of entries, the database or a snapshot tell a password; nor a token where it is
/// no secret between its two sides.
#[tokio::test]
async fn no_password_is_told_or_kept() -> anyhow::Result<()> {
    let (mut server, _folder) = start(&[
        "--bcrypt-cost=4",
        "--log-level=debug",
        "--enable-pprof",
        "--metrics=extensive",
        "--snapshot-count=5",
        "--warning-unary-request-duration=1ns",
        "--warning-apply-duration=1ns",
    ])?;
    let Callers { root, alice, .. } = protect(&server).await?;
    let changed = "canary-that-is-new";
    let mut auth = AuthClient::new(root.channel.clone());
    let change = pb::AuthUserChangePasswordRequest {
        name: "alice".into(),
        password: changed.into(),
        ..Default::default()
    };
    auth.user_change_password(root.ask(change)).await?;
    login(&root.channel, "alice", changed).await?;
    login(&root.channel, "alice", "canary-that-is-wrong").await.err().expect("it is wrong");
    let body = format!("{{\"name\":\"alice\",\"password\":\"{changed}\"}}");
    assert_eq!(ask(server.address(), "POST", "/v3/auth/authenticate", &body)?.status, 200);
    let tokens: Vec<String> =
        [&root, &alice].into_iter().filter_map(|one| one.token.clone()).collect();
    let secrets: Vec<&str> = [PASSWORD_OF_ROOT, PASSWORD_OF_ALICE, changed, "canary-that-is-wrong"]
        .into_iter()
        .chain(tokens.iter().map(String::as_str))
        .collect();
    for path in
        ["/metrics", "/debug/vars", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=1"]
    {
        let told = ask(server.address(), "GET", path, "")?;
        assert_eq!(told.status, 200, "{path}");
        assert!(!secrets.iter().any(|secret| told.body.contains(secret)), "{path}");
    }
    let mut maintenance = MaintenanceClient::new(root.channel.clone());
    let mut snapshot = maintenance.snapshot(root.ask(pb::SnapshotRequest {})).await?.into_inner();
    let mut copy = Vec::new();
    while let Some(part) = snapshot.message().await? {
        copy.extend(part.blob);
    }
    // Tokens of the simple kind are of the log, as etcd's are; they end with the process.
    let passwords = &secrets[..4];
    assert!(!passwords.iter().any(|secret| holds(&copy, secret)), "the snapshot");
    server.stop()?;
    for path in files(server.data_dir())? {
        let bytes = fs::read(&path)?;
        let found = passwords.iter().find(|secret| holds(&bytes, secret));
        assert_eq!(found, None, "{}", path.display());
    }
    let log = server.log();
    assert!(log.contains("\"level\":\"debug\"") && log.contains("request stats"));
    assert_eq!(secrets.iter().find(|secret| log.contains(**secret)), None, "the log");
    // What happened is told all the same, in etcd's words.
    for line in [
        "\"msg\":\"added a user\",\"user-name\":\"alice\"",
        "\"msg\":\"created a role\",\"role-name\":\"writer\"",
        "\"msg\":\"granted/updated a permission to a user\",\"user-name\":\"writer\",\"permission-name\":\"READWRITE\",\"key\":\"a/\"",
        "\"msg\":\"granted a role to a user\",\"user-name\":\"alice\"",
        "\"msg\":\"enabled authentication\"",
        "\"msg\":\"changed a password of a user\",\"user-name\":\"alice\"",
    ] {
        assert!(log.contains(line), "{line}");
    }
    Ok(())
}

/// CVE-2020-15115, as etcd 3.7.1 does it: a password of any length is taken, even none; but only an
/// empty one that a user was made with opens the door, and never one that it was changed to.
#[tokio::test]
async fn passwords_have_no_least_length() -> anyhow::Result<()> {
    const WRONG: &str = "etcdserver: authentication failed, invalid user ID or password";
    let (server, _folder) = start(&["--bcrypt-cost=4"])?;
    let Callers { root, .. } = protect(&server).await?;
    let mut auth = AuthClient::new(root.channel.clone());
    for (name, password) in [("short", "1"), ("empty", ""), ("emptied", "x")] {
        let (name, password) = (name.to_owned(), password.to_owned());
        let request = pb::AuthUserAddRequest { name, password, ..Default::default() };
        auth.user_add(root.ask(request)).await?;
    }
    let options = Some(UserAddOptions { no_password: true });
    let name = "none".to_owned();
    let request = pb::AuthUserAddRequest { name, options, ..Default::default() };
    auth.user_add(root.ask(request)).await?;
    let name = "emptied".to_owned();
    let change = pb::AuthUserChangePasswordRequest { name, ..Default::default() };
    auth.user_change_password(root.ask(change)).await?;

    for (name, password, refused) in [
        ("short", "1", None),
        ("short", "", Some(WRONG)),
        ("short", "2", Some(WRONG)),
        ("empty", "", None),
        ("empty", "1", Some(WRONG)),
        ("emptied", "", Some(WRONG)),
        ("emptied", "x", Some(WRONG)),
        ("none", "", Some("auth: authentication failed, password was given for no password user")),
    ] {
        let answer = login(&root.channel, name, password).await.map(drop);
        let said = answer.as_ref().map_err(tonic::Status::message).err();
        assert_eq!(said, refused, "{name:?} with {password:?}");
    }
    Ok(())
}
