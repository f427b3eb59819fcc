//! Members that are found in DNS.

use std::time::Duration;

use anyhow::ensure;

use super::named::{DOMAIN, Named};
use super::own_network::enter;
use super::{OURS, Proxy, put};

/// SRV-177: members are found by the records of a domain; only those for TLS count, unless the flag
/// says otherwise.
#[test]
fn members_are_found_in_dns() -> anyhow::Result<()> {
    if !enter("discovery::members_are_found_in_dns", &[])? {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(found())
}

async fn found() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let held = [DOMAIN, "m0.srv.test", "127.0.0.1"];
    let Named { server: _server, ports: [plain, _], bundle } =
        Named::start(OURS, folder.path(), &held)?;
    let nowhere = "127.0.0.1:1";
    let start = |endpoint: &str, flags: &[&str]| {
        let flags = [&["--discovery-srv", DOMAIN], flags].concat();
        Proxy::before(folder.path(), endpoint, &flags)
    };
    for flags in [
        &["--discovery-srv-name", "plain", "--insecure-discovery"][..],
        &["--discovery-srv-name", "secure", "--cacert", &bundle],
        &["--cacert", &bundle],
    ] {
        let proxy = start(nowhere, flags)?;
        let written = proxy.client().await?.put(put("k", "v")).await;
        ensure!(written.is_ok(), "{flags:?}: {written:?}\n{}", proxy.log());
        ensure!(proxy.log().contains("discovered cluster from SRV"), "{}", proxy.log());
    }
    // This one has no TLS: what else is given counts.
    let given = format!("http://127.0.0.1:{plain}");
    let proxy = start(&given, &["--discovery-srv-name", "plain"])?;
    let written = proxy.client().await?.put(put("k", "v")).await;
    ensure!(written.is_ok(), "{written:?}\n{}", proxy.log());
    ensure!(proxy.log().contains("failed to validate discovered endpoints"), "{}", proxy.log());
    // Nobody vouches for this one: it is found, and not spoken to.
    let proxy = start(&given, &["--discovery-srv-name", "secure"])?;
    ensure!(proxy.log().contains("using validated discovered SRV endpoints"), "{}", proxy.log());
    let client = proxy.client().await?.with_command_timeout(Some(Duration::from_secs(3)));
    ensure!(client.put(put("k", "v")).await.is_err(), "{}", proxy.log());
    // A name without any record.
    let error = start(nowhere, &["--discovery-srv-name", "nope"]).err().map(|e| e.to_string());
    ensure!(error.as_ref().is_some_and(|it| it.contains("dns lookup errors: ")), "{error:?}");
    Ok(())
}
