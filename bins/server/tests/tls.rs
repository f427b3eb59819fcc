//! TLS on the ports of a running server, beside real etcd where the machine has it. CB-70 to CB-74,
//! SRV-090 to SRV-104; A3 to A5.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use certificates::{Authority, Holder, Pair, write};
use ports::free_address;
use proto::etcdserverpb as pb;
use rcgen::ExtendedKeyUsagePurpose;
use retcd_conformance::real_etcd;
use tls::{ClientPolicy, Protocols, Settings, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// For anything that is awaited, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with a peer port of its own, and the client URLs it is given.
struct Member {
    child: Child,
    log: PathBuf,
}

impl Member {
    /// Starts a server whose client, peer and metrics URLs are among the flags.
    fn start(program: &Path, folder: &Path, flags: &[String]) -> anyhow::Result<Self> {
        let mut member = Self::spawn(program, folder, "m0", flags)?;
        member.await_line(serves_clients)?;
        Ok(member)
    }

    fn spawn(program: &Path, folder: &Path, name: &str, flags: &[String]) -> anyhow::Result<Self> {
        let log = folder.join("log");
        let output = File::create(&log)?;
        let child = Command::new(program)
            .env_clear()
            .args(["--name", name, "--data-dir"])
            .arg(folder.join("data"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self { child, log })
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn await_line(&mut self, is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            if let Some(line) = self.log().lines().find(|line| is_wanted(line)) {
                return Ok(line.to_owned());
            }
            if ended.is_some() || PATIENCE < began.elapsed() {
                bail!("a line did not come in the log:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Why the server refused connections on a kind of port, sorted: who was refused on different
    /// threads is logged in any order.
    fn refusals(&self, role: &str) -> Vec<String> {
        let message = format!("rejected connection on {role} endpoint");
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let refused = lines.filter(|line: &serde_json::Value| line["msg"] == message.as_str());
        let refused = refused.map(|line| line["error"].as_str().unwrap_or_default().to_owned());
        let mut refused: Vec<_> = refused.collect();
        refused.sort();
        refused
    }

    fn await_refusals(&self, role: &str, count: usize) -> anyhow::Result<Vec<String>> {
        let began = Instant::now();
        loop {
            let refused = self.refusals(role);
            if count <= refused.len() {
                return Ok(refused);
            }
            if PATIENCE < began.elapsed() {
                bail!("nobody was refused {count} times:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A line that says so; the second form is that of 3.4.
fn serves_clients(line: &str) -> bool {
    line.contains("serving client traffic") || line.contains("serving client requests on")
}

/// An authority, a server's pair and the folder they are in.
struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl Site {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new("authority");
        let ca = write(folder.path(), "ca.pem", authority.certificate());
        let pair = authority.issue(&Holder::new("server", &["127.0.0.1", "localhost"]));
        let (cert, key) = pair.write(folder.path(), "server");
        Ok(Self { folder, authority, cert, key, ca })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The files of a port, with `--` or `--peer-` before their names.
    fn files(&self, prefix: &str) -> Vec<String> {
        vec![
            format!("{prefix}cert-file={}", self.cert.display()),
            format!("{prefix}key-file={}", self.key.display()),
            format!("{prefix}trusted-ca-file={}", self.ca.display()),
            format!("{prefix}client-cert-auth"),
        ]
    }

    fn settings(&self, pair: Option<&Pair>) -> Settings {
        let files = pair.map(|pair| pair.write(self.path(), "client"));
        let (cert_file, key_file) = files.unzip();
        let trusted_ca_file = Some(self.ca.clone());
        Settings { cert_file, key_file, trusted_ca_file, ..Settings::default() }
    }

    fn client(&self, holder: &Holder) -> anyhow::Result<ClientPolicy> {
        let pair = self.authority.issue(holder);
        Ok(ClientPolicy::new(&self.settings(Some(&pair)), Protocols::Unsaid)?)
    }
}

fn client_urls(urls: &str) -> Vec<String> {
    vec![format!("--listen-client-urls={urls}"), format!("--advertise-client-urls={urls}")]
}

fn peer_urls(scheme: &str, address: SocketAddr) -> Vec<String> {
    vec![
        format!("--listen-peer-urls={scheme}://{address}"),
        format!("--initial-advertise-peer-urls={scheme}://{address}"),
        format!("--initial-cluster=m0={scheme}://{address}"),
    ]
}

/// A plain answer over TLS; the error is Go's text.
async fn ask(policy: &ClientPolicy, address: SocketAddr, path: &str) -> Result<String, String> {
    ask_with(policy, address, path, "").await
}

/// As [`ask`], with a line of headers more.
async fn ask_with(
    policy: &ClientPolicy,
    address: SocketAddr,
    path: &str,
    header: &str,
) -> Result<String, String> {
    let asking = async {
        let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        let stream = policy.connect("127.0.0.1", stream).await;
        let mut stream = stream.map_err(|error| error.words)?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n");
        let said = |error: std::io::Error| tls::describe(&error);
        stream.write_all(request.as_bytes()).await.map_err(said)?;
        stream.flush().await.map_err(said)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(said)?;
        Ok(answer)
    };
    tokio::time::timeout(PATIENCE, asking).await.map_err(|_| "too late".to_owned())?
}

/// What a plain connection is answered.
fn ask_plainly(address: SocketAddr, request: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    // A connection that is reset is no answer either.
    stream.read_to_end(&mut answer).ok();
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// V2-015: both on one port, each alone, and neither where the other is spoken.
#[tokio::test]
async fn a_port_speaks_what_its_url_says() -> anyhow::Result<()> {
    let site = Site::new()?;
    let (both, secure, plain) = (free_address()?, free_address()?, free_address()?);
    let urls = format!("http://{both},https://{both},https://{secure},http://{plain}");
    let flags = [client_urls(&urls), peer_urls("http", free_address()?), site.files("--")].concat();
    let member = Member::start(Path::new(OURS), site.path(), &flags)?;
    let client = site.client(&Holder::new("client", &[]))?;
    for address in [both, secure] {
        let answer = ask(&client, address, "/health").await.map_err(anyhow::Error::msg)?;
        assert!(answer.contains("\"health\":\"true\""), "{answer}");
    }
    for address in [both, plain] {
        assert!(ask_plainly(address, HEALTH)?.contains("\"health\":\"true\""));
    }
    assert_eq!(ask_plainly(secure, HEALTH)?, "");
    let refused = member.await_refusals("client", 1)?;
    assert_eq!(refused, ["tls: first record does not look like a TLS handshake"]);
    assert!(ask(&client, plain, "/health").await.is_err());
    let log = member.log();
    assert!(log.contains("serving client traffic securely") && log.contains("insecurely"));
    assert!(log.contains("starting with client TLS"), "{log}");
    Ok(())
}

/// A4, HTTP-23: on the one port, on each of split ports, and on the metrics port.
#[tokio::test]
async fn revoked_clients_are_refused_on_every_port() -> anyhow::Result<()> {
    let site = Site::new()?;
    let (grpc, http, metrics, peer) =
        (free_address()?, free_address()?, free_address()?, free_address()?);
    let list = write(site.path(), "crl.pem", site.authority.revocation_list(&[]));
    let more = vec![
        format!("--listen-client-http-urls=https://{http}"),
        format!("--listen-metrics-urls=https://{metrics}"),
        format!("--client-crl-file={}", list.display()),
        format!("--peer-crl-file={}", list.display()),
    ];
    let urls = client_urls(&format!("https://{grpc}"));
    let peers = [peer_urls("https", peer), site.files("--peer-")].concat();
    let flags = [urls, site.files("--"), peers, more].concat();
    let member = Member::start(Path::new(OURS), site.path(), &flags)?;
    let client = site.client(&Holder { serial: 4242, ..Holder::new("client", &["127.0.0.1"]) })?;
    for (address, path, expected) in [
        (grpc, "/health", "415 Unsupported Media Type"),
        (http, "/health", "\"health\":\"true\""),
        (metrics, "/metrics", "etcd_server_has_leader"),
        (peer, "/version", "etcdserver"),
    ] {
        let answer = ask(&client, address, path).await.map_err(anyhow::Error::msg)?;
        assert!(answer.contains(expected), "{answer}");
    }
    write(site.path(), "crl.pem", site.authority.revocation_list(&[4242]));
    for address in [grpc, http, metrics, peer] {
        assert!(ask(&client, address, "/health").await.is_err());
    }
    let text = "transport: certificate serial 1092 revoked";
    assert_eq!(member.await_refusals("client", 3)?, [text; 3]);
    assert_eq!(member.await_refusals("peer", 1)?, [text]);
    let other = site.client(&Holder { serial: 7, ..Holder::new("other", &[]) })?;
    ask(&other, http, "/health").await.map_err(anyhow::Error::msg)?;
    Ok(())
}

/// CB-72, and the texts of the process contract.
#[tokio::test]
async fn peers_are_who_and_where_their_certificates_say() -> anyhow::Result<()> {
    let site = Site::new()?;
    let peer = free_address()?;
    let urls = client_urls(&format!("http://{}", free_address()?));
    let peers = [peer_urls("https", peer), site.files("--peer-")].concat();
    let allowed = vec!["--peer-cert-allowed-cn=m1,m2".to_owned()];
    let member = Member::start(Path::new(OURS), site.path(), &[urls, peers, allowed].concat())?;
    for (name, host, passes) in
        [("m1", "127.0.0.1", true), ("m3", "127.0.0.1", false), ("m2", "10.0.0.9", false)]
    {
        let client = site.client(&Holder::new(name, &[host]))?;
        let answer = ask(&client, peer, "/version").await;
        assert_eq!(answer.is_ok_and(|answer| answer.contains("etcdserver")), passes, "{name}");
    }
    let refused = member.await_refusals("peer", 2)?;
    assert_eq!(refused[0], "client certificate authentication failed");
    assert_eq!(refused[1], "x509: certificate is valid for 10.0.0.9, not 127.0.0.1");
    assert!(member.log().contains("starting with peer TLS"));
    Ok(())
}

/// SRV-096, SEED4-18 (automatic TLS).
#[tokio::test]
async fn a_member_makes_its_own_certificates() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (client, peer) = (free_address()?, free_address()?);
    let auto = ["--auto-tls", "--peer-auto-tls", "--self-signed-cert-validity=2"];
    let urls = client_urls(&format!("https://{client}"));
    let flags = [urls, peer_urls("https", peer), auto.map(str::to_owned).into()].concat();
    let cert = folder.path().join("data/fixtures/client/cert.pem");
    let careless = Settings { skip_verification: true, ..Settings::default() };
    let careless = ClientPolicy::new(&careless, Protocols::Unsaid)?;
    let mut made = Vec::new();
    for _ in 0..2 {
        let mut member = Member::start(Path::new(OURS), folder.path(), &flags)?;
        for address in [client, peer] {
            let answer = ask(&careless, address, "/version").await.map_err(anyhow::Error::msg)?;
            assert!(answer.contains("etcdserver"), "{answer}");
        }
        made.push(fs::read_to_string(&cert)?);
        let errors = member.log();
        assert!(!errors.contains("\"level\":\"error\""), "{errors}");
        Command::new("kill").arg(member.child.id().to_string()).status()?;
        member.child.wait()?;
    }
    assert_eq!(made[0], made[1]);
    let trusting = Settings { trusted_ca_file: Some(cert), ..Settings::default() };
    let trusting = ClientPolicy::new(&trusting, Protocols::Unsaid)?;
    let _member = Member::start(Path::new(OURS), folder.path(), &flags)?;
    ask(&trusting, client, "/version").await.map_err(anyhow::Error::msg)?;
    Ok(())
}

/// SRV-104: what both sides allow is spoken, and nothing else.
#[tokio::test]
async fn versions_and_suites_are_kept_to() -> anyhow::Result<()> {
    let site = Site::new()?;
    let address = free_address()?;
    let suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let narrow = ["--tls-max-version=TLS1.2".to_owned(), format!("--cipher-suites={suite}")];
    let urls = client_urls(&format!("https://{address}"));
    let flags = [urls, peer_urls("http", free_address()?), site.files("--"), narrow.into()];
    let member = Member::start(Path::new(OURS), site.path(), &flags.concat())?;
    let pair = site.authority.issue(&Holder::new("client", &[]));
    let settings = site.settings(Some(&pair));
    for (min, suites, passes) in [
        (None, vec![], true),
        (Some(Version::V13), vec![], false),
        (None, vec![suite], true),
        (None, vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"], false),
    ] {
        let cipher_suites = suites.into_iter().map(str::to_owned).collect();
        let settings = Settings { version_min: min, cipher_suites, ..settings.clone() };
        let client = ClientPolicy::new(&settings, Protocols::Unsaid)?;
        let answer = ask(&client, address, "/health").await;
        assert_eq!(answer.is_ok(), passes, "{min:?}: {answer:?}");
    }
    let refused = member.await_refusals("client", 2)?;
    assert_eq!(refused[0], "tls: client offered only unsupported versions");
    assert_eq!(refused[1], "tls: no cipher suite supported by both client and server");
    Ok(())
}

/// G24: who says nothing costs nobody else anything.
#[tokio::test]
async fn slow_handshakes_do_not_hinder_others() -> anyhow::Result<()> {
    let site = Site::new()?;
    let address = free_address()?;
    let urls = client_urls(&format!("https://{address}"));
    let flags = [urls, peer_urls("http", free_address()?), site.files("--")].concat();
    let _member = Member::start(Path::new(OURS), site.path(), &flags)?;
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(address)?;
        // Half of them begin, and stop in the middle of the first record.
        if number % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0, 1])?;
        }
        silent.push(stream);
    }
    let client = site.client(&Holder::new("client", &[]))?;
    for _ in 0..10 {
        ask(&client, address, "/health").await.map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// CB-70 with etcd's own client, of both lines.
#[test]
fn real_clients_write_with_certificates() -> anyhow::Result<()> {
    let site = Site::new()?;
    let (address, socket) = (free_address()?, site.path().join("socket:1"));
    let pair = site.authority.issue(&Holder::new("client", &[]));
    let (cert, key) = pair.write(site.path(), "client");
    let urls = client_urls(&format!("https://{address},unixs://{}", socket.display()));
    let flags = [urls, peer_urls("http", free_address()?), site.files("--")].concat();
    let _member = Member::start(Path::new(OURS), site.path(), &flags)?;
    for line in ["3.5", "3.4"] {
        let Some(folder) = real_etcd(line) else { continue };
        let run = |arguments: &[&str], own: bool| {
            let mut command = Command::new(folder.join("etcdctl"));
            command.env_clear().env("ETCDCTL_API", "3").arg("--cacert").arg(&site.ca);
            command.args(["--endpoints", &format!("https://{address}")]);
            if own {
                command.arg("--cert").arg(&cert).arg("--key").arg(&key);
            }
            let ended = command.args(arguments).output()?;
            let text = String::from_utf8_lossy(&ended.stdout).into_owned();
            anyhow::Ok((ended.status.success(), text))
        };
        assert_eq!(run(&["put", "key", line], true)?, (true, "OK\n".to_owned()));
        assert_eq!(run(&["get", "key"], true)?, (true, format!("key\n{line}\n")));
        let (passed, text) = run(&["--command-timeout=2s", "get", "key"], false)?;
        assert!(!passed, "{text}");
    }
    Ok(())
}

/// A5: the same clients are refused by real etcd, in the same words.
#[tokio::test]
async fn bad_clients_are_refused_as_by_real_etcd() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let site = Site::new()?;
    let mut members = Vec::new();
    for (number, program) in [PathBuf::from(OURS), real.join("etcd")].into_iter().enumerate() {
        let folder = site.path().join(number.to_string());
        fs::create_dir(&folder)?;
        let address = free_address()?;
        let urls = client_urls(&format!("https://{address}"));
        let list = write(site.path(), "crl.der", site.authority.revocation_list_der(&[99]));
        let list = vec![format!("--client-crl-file={}", list.display())];
        let flags = [urls, peer_urls("http", free_address()?), site.files("--"), list].concat();
        members.push((Member::start(&program, &folder, &flags)?, address));
    }
    let good = Holder::new("client", &[]);
    let only_server = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let issue = |holder: Holder| Some(site.authority.issue(&holder));
    let cases = [
        issue(good.clone()),
        None,
        issue(Holder { usages: only_server, ..good.clone() }),
        Some(Authority::new("stranger").issue(&good)),
        issue(Holder { serial: 99, ..good.clone() }),
        issue(Holder { common_name: None, ..good.clone() }),
        issue(Holder { is_authority: true, ..good.clone() }),
        issue(Holder { usages: Vec::new(), ..good.clone() }),
    ];
    let mut refused_count = 0;
    for (number, pair) in cases.into_iter().enumerate() {
        let client = ClientPolicy::new(&site.settings(pair.as_ref()), Protocols::Unsaid)?;
        let mut passed = Vec::new();
        for (_, address) in &members {
            let answer = ask(&client, *address, "/health").await;
            passed.push(answer.is_ok_and(|answer| answer.contains("true")));
        }
        assert_eq!(passed[0], passed[1], "case {number}");
        refused_count += usize::from(!passed[0]);
    }
    let ours = members[0].0.await_refusals("client", refused_count)?;
    let refused = members[1].0.await_refusals("client", refused_count)?;
    assert_eq!(ours, refused);
    Ok(())
}

/// Sends requests with JSON bodies to a plain port; each must be answered well.
fn tell_plainly(address: SocketAddr, requests: &[(&str, &str, &str)]) -> anyhow::Result<()> {
    for (method, path, body) in requests {
        let kind = if body.starts_with('{') { "json" } else { "x-www-form-urlencoded" };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        let len = body.len();
        let request = format!(
            "{head}Content-Type: application/{kind}\r\nContent-Length: {len}\r\n\r\n{body}"
        );
        let answer = ask_plainly(address, request.as_bytes())?;
        anyhow::ensure!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
    }
    Ok(())
}

/// V2-166: who shows a certificate is the v2 user of its name, on ours as on etcd 3.4.
#[tokio::test]
async fn a_certificate_names_a_v2_user() -> anyhow::Result<()> {
    let mut programs = vec![PathBuf::from(OURS)];
    programs.extend(real_etcd("3.4").map(|folder| folder.join("etcd")));
    for program in programs {
        let site = Site::new()?;
        let (secure, plain) = (free_address()?, free_address()?);
        let urls = client_urls(&format!("https://{secure},http://{plain}"));
        let more = vec!["--enable-v2".to_owned()];
        let peers = peer_urls("http", free_address()?);
        let flags = [urls, peers, site.files("--"), more].concat();
        let _member = Member::start(&program, site.path(), &flags)?;
        // 3.4 says that it serves before it does.
        let began = Instant::now();
        while tell_plainly(plain, &[("PUT", "/v2/keys/a", "value=x")]).is_err() {
            anyhow::ensure!(began.elapsed() < PATIENCE, "it does not serve v2 keys");
            thread::sleep(Duration::from_millis(20));
        }
        let role = "{\"role\":\"reader\",\"permissions\":{\"kv\":{\"read\":[\"/a\"]}}}";
        let guest = "{\"role\":\"guest\",\"permissions\":{\"kv\":{\"read\":[\"/guests\"]}}}";
        let alice = "{\"user\":\"alice\",\"password\":\"x\",\"roles\":[\"reader\"]}";
        tell_plainly(
            plain,
            &[
                ("PUT", "/v2/keys/guests", "value=x"),
                ("PUT", "/v2/auth/roles/reader", role),
                ("PUT", "/v2/auth/roles/guest", guest),
                ("PUT", "/v2/auth/users/alice", alice),
                ("PUT", "/v2/auth/users/root", "{\"user\":\"root\",\"password\":\"x\"}"),
                ("PUT", "/v2/auth/enable", ""),
            ],
        )?;
        for (name, path, expected) in [
            ("alice", "/v2/keys/a", "200"),
            ("alice", "/v2/keys/guests", "401"),
            ("stranger", "/v2/keys/a", "401"),
            ("stranger", "/v2/keys/guests", "200"),
            ("root", "/v2/keys/a", "200"),
            ("root", "/v2/auth/users", "200"),
            ("alice", "/v2/auth/users", "401"),
        ] {
            let client = site.client(&Holder::new(name, &[]))?;
            let answer = ask(&client, secure, path).await.map_err(anyhow::Error::msg)?;
            let begin = format!("HTTP/1.1 {expected}");
            assert!(answer.starts_with(&begin), "{} {name} {path}: {answer}", program.display());
        }
        if program == Path::new(OURS) {
            // CB-77: it is the proxy's certificate then; etcd 3.4 does not look.
            for (path, expected) in [("/v2/keys/a", "401"), ("/v2/keys/guests", "200")] {
                let client = site.client(&Holder::new("alice", &[]))?;
                let passed_on = "X-Forwarded-For: 10.0.0.1\r\n";
                let answer = ask_with(&client, secure, path, passed_on).await;
                let answer = answer.map_err(anyhow::Error::msg)?;
                assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{path}: {answer}");
            }
        }
    }
    Ok(())
}

/// SRV-170: a proxy shows its certificate to members that ask for one.
#[test]
fn a_proxy_reaches_members_with_tls() -> anyhow::Result<()> {
    let site = Site::new()?;
    let (secure, peer) = (free_address()?, free_address()?);
    let urls = client_urls(&format!("https://{secure}"));
    let peers = [peer_urls("https", peer), site.files("--peer-")].concat();
    let flags = [urls, peers, site.files("--")].concat();
    let _member = Member::start(Path::new(OURS), site.path(), &flags)?;
    let folder = site.path().join("proxy");
    fs::create_dir(&folder)?;
    let plain = free_address()?;
    let more = vec![
        "--proxy=on".to_owned(),
        format!("--listen-client-urls=http://{plain}"),
        format!("--initial-cluster=m0=https://{peer}"),
    ];
    let flags = [more, site.files("--"), site.files("--peer-")].concat();
    let mut proxy = Member::spawn(Path::new(OURS), &folder, "proxy", &flags)?;
    proxy.await_line(|line| line.contains("endpoints found"))?;
    tell_plainly(plain, &[("PUT", "/v2/keys/a", "value=x"), ("GET", "/v2/keys/a", "")])
}

/// Starts members with TLS everywhere, writes through each and reads through the next, also after
/// the members' certificates were replaced.
async fn a_cluster_works(programs: &[PathBuf]) -> anyhow::Result<()> {
    let site = Site::new()?;
    let (mut clients, mut peers) = (Vec::new(), Vec::new());
    for _ in programs {
        clients.push(free_address()?);
        peers.push(free_address()?);
    }
    let founders = peers.iter().enumerate();
    let founders: Vec<_> =
        founders.map(|(number, peer)| format!("m{number}=https://{peer}")).collect();
    let mut members = Vec::new();
    for (number, program) in programs.iter().enumerate() {
        let folder = site.path().join(number.to_string());
        fs::create_dir(&folder)?;
        let urls = client_urls(&format!("https://{}", clients[number]));
        let mut flags = [urls, peer_urls("https", peers[number]), site.files("--")].concat();
        flags.extend(site.files("--peer-"));
        flags.push("--peer-cert-allowed-cn=server".to_owned());
        flags.push(format!("--initial-cluster={}", founders.join(",")));
        members.push(Member::spawn(program, &folder, &format!("m{number}"), &flags)?);
    }
    for member in &mut members {
        member.await_line(serves_clients)?;
    }
    let (cert, key) = site.authority.issue(&Holder::new("c", &[])).write(site.path(), "c");
    let client = async |address: SocketAddr| {
        let mut options = client::Options::new(vec![format!("https://{address}")]);
        options.command_timeout = Some(PATIENCE);
        options.tls = Some(client::TlsOptions {
            certificate: Some(cert.clone()),
            key: Some(key.clone()),
            authorities: Some(site.ca.clone()),
            ..client::TlsOptions::default()
        });
        client::Client::connect(options).await
    };
    for round in 0..2 {
        for number in 0..clients.len() {
            let value = format!("{round} {number}");
            let put = pb::PutRequest {
                key: "key".into(),
                value: value.clone().into(),
                ..pb::PutRequest::default()
            };
            client(clients[number]).await?.put(put).await?;
            let range = pb::RangeRequest { key: "key".into(), ..pb::RangeRequest::default() };
            let read = client(clients[(number + 1) % clients.len()]).await?.get(range).await?;
            assert_eq!(read.kvs[0].value, value);
        }
        let holder = Holder { serial: 2, ..Holder::new("server", &["127.0.0.1", "localhost"]) };
        let _files = site.authority.issue(&holder).write(site.path(), "server");
    }
    for member in &members {
        assert_eq!(member.refusals("peer"), Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test]
async fn members_of_ours_trust_one_another() -> anyhow::Result<()> {
    a_cluster_works(&[OURS, OURS, OURS].map(PathBuf::from)).await
}

#[tokio::test]
async fn members_of_ours_and_of_etcd_trust_one_another() -> anyhow::Result<()> {
    for line in ["3.5", "3.4"] {
        let Some(real) = real_etcd(line) else { continue };
        let real = real.join("etcd");
        a_cluster_works(&[PathBuf::from(OURS), real.clone(), real]).await?;
    }
    Ok(())
}

/// A certificate whose time has come to pass is named with the clock of the host. B25.
#[test]
fn certificates_that_are_not_valid_now_are_told() -> anyhow::Result<()> {
    let site = Site::new()?;
    let early = Holder { from_days: 3, ..Holder::new("server", &["127.0.0.1"]) };
    let (cert, key) = site.authority.issue(&early).write(site.path(), "early");
    let urls = client_urls(&format!("https://{}", free_address()?));
    let files =
        vec![format!("--cert-file={}", cert.display()), format!("--key-file={}", key.display())];
    let flags = [urls, peer_urls("http", free_address()?), files].concat();
    let mut member = Member::start(Path::new(OURS), site.path(), &flags)?;
    let line = member.await_line(|line| line.contains("certificate not yet valid, host clock is"));
    let line = line.context("the certificate is told")?;
    assert!(line.contains("early.pem") && line.contains("not-before"), "{line}");
    Ok(())
}

/// CB-77, CB-78, GW-24: the common name of a certificate is its user, but not in the gateway.
#[tokio::test]
async fn a_certificate_names_its_user() -> anyhow::Result<()> {
    let site = Site::new()?;
    let address = free_address()?;
    let urls = client_urls(&format!("https://{address}"));
    let flags = [urls, peer_urls("http", free_address()?), site.files("--")].concat();
    let _member = Member::start(Path::new(OURS), site.path(), &flags)?;
    let connect = async |name: &str| {
        let folder = site.path().join(format!("of-{name}"));
        fs::create_dir(&folder)?;
        let pair = site.authority.issue(&Holder::new(name, &[]));
        let (certificate, key) = pair.write(&folder, "client");
        let mut options = client::Options::new(vec![format!("https://{address}")]);
        options.tls = Some(client::TlsOptions {
            certificate: Some(certificate),
            key: Some(key),
            authorities: Some(site.ca.clone()),
            ..client::TlsOptions::default()
        });
        options.dial_timeout = PATIENCE;
        let client = client::Client::connect(options.with_command_timeout(Some(PATIENCE))).await?;
        anyhow::Ok(client)
    };
    let root = connect("root").await?;
    let without_password = Some(proto::authpb::UserAddOptions { no_password: true });
    for name in ["root", "alice"] {
        let (name, options) = (name.to_owned(), without_password);
        root.user_add(pb::AuthUserAddRequest { name, options, ..Default::default() }).await?;
    }
    root.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await?;
    let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    root.user_grant_role(grant).await?;
    root.auth_enable(pb::AuthEnableRequest {}).await?;
    let put = pb::PutRequest { key: "k".into(), ..Default::default() };
    root.put(put.clone()).await?;
    for (name, text) in [
        ("alice", "etcdserver: permission denied"),
        ("stranger", "etcdserver: permission denied"),
        ("", "etcdserver: user name is empty"),
    ] {
        let Err(refused) = connect(name).await?.put(put.clone()).await else {
            bail!("{name:?} may write");
        };
        assert!(refused.is(text), "{name:?}: {refused}");
    }
    let client = site.client(&Holder::new("root", &[]))?;
    for path in ["/v3/kv/range", "/v3beta/kv/range"] {
        let answer = ask(&client, address, path).await.map_err(anyhow::Error::msg)?;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let text = "CommonName of client sending a request against gateway";
        assert!(answer.contains(text), "{answer}");
    }
    Ok(())
}
