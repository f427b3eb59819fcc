//! Handshakes between the two policies, over a connection in memory. CB-70 to CB-74; A1 to A5.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use certificates::{Authority, Holder, Pair, write};
use rcgen::ExtendedKeyUsagePurpose;
use retcd_tls as tls;
use tls::{ClientPolicy, First, Identity, Protocols, ServerPolicy, Settings, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What both sides said.
#[derive(Debug)]
struct Outcome {
    server: Result<Option<Identity>, String>,
    client: Result<(), String>,
}

async fn connect(server: &ServerPolicy, client: &ClientPolicy, host: &str) -> Outcome {
    let (near, far) = tokio::io::duplex(64 << 10);
    let remote = SocketAddr::from(([127, 0, 0, 1], 4001));
    let serving = async {
        let first = First::read(near).await.map_err(|error| error.to_string())?;
        let mut accepted =
            server.accept(first, Some(remote)).await.map_err(|rejected| rejected.cause)?;
        accepted.stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        accepted.stream.flush().await.map_err(|error| error.to_string())?;
        Ok(accepted.identity.map(|identity| identity.as_ref().clone()))
    };
    let calling = async {
        let mut stream = client.connect(host, far).await.map_err(|error| error.words)?;
        // With TLS 1.3 the server's answer to a certificate comes with the first read.
        let mut read = [0; 5];
        stream.read_exact(&mut read).await.map_err(|error| tls::describe(&error))?;
        Ok(())
    };
    let (server, client) = tokio::join!(serving, calling);
    Outcome { server, client }
}

struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    settings: Settings,
}

fn site() -> Site {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new("test authority");
    let ca = write(folder.path(), "ca.pem", authority.certificate());
    let pair = authority.issue(&Holder::new("server", &["127.0.0.1", "localhost"]));
    let (cert, key) = pair.write(folder.path(), "server");
    let settings = Settings {
        cert_file: Some(cert),
        key_file: Some(key),
        trusted_ca_file: Some(ca),
        client_cert_auth: true,
        ..Settings::default()
    };
    Site { folder, authority, settings }
}

impl Site {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn server(&self) -> ServerPolicy {
        ServerPolicy::new(&self.settings).expect("good settings")
    }

    fn client_with(&self, pair: Option<&Pair>) -> ClientPolicy {
        let files = pair.map(|pair| pair.write(self.path(), "client"));
        let (cert_file, key_file) = files.unzip();
        let trusted_ca_file = self.settings.trusted_ca_file.clone();
        let settings = Settings { cert_file, key_file, trusted_ca_file, ..Settings::default() };
        ClientPolicy::new(&settings, Protocols::Http2).expect("good settings")
    }

    fn client(&self, holder: &Holder) -> ClientPolicy {
        self.client_with(Some(&self.authority.issue(holder)))
    }
}

/// CB-70, CB-74.
#[tokio::test]
async fn a_client_with_a_certificate_is_known() {
    let site = site();
    let client = site.client(&Holder { serial: 77, ..Holder::new("alice", &["a.test"]) });
    let outcome = connect(&site.server(), &client, "127.0.0.1").await;
    outcome.client.unwrap();
    let identity = outcome.server.unwrap().unwrap();
    assert_eq!(identity.common_name, "alice");
    assert_eq!(identity.dns_names, ["a.test"]);
    assert_eq!(identity.serials, [vec![77]]);
}

#[tokio::test]
async fn a_listener_without_authorities_asks_for_nothing() {
    let mut site = site();
    let client = site.client_with(None);
    site.settings.client_cert_auth = false;
    // Authorities alone make it ask.
    let outcome = connect(&site.server(), &client, "localhost").await;
    assert_eq!(outcome.server.unwrap_err(), "tls: client didn't provide a certificate");
    assert_eq!(outcome.client.unwrap_err(), "remote error: tls: certificate required");
    site.settings.trusted_ca_file = None;
    let outcome = connect(&site.server(), &client, "localhost").await;
    assert_eq!(outcome.server.unwrap(), None);
    outcome.client.unwrap();
}

/// A5: what a listener says of certificates that are not good, and of strange names in good ones.
#[tokio::test]
async fn clients_that_are_refused_are_told_why() {
    let site = site();
    let server = site.server();
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let good = Holder::new("client", &[]);
    let cases = [
        (
            Holder { until_days: -1, from_days: -9, ..good.clone() },
            "has expired or is not yet valid: current time",
        ),
        (Holder { from_days: 5, ..good.clone() }, "is before"),
        (Holder { usages, ..good.clone() }, "incompatible key usage"),
    ];
    for (holder, expected) in cases {
        let outcome = connect(&server, &site.client(&holder), "localhost").await;
        let said = outcome.server.unwrap_err();
        assert!(
            said.starts_with("tls: failed to verify certificate: x509: certificate "),
            "{said}"
        );
        assert!(said.contains(expected), "{said}");
        assert!(outcome.client.is_err());
    }
    let stranger = Authority::new("stranger").issue(&good);
    let outcome = connect(&server, &site.client_with(Some(&stranger)), "localhost").await;
    let said = outcome.server.unwrap_err();
    assert!(said.ends_with("x509: certificate signed by unknown authority"), "{said}");
    for name in [None, Some(""), Some("a\0b"), Some("größe")] {
        let holder = Holder { common_name: name.map(str::to_owned), ..good.clone() };
        let outcome = connect(&server, &site.client(&holder), "localhost").await;
        assert_eq!(outcome.server.unwrap().unwrap().common_name, name.unwrap_or_default());
    }
}

/// A5, from the other side.
#[tokio::test]
async fn a_dialer_refuses_a_server_that_is_another() {
    let site = site();
    let server = site.server();
    let client = site.client(&Holder::new("client", &[]));
    for (host, expected) in [
        ("10.1.1.1", "x509: certificate is valid for 127.0.0.1, not 10.1.1.1"),
        ("elsewhere.test", "x509: certificate is valid for localhost, not elsewhere.test"),
    ] {
        let outcome = connect(&server, &client, host).await;
        let said = outcome.client.unwrap_err();
        assert_eq!(said, format!("tls: failed to verify certificate: {expected}"));
        assert_eq!(outcome.server.unwrap_err(), "remote error: tls: bad certificate");
    }
    let other = Authority::new("other");
    let ca = write(site.path(), "other.pem", other.certificate());
    let settings = Settings { trusted_ca_file: Some(ca), ..Settings::default() };
    let stranger = ClientPolicy::new(&settings, Protocols::Unsaid).unwrap();
    let outcome = connect(&server, &stranger, "localhost").await;
    let said = outcome.client.unwrap_err();
    assert!(said.ends_with("x509: certificate signed by unknown authority"), "{said}");
    let settings = Settings { skip_verification: true, ..Settings::default() };
    let careless = ClientPolicy::new(&settings, Protocols::Unsaid).unwrap();
    let mut open = site.settings.clone();
    (open.trusted_ca_file, open.client_cert_auth) = (None, false);
    let outcome = connect(&ServerPolicy::new(&open).unwrap(), &careless, "10.1.1.1").await;
    outcome.client.unwrap();
}

/// Certificates of version 1 and those of authorities pass if, and only if, their authority signed
/// them itself.
#[tokio::test]
async fn old_and_odd_certificates_are_checked_like_others() {
    let mut site = site();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/version1");
    let file = |name: &str| Some(data.join(name));
    let settings = Settings {
        cert_file: file("client.pem"),
        key_file: file("client-key.pem"),
        skip_verification: true,
        ..Settings::default()
    };
    let old = ClientPolicy::new(&settings, Protocols::Unsaid).unwrap();
    let own = site.settings.trusted_ca_file.clone();
    for (authority, passes) in [("authority.pem", true), ("namesake.pem", false)] {
        site.settings.trusted_ca_file = file(authority);
        let outcome = connect(&site.server(), &old, "localhost").await;
        assert_eq!(outcome.server.is_ok(), passes, "{outcome:?}");
        if let Ok(identity) = outcome.server {
            assert_eq!(identity.unwrap().common_name, "old client");
        }
    }
    site.settings.trusted_ca_file = own;
    let server = site.server();
    let odd = Holder { is_authority: true, ..Holder::new("odd", &[]) };
    let only_server = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let namesake = Authority::new("test authority");
    for (pair, passes) in [
        (site.authority.issue(&odd), true),
        (namesake.issue(&odd), false),
        (odd.self_signed(), false),
        (site.authority.issue(&Holder { usages: only_server, ..odd.clone() }), false),
        (site.authority.issue(&Holder { from_days: -9, until_days: -1, ..odd.clone() }), false),
        (site.authority.issue(&Holder { from_days: 1, ..odd.clone() }), false),
    ] {
        let outcome = connect(&server, &site.client_with(Some(&pair)), "localhost").await;
        assert_eq!(outcome.server.is_ok(), passes, "{outcome:?}");
    }
    // One that is trusted itself, on both sides.
    let own = Holder { is_authority: true, ..Holder::new("own", &["localhost"]) }.self_signed();
    let (cert, key) = own.write(site.path(), "own");
    let settings = Settings {
        cert_file: Some(cert.clone()),
        key_file: Some(key),
        trusted_ca_file: Some(cert),
        ..Settings::default()
    };
    let server = ServerPolicy::new(&settings).unwrap();
    let client = ClientPolicy::new(&settings, Protocols::Http2).unwrap();
    let outcome = connect(&server, &client, "localhost").await;
    outcome.client.unwrap();
    outcome.server.unwrap();
    assert!(connect(&server, &client, "127.0.0.1").await.client.is_err());
}

/// CB-72.
#[tokio::test]
async fn names_and_addresses_of_peers_are_checked() {
    let mut site = site();
    let holder = Holder::new("m1", &["127.0.0.1"]);
    let refused = |outcome: Outcome| outcome.server.unwrap_err();
    site.settings.allowed_common_names = vec!["m0".to_owned(), "m1".to_owned()];
    connect(&site.server(), &site.client(&holder), "localhost").await.server.unwrap();
    let client = site.client(&Holder::new("m2", &[]));
    let outcome = connect(&site.server(), &client, "localhost").await;
    assert_eq!(outcome.client.as_ref().unwrap_err(), "remote error: tls: bad certificate");
    assert_eq!(refused(outcome), "client certificate authentication failed");
    site.settings.allowed_common_names.clear();
    site.settings.allowed_host_names = vec!["m.db.test".to_owned(), "127.0.0.1".to_owned()];
    for (host, passes) in [("127.0.0.1", true), ("*.db.test", true), ("*.other.test", false)] {
        let client = site.client(&Holder::new("m3", &[host]));
        let outcome = connect(&site.server(), &client, "localhost").await;
        assert_eq!(outcome.server.is_ok(), passes, "{host}");
    }
    site.settings.allowed_host_names.clear();
    site.settings.check_client_address = true;
    connect(&site.server(), &site.client(&holder), "localhost").await.server.unwrap();
    let client = site.client(&Holder::new("m4", &["10.0.0.4"]));
    let outcome = connect(&site.server(), &client, "localhost").await;
    assert_eq!(refused(outcome), "x509: certificate is valid for 10.0.0.4, not 127.0.0.1");
}

/// A3, A4.
#[tokio::test]
async fn revoked_certificates_are_refused_at_once() {
    let mut site = site();
    let list = |name: &str, content: Vec<u8>| write(site.folder.path(), name, content);
    let none = site.authority.revocation_list(&[]).into_bytes();
    let path = list("crl.pem", none);
    site.settings.crl_file = Some(path);
    let server = site.server();
    let client = site.client(&Holder { serial: 258, ..Holder::new("alice", &[]) });
    let identity = connect(&server, &client, "localhost").await.server.unwrap().unwrap();
    let lists = [
        site.authority.revocation_list(&[7, 258]).into_bytes(),
        site.authority.revocation_list_der(&[258]),
    ];
    for revoked in lists {
        write(site.path(), "crl.pem", revoked);
        let outcome = connect(&server, &client, "localhost").await;
        assert_eq!(outcome.server.unwrap_err(), "transport: certificate serial 0102 revoked");
        assert!(outcome.client.is_err());
    }
    // A list that cannot be read lets nobody in again.
    write(site.path(), "crl.pem", "nonsense");
    assert!(connect(&server, &client, "localhost").await.server.is_err());
    server.revoked(&identity).await;
}

/// A1: whatever state the two files are in, handshakes go on with a pair that fits.
#[tokio::test]
async fn a_pair_is_replaced_file_by_file_under_load() {
    let site = site();
    let server = site.server();
    let client = site.client(&Holder::new("client", &[]));
    let passes = async || {
        let outcome = connect(&server, &client, "localhost").await;
        outcome.server.unwrap();
        outcome.client.unwrap();
    };
    let holder = Holder::new("server", &["localhost"]);
    let pairs: Vec<_> = (0..8).map(|_| site.authority.issue(&holder)).collect();
    for round in 0..60 {
        let pair = &pairs[round % pairs.len()];
        let half = &pair.certificate[..pair.certificate.len() / 2];
        let mut steps =
            vec![("server.pem", pair.certificate.as_str()), ("server-key.pem", &pair.key)];
        if round % 2 == 1 {
            steps.reverse();
        }
        if round % 3 == 0 {
            steps.insert(0, ("server.pem", half));
        }
        for (name, content) in steps {
            // In place, as editors and copies do it.
            std::fs::write(site.path().join(name), content).unwrap();
            passes().await;
        }
    }
    std::fs::remove_file(site.path().join("server-key.pem")).unwrap();
    passes().await;
}

/// A2.
#[tokio::test]
async fn authorities_are_replaced_with_and_without_overlap() {
    let site = site();
    let server = site.server();
    let old = site.client(&Holder::new("old", &[]));
    let next = Authority::new("next");
    let pair = next.issue(&Holder::new("new", &[]));
    let (cert_file, key_file) = pair.write(site.path(), "new");
    let ca = Some(write(site.path(), "first.pem", site.authority.certificate()));
    let (cert_file, key_file) = (Some(cert_file), Some(key_file));
    let settings = Settings { cert_file, key_file, trusted_ca_file: ca, ..Settings::default() };
    let new = ClientPolicy::new(&settings, Protocols::Http2).unwrap();
    let both = format!("{}{}", site.authority.certificate(), next.certificate());
    let passes =
        async |client: &ClientPolicy| connect(&server, client, "localhost").await.server.is_ok();
    assert!(passes(&old).await && !passes(&new).await);
    write(site.path(), "ca.pem", both);
    assert!(passes(&old).await && passes(&new).await);
    write(site.path(), "ca.pem", next.certificate());
    assert!(!passes(&old).await && passes(&new).await);
}

/// B19: an authority that has expired makes no certificate good.
#[tokio::test]
async fn an_expired_authority_is_no_authority() {
    let mut site = site();
    let expired = Authority::with_validity("expired", -10, -1);
    site.settings.trusted_ca_file = Some(write(site.path(), "expired.pem", expired.certificate()));
    let server = site.server();
    let pair = expired.issue(&Holder::new("client", &[]));
    let (cert_file, key_file) = pair.write(site.path(), "client");
    let (cert_file, key_file) = (Some(cert_file), Some(key_file));
    let settings = Settings { cert_file, key_file, skip_verification: true, ..Settings::default() };
    let client = ClientPolicy::new(&settings, Protocols::Unsaid).unwrap();
    let said = connect(&server, &client, "localhost").await.server.unwrap_err();
    assert!(said.contains("has expired"), "{said}");
}

/// SRV-096: such a certificate is its own authority.
#[tokio::test]
async fn a_self_made_certificate_serves_and_can_be_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = tls::self_signed(&folder.path().join("fixtures/client"), &hosts, 1).unwrap();
    assert_eq!(tls::self_signed(&folder.path().join("fixtures/client"), &hosts, 9).unwrap(), made);
    let settings = Settings {
        cert_file: Some(made.cert_file.clone()),
        key_file: Some(made.key_file),
        ..Settings::default()
    };
    let server = ServerPolicy::new(&settings).unwrap();
    let trusting = Settings { trusted_ca_file: Some(made.cert_file), ..Settings::default() };
    let client = ClientPolicy::new(&trusting, Protocols::Http2).unwrap();
    let outcome = connect(&server, &client, "127.0.0.1").await;
    outcome.client.unwrap();
    let outcome = connect(&server, &client, "10.0.0.1").await;
    let said = outcome.client.unwrap_err();
    assert!(said.ends_with("x509: certificate is valid for 127.0.0.1, not 10.0.0.1"), "{said}");
}

#[tokio::test]
async fn versions_that_do_not_meet_are_named() {
    let mut site = site();
    site.settings.version_min = Some(Version::V13);
    let server = site.server();
    let ca = site.settings.trusted_ca_file.clone();
    let settings =
        Settings { trusted_ca_file: ca, version_max: Some(Version::V12), ..Settings::default() };
    let client = ClientPolicy::new(&settings, Protocols::Unsaid).unwrap();
    let outcome = connect(&server, &client, "localhost").await;
    assert_eq!(outcome.server.unwrap_err(), "tls: client offered only unsupported versions");
    assert_eq!(outcome.client.unwrap_err(), "remote error: tls: protocol version not supported");
}

/// Somebody who speaks something else hears nothing.
#[tokio::test]
async fn a_plain_request_gets_no_answer() {
    let site = site();
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(b"GET /health HTTP/1.1\r\n\r\n").await.unwrap();
    let first = First::read(near).await.unwrap();
    let rejected = site.server().accept(first, None).await.unwrap_err();
    assert_eq!(rejected.cause, "tls: first record does not look like a TLS handshake");
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty());
}

/// B13, B19.
#[test]
fn files_that_cannot_be_used_are_named_with_their_cause() {
    let site = site();
    let folder = site.path().to_owned();
    let file = |name: &str, content: &str| Some(write(&folder, name, content));
    let key = std::fs::read_to_string(site.settings.key_file.as_ref().unwrap()).unwrap();
    let other = site.authority.issue(&Holder::new("other", &[]));
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = &key[..key.len() / 2];
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    type Change = Box<dyn Fn(&mut Settings)>;
    let with = |change: fn(&mut Settings, Option<PathBuf>), path: Option<PathBuf>| -> Change {
        Box::new(move |settings| change(settings, path.clone()))
    };
    let cert = |settings: &mut Settings, path| settings.cert_file = path;
    let key_file = |settings: &mut Settings, path| settings.key_file = path;
    let ca = |settings: &mut Settings, path| settings.trusted_ca_file = path;
    let crl = |settings: &mut Settings, path| settings.crl_file = path;
    let cases = [
        (with(cert, Some(folder.join("none.pem"))), "none.pem: cannot read it: No such file"),
        (with(cert, file("key-as-cert.pem", &key)), "key-as-cert.pem: it holds no certificate"),
        (with(cert, file("bad-cert.pem", certificate)), "bad-cert.pem: certificate number 1 in it"),
        (with(key_file, file("wrong.pem", &other.key)), "private key does not match public key of"),
        (with(key_file, file("locked.pem", encrypted)), "locked.pem: the key is encrypted"),
        (
            with(key_file, file("cut.pem", broken)),
            "cut.pem: its PEM is broken: a section has no end",
        ),
        (with(key_file, file("cert-as-key.pem", &other.certificate)), "it holds no private key"),
        (with(ca, file("empty.pem", "")), "empty.pem: it holds no certificate"),
        (with(crl, file("not.crl", &key)), "not.crl: it holds no revocation list"),
        (with(key_file, None), "KeyFile and CertFile must both be present[key: , cert: "),
    ];
    for (change, expected) in cases {
        let mut settings = site.settings.clone();
        change(&mut settings);
        let error = ServerPolicy::new(&settings).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(next) = source {
            text = format!("{text}: {next}");
            source = next.source();
        }
        assert!(text.contains(expected), "{text}");
    }
}
