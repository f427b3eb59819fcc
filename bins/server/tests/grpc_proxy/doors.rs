//! The ports of a proxy, and what it is told at start.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certificates::{Authority, Holder};
use client::{Client, Options};
use proto::etcdserverpb as pb;
use retcd_conformance::{ask, real_etcd};

use super::{OURS, PATIENCE, Proxy, connect, eventually, get, put, serve, text};

/// G24: a connection that never says anything does not stay.
#[test]
fn who_says_nothing_is_sent_away() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let proxy = Proxy::start(folder.path(), &server, &[])?;
    for first in ["", "PRI"] {
        let mut silent = TcpStream::connect(proxy.address())?;
        silent.set_read_timeout(Some(PATIENCE))?;
        silent.write_all(first.as_bytes())?;
        ensure!(silent.read(&mut [0; 64])? == 0, "it was told something after {first:?}");
    }
    Ok(())
}

/// HTTP-15, SRV-180: the plain endpoints, on both ports.
#[test]
fn plain_endpoints_are_served() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let metrics_port = ports::free()?;
    let url = format!("http://127.0.0.1:{metrics_port}");
    let proxy = Proxy::start(folder.path(), &server, &["--metrics-addr", &url])?;
    for address in [proxy.address(), (Ipv4Addr::LOCALHOST, metrics_port).into()] {
        let metrics = ask(address, "GET", "/metrics", "")?;
        assert!(metrics.body.contains("etcd_server_has_leader 1"), "{metrics:?}");
        let own = ask(address, "GET", "/proxy/metrics", "")?;
        assert!(own.body.contains("\netcd_grpc_proxy_cache_hits_total "), "{own:?}");
        for path in ["/health", "/proxy/health"] {
            let health = ask(address, "GET", path, "")?;
            let expected = (200, r#"{"health":"true","reason":""}"#);
            assert_eq!((health.status, health.body.as_str()), expected, "{path}");
            assert_eq!(ask(address, "POST", path, "")?.status, 405);
        }
        let nothing = ask(address, "GET", "/v3/kv/range", "")?;
        assert_eq!((nothing.status, nothing.body.as_str()), (404, "404 page not found\n"));
    }
    Ok(())
}

/// SRV-178, reliability 6.1: clients with certificates; the proxy's own must not name anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_have_tls() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let authority = Authority::new("authority");
    let bundle = certificates::write(folder.path(), "authority.pem", authority.certificate());
    let bundle = bundle.to_str().context("a path of ours")?;
    let issue = |name: &str| -> anyhow::Result<(String, String)> {
        let pair = authority.issue(&Holder::new(name, &["127.0.0.1", "localhost"]));
        let (certificate, key) = pair.write(folder.path(), name);
        let text = |path: PathBuf| path.to_str().map(ToOwned::to_owned).context("a path of ours");
        Ok((text(certificate)?, text(key)?))
    };
    let (certificate, key) = issue("proxy")?;
    let flags = ["--cert-file", &certificate, "--key-file", &key, "--trusted-ca-file", bundle];
    let proxy = Proxy::start(folder.path(), &server, &flags)?;
    let tls = client::TlsOptions {
        certificate: Some(certificate.clone().into()),
        key: Some(key.clone().into()),
        authorities: Some(bundle.into()),
        ..client::TlsOptions::default()
    };
    let options = |tls| {
        let options = Options::new(vec![format!("https://{}", proxy.endpoint())]);
        Options { tls: Some(tls), ..options }
    };
    let client = Client::connect(options(tls.clone()).with_command_timeout(Some(PATIENCE))).await?;
    client.put(put("k", "v")).await?;
    let nobody = client::TlsOptions { certificate: None, key: None, ..tls };
    let nobody = options(nobody).with_command_timeout(Some(Duration::from_secs(3)));
    assert!(Client::connect(nobody).await?.put(put("k", "v")).await.is_err());
    // For members.
    let flags = ["--listen-addr", "127.0.0.1:0", "--cert", &certificate, "--key", &key];
    let expected = format!("cert has non empty Common Name (proxy): {certificate}");
    assert_eq!(refusal(Path::new(OURS), folder.path(), &flags)?, (expected.clone(), Some(1)));
    if let Some(real) = real_etcd("3.5") {
        let program = real.join("etcd");
        assert_eq!(refusal(&program, folder.path(), &flags)?, (expected, Some(1)), "etcd");
    }
    // A certificate of its own.
    let proxy = Proxy::start(folder.path(), &server, &["--auto-tls"])?;
    assert!(folder.path().join("default.proxy/fixtures/proxy/cert.pem").is_file());
    let tls = client::TlsOptions { skip_verification: true, ..client::TlsOptions::default() };
    let options = Options::new(vec![format!("https://{}", proxy.endpoint())]);
    let options = Options { tls: Some(tls), ..options };
    let client = Client::connect(options.with_command_timeout(Some(PATIENCE))).await?;
    assert_eq!(client.get(get("k")).await?.count, 1);
    Ok(())
}

/// SRV-176..179: what is refused, in etcd's words.
#[test]
fn wrong_flags_are_refused_as_etcd_does() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let real = real_etcd("3.5").map(|folder| folder.join("etcd"));
    for (arguments, expected) in [
        (vec!["--nope"], "Error: unknown flag: --nope"),
        (vec!["--endpoints"], "Error: flag needs an argument: --endpoints"),
        (vec!["--resolver-ttl", "5"], "invalid resolver-prefix \"\""),
        (vec!["--resolver-prefix", "a"], "invalid resolver-ttl 0"),
        (
            vec!["--resolver-prefix", "a", "--resolver-ttl", "1", "--advertise-client-url", ""],
            "invalid advertise-client-url \"\"",
        ),
        (
            vec!["--max-concurrent-streams", "4294967296"],
            "Error: invalid argument \"4294967296\" for \"--max-concurrent-streams\" flag: \
             strconv.ParseUint: parsing \"4294967296\": value out of range",
        ),
        (
            vec!["--tls-min-version", "TLS1.5"],
            "tls-min-version is invalid: unexpected TLS version \"TLS1.5\" (must be one of: \
             TLS1.2, TLS1.3)",
        ),
        (
            vec!["--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            vec!["--auto-tls", "--self-signed-cert-validity", "0"],
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ),
        (
            vec!["--listen-addr", "127.0.0.1"],
            "listen tcp: address 127.0.0.1: missing port in address",
        ),
        (
            vec!["--listen-addr", "192.0.2.1:1"],
            "listen tcp 192.0.2.1:1: bind: cannot assign requested address",
        ),
        (
            vec!["--listen-addr", "127.0.0.1:0", "--cert", "/nope"],
            "KeyFile and CertFile must both be present[key: , cert: /nope]",
        ),
    ] {
        let expected = (expected.to_owned(), Some(1));
        assert_eq!(refusal(Path::new(OURS), folder.path(), &arguments)?, expected);
        if let Some(real) = &real {
            assert_eq!(refusal(real, folder.path(), &arguments)?, expected, "etcd");
        }
    }
    Ok(())
}

/// SRV-176..179: every flag of etcd's is there with its default.
#[test]
fn help_names_every_flag_of_etcd() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let help = |program: &Path| -> anyhow::Result<String> {
        let output =
            Command::new(program).env_clear().args(["grpc-proxy", "start", "--help"]).output()?;
        Ok(text(&output.stdout))
    };
    let ours = help(Path::new(OURS))?;
    for line in help(&real.join("etcd"))?.lines() {
        assert!(ours.lines().any(|own| own == line), "{line}\n{ours}");
    }
    Ok(())
}

/// The texts of a program that does not start, without what changes.
fn refusal(
    program: &Path,
    folder: &Path,
    arguments: &[&str],
) -> anyhow::Result<(String, Option<i32>)> {
    let output = Command::new(program)
        .env_clear()
        .args(["grpc-proxy", "start"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    let stderr = text(&output.stderr);
    let stderr: Vec<_> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
    let first = stderr.first().copied().unwrap_or_default();
    Ok((first.to_owned(), output.status.code()))
}

/// SRV-179, SRV-180: proxies that know each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registered_proxies_are_members() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve(folder.path())?;
    let flags = ["--resolver-prefix", "___proxies", "--resolver-ttl", "60"];
    let one = Proxy::start(folder.path(), &server, &flags)?;
    let two = Proxy::start(folder.path(), &server, &flags)?;
    let client = one.client().await?;
    let mut expected = vec![one.endpoint(), two.endpoint()];
    expected.sort();
    eventually(async || {
        let members = client.member_list(pb::MemberListRequest::default()).await?.members;
        let addresses: Vec<_> =
            members.into_iter().flat_map(|member| member.client_ur_ls).collect();
        Ok(addresses == expected)
    })
    .await?;
    let direct = connect(&server.endpoint()).await?;
    let key = format!("___proxies/{}", one.endpoint());
    let pair = direct.get(get(&key)).await?.kvs.remove(0);
    let lease = pb::LeaseTimeToLiveRequest { id: pair.lease, keys: false };
    assert_eq!(direct.lease_time_to_live(lease).await?.granted_ttl, 60);
    let value = text(&pair.value);
    let start =
        format!("{{\"Op\":0,\"Addr\":\"{}\",\"Metadata\":\"{{\\\"name\\\":", one.endpoint());
    assert!(value.starts_with(&start), "{value}");
    // Who says no address shows the members.
    let open = Proxy::start(folder.path(), &server, &["--advertise-client-url", ""])?;
    let list = pb::MemberListRequest::default();
    let members = open.client().await?.member_list(list).await?.members;
    assert_eq!(members, direct.member_list(list).await?.members);
    Ok(())
}
