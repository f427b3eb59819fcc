//! Where the log goes and how it looks.

use std::fs;
use std::path::Path;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;

use super::{start, until};

/// SRV-114 to SRV-116: lines go to all outputs at once, in the form and from the level asked for.
#[test]
fn lines_go_to_every_output() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("etcd.log");
    let outputs = format!("--log-outputs=stderr,stdout,{}", file.display());
    let (mut server, _data) = start(&[&outputs, "--log-format=console"])?;
    let ready = "ready to serve client requests";
    until(ready, || Ok(fs::read_to_string(&file)?.contains(ready)))?;
    server.stop()?;
    let line = |text: &str| text.lines().filter(|line| line.contains(ready)).count();
    assert_eq!((line(&server.log()), line(&fs::read_to_string(&file)?)), (2, 1));
    let log = fs::read_to_string(&file)?;
    let found = log.lines().find(|line| line.contains(ready)).unwrap_or_default();
    assert_eq!(found.split('\t').nth(1), Some("info"), "{found}");
    Ok(())
}

/// SRV-115.
#[test]
fn what_is_less_important_is_left_out() -> anyhow::Result<()> {
    let (mut server, _folder) = start(&["--log-level=error"])?;
    server.stop()?;
    assert_eq!(server.log(), "");
    Ok(())
}

/// Files beside the log, by the end of their name.
fn beside(folder: &Path, end: &str) -> anyhow::Result<usize> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name != "etcd.log" && name.ends_with(end)).count())
}

/// SRV-117: a full file is put aside and compressed, and only so many are kept.
#[tokio::test]
async fn a_full_log_is_put_aside() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let outputs = format!("--log-outputs={}", folder.path().join("etcd.log").display());
    let rotation = "--log-rotation-config-json={\"maxsize\": 1, \"maxbackups\": 2, \"maxage\": 1, \"localtime\": true, \"compress\": true}";
    let (server, _data) =
        start(&[&outputs, "--enable-log-rotation", rotation, "--log-level=debug"])?;
    let mut kv = KvClient::connect(server.endpoint()).await?;
    // Keys are told in the log, values are not: some megabytes of them.
    let key = "k".repeat(10_000);
    for number in 0..400 {
        let key = format!("{key}{number}").into_bytes().into();
        kv.put(pb::PutRequest { key, ..Default::default() }).await?;
    }
    until("two compressed files", || Ok(beside(folder.path(), ".log.gz")? == 2))?;
    assert!(beside(folder.path(), ".log")? <= 2);
    Ok(())
}
