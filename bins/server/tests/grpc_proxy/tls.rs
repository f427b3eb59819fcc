//! TLS on both sides of a proxy: towards clients, towards members.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use certificates::{Authority, Holder, Pair};
use client::{Client, Options, TlsOptions};
use retcd_conformance::{Server, ServerOptions, ask};
use tls::{ClientPolicy, Protocols, Settings, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{OURS, PATIENCE, Proxy, eventually, get, put, serve};

/// An authority and files.
struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    bundle: PathBuf,
}

/// What members and proxies are called in their certificates.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

impl Site {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new("authority");
        let bundle = certificates::write(folder.path(), "ca.pem", authority.certificate());
        Ok(Self { folder, authority, bundle })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, pair: &Pair, name: &str) -> [String; 2] {
        let (certificate, key) = pair.write(self.path(), name);
        [certificate, key].map(|path| path.display().to_string())
    }

    fn bundle(&self) -> String {
        self.bundle.display().to_string()
    }

    /// A certificate that names nobody.
    fn nameless() -> Holder {
        Holder { common_name: None, ..Holder::new("", &[]) }
    }

    /// A member with another port of clients, where they need certificates; and where it is.
    fn member(&self) -> anyhow::Result<(Server, String)> {
        let pair = self.authority.issue(&Holder::new("member", &HOSTS));
        let [certificate, key] = self.write(&pair, "member");
        let mut server = serve(self.path())?;
        server.stop()?;
        let secure = format!("https://127.0.0.1:{}", ports::free()?);
        let plain = format!("http://127.0.0.1:{}", server.client_port());
        server.add_flags(&[
            &format!("--listen-client-urls={plain},{secure}"),
            &format!("--advertise-client-urls={secure}"),
            &format!("--cert-file={certificate}"),
            &format!("--key-file={key}"),
            &format!("--trusted-ca-file={}", self.bundle()),
            "--client-cert-auth",
        ]);
        server.restart(Path::new(OURS))?;
        Ok((server, secure))
    }

    /// A client's policy.
    fn settings(&self, pair: Option<&Pair>, name: &str) -> Settings {
        let files = pair.map(|pair| pair.write(self.path(), name));
        let (cert_file, key_file) = files.unzip();
        let trusted_ca_file = Some(self.bundle.clone());
        Settings { cert_file, key_file, trusted_ca_file, ..Settings::default() }
    }
}

/// The health of a proxy as somebody with TLS is told it; the error is Go's text.
async fn health(settings: &Settings, proxy: &Proxy) -> Result<String, String> {
    let policy = ClientPolicy::new(settings, Protocols::Unsaid).map_err(|e| e.to_string())?;
    let asking = async {
        let stream = tokio::net::TcpStream::connect(proxy.address()).await;
        let stream = policy.connect("127.0.0.1", stream.map_err(|e| e.to_string())?).await;
        let mut stream = stream.map_err(|error| error.words)?;
        let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let said = |error: std::io::Error| tls::describe(&error);
        stream.write_all(request).await.map_err(said)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(said)?;
        if answer.is_empty() { Err("no answer".to_owned()) } else { Ok(answer) }
    };
    tokio::time::timeout(PATIENCE, asking).await.map_err(|_| "too late".to_owned())?
}

/// Whether a write gets through before a client has enough.
async fn passes(proxy: &Proxy) -> anyhow::Result<bool> {
    let client = proxy.client().await?.with_command_timeout(Some(Duration::from_secs(3)));
    Ok(client.put(put("k", "v")).await.is_ok())
}

/// SRV-177: a member with TLS is reached with what the flags name, and not without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_reached_over_tls() -> anyhow::Result<()> {
    let site = Site::new()?;
    let (_server, secure) = site.member()?;
    let pair = site.authority.issue(&Site::nameless());
    let [certificate, key] = site.write(&pair, "proxy");
    let bundle = site.bundle();
    let own = ["--cert", &certificate, "--key", &key];
    let whole = [&own[..], &["--cacert", &bundle]].concat();
    let bare = secure.strip_prefix("https://").context("a scheme")?.to_owned();
    // Without a scheme the flags decide.
    for endpoint in [&secure, &bare] {
        let proxy = Proxy::before(site.path(), endpoint, &whole)?;
        let client = proxy.client().await?;
        client.put(put("k", "v")).await?;
        assert_eq!(client.get(get("k")).await?.count, 1);
        let metrics = ask(proxy.address(), "GET", "/metrics", "")?;
        assert!(metrics.body.contains("etcd_server_has_leader 1"), "{metrics:?}");
        assert_eq!(ask(proxy.address(), "GET", "/health", "")?.status, 200);
    }
    let careless = [&own[..], &["--insecure-skip-tls-verify"]].concat();
    let proxy = Proxy::before(site.path(), &secure, &careless)?;
    proxy.client().await?.put(put("k", "v")).await?;
    assert!(proxy.log().contains("--insecure-skip-tls-verify was given"), "{}", proxy.log());
    // Nobody vouches for the member, or for the proxy.
    for flags in [&own[..], &["--cacert", &bundle], &["--insecure-skip-tls-verify"]] {
        let proxy = Proxy::before(site.path(), &secure, flags)?;
        assert!(!passes(&proxy).await?, "{flags:?}");
    }
    Ok(())
}

/// SRV-177, SRV-178: certificates that are replaced count from then on, on both sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_anew() -> anyhow::Result<()> {
    let site = Site::new()?;
    let (_server, secure) = site.member()?;
    let stranger = Authority::new("stranger");
    let [certificate, key] = site.write(&stranger.issue(&Site::nameless()), "upstream");
    let door = stranger.issue(&Holder::new("door", &HOSTS));
    let [door_certificate, door_key] = site.write(&door, "door");
    let bundle = site.bundle();
    let flags = [
        ["--cert", &certificate],
        ["--key", &key],
        ["--cacert", &bundle],
        ["--cert-file", &door_certificate],
        ["--key-file", &door_key],
    ];
    let proxy = Proxy::before(site.path(), &secure, &flags.concat())?;
    let settings = site.settings(None, "");
    assert!(health(&settings, &proxy).await.is_err(), "a stranger was trusted");
    site.write(&site.authority.issue(&Holder::new("door", &HOSTS)), "door");
    eventually(async || Ok(health(&settings, &proxy).await.is_ok())).await?;
    let options = Options::new(vec![format!("https://{}", proxy.endpoint())]);
    let tls = TlsOptions { authorities: Some(site.bundle.clone()), ..TlsOptions::default() };
    let options = Options { tls: Some(tls), ..options };
    let client =
        Client::connect(options.with_command_timeout(Some(Duration::from_secs(3)))).await?;
    assert!(client.put(put("k", "v")).await.is_err(), "a stranger may write");
    site.write(&site.authority.issue(&Site::nameless()), "upstream");
    eventually(async || Ok(client.put(put("k", "v")).await.is_ok())).await
}

/// SRV-178: a certificate on the list opens no door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_clients_are_refused() -> anyhow::Result<()> {
    let site = Site::new()?;
    let server = serve(site.path())?;
    let [certificate, key] =
        site.write(&site.authority.issue(&Holder::new("door", &HOSTS)), "door");
    let list = site.authority.revocation_list_der(&[77]);
    let list = certificates::write(site.path(), "crl", list).display().to_string();
    let bundle = site.bundle();
    let flags = [
        ["--cert-file", &certificate],
        ["--key-file", &key],
        ["--trusted-ca-file", &bundle],
        ["--client-crl-file", &list],
    ];
    let proxy = Proxy::start(site.path(), &server, &flags.concat())?;
    for (serial, passes) in [(76, true), (77, false)] {
        let holder = Holder { serial, ..Holder::new("client", &[]) };
        let settings = site.settings(Some(&site.authority.issue(&holder)), "client");
        let answer = health(&settings, &proxy).await;
        assert_eq!(answer.is_ok(), passes, "{answer:?}\n{}", proxy.log());
    }
    Ok(())
}

/// SRV-178: what both sides allow is spoken, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_and_suites_are_kept_to() -> anyhow::Result<()> {
    let site = Site::new()?;
    let server = serve(site.path())?;
    let [certificate, key] =
        site.write(&site.authority.issue(&Holder::new("door", &HOSTS)), "door");
    let suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let other = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let narrow = ["--tls-max-version", "TLS1.2", "--listen-cipher-suites", suite];
    for (flags, min, max, suites, passes) in [
        (&narrow[..], None, None, vec![], true),
        (&narrow, Some(Version::V13), None, vec![], false),
        (&narrow, None, None, vec![suite], true),
        (&narrow, None, Some(Version::V12), vec![other], false),
        (&["--tls-min-version", "TLS1.3"], None, Some(Version::V12), vec![], false),
        (&["--tls-min-version", "TLS1.3"], None, None, vec![], true),
    ] {
        let flags = [&["--cert-file", &certificate, "--key-file", &key], flags].concat();
        let proxy = Proxy::start(site.path(), &server, &flags)?;
        let settings = Settings {
            version_min: min,
            version_max: max,
            cipher_suites: suites.into_iter().map(str::to_owned).collect(),
            ..site.settings(None, "")
        };
        let answer = health(&settings, &proxy).await;
        assert_eq!(answer.is_ok(), passes, "{flags:?} {min:?} {max:?}: {answer:?}");
    }
    Ok(())
}

/// The years between the two dates in a certificate.
fn years(certificate: &Path) -> anyhow::Result<i64> {
    let text = fs::read_to_string(certificate)?;
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let mut bits = (0_u32, 0);
    let mut bytes = Vec::new();
    for letter in body.bytes().filter(|letter| *letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = (bits.0 << 6 | u32::from(value), bits.1 + 6);
        if 8 <= bits.1 {
            bits.1 -= 8;
            bytes.push(u8::try_from(bits.0 >> bits.1 & 0xff)?);
        }
    }
    // Times as YYMMDDHHMMSSZ.
    let dates = bytes.windows(15).filter(|it| it.starts_with(&[0x17, 13]) && it.ends_with(b"Z"));
    let years = dates.map(|date| anyhow::Ok(std::str::from_utf8(&date[2..4])?.parse::<i64>()?));
    match years.collect::<anyhow::Result<Vec<_>>>()?[..] {
        [from, until] => Ok(until - from),
        ref others => anyhow::bail!("{others:?}"),
    }
}

/// SRV-178, SRV-179: an own certificate is valid as long, and where, as the flags say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_certificates_are_valid_as_long_as_wished() -> anyhow::Result<()> {
    let site = Site::new()?;
    let flags = ["--auto-tls", "--self-signed-cert-validity", "7", "--data-dir", "elsewhere"];
    let proxy = Proxy::before(site.path(), "127.0.0.1:1", &flags)?;
    let certificate = site.path().join("elsewhere/fixtures/proxy/cert.pem");
    assert_eq!(years(&certificate)?, 7);
    let settings = Settings { trusted_ca_file: Some(certificate), ..Settings::default() };
    // It is this one that the proxy shows: there is an answer, whatever the members do.
    let answer = health(&settings, &proxy).await.map_err(anyhow::Error::msg)?;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    Ok(())
}

/// SRV-178: the metrics' port has TLS if its URL says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_have_tls_if_their_url_says_so() -> anyhow::Result<()> {
    let site = Site::new()?;
    let flags = vec!["--max-txn-ops=64".to_owned()];
    let server = Server::start(Path::new(OURS), site.path(), ServerOptions { flags })?;
    let [certificate, key] =
        site.write(&site.authority.issue(&Holder::new("door", &HOSTS)), "door");
    for scheme in ["http", "https"] {
        let port = ports::free()?;
        let url = format!("{scheme}://127.0.0.1:{port}");
        let flags = ["--cert-file", &certificate, "--key-file", &key, "--metrics-addr", &url];
        let mut proxy = Proxy::start(site.path(), &server, &flags)?;
        assert!(health(&site.settings(None, ""), &proxy).await.is_ok());
        proxy.port = port;
        let is_secure = health(&site.settings(None, ""), &proxy).await.is_ok();
        assert_eq!(is_secure, scheme == "https");
        if !is_secure {
            assert_eq!(ask(proxy.address(), "GET", "/health", "")?.status, 200);
        }
    }
    Ok(())
}
