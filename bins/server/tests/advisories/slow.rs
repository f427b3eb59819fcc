//! Clients that take their time. G24.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use certificates::{Authority, Holder, write};

use super::{LONG, exchange, expect_service, start};

/// Waits until the other side closes; whether it does in time.
fn is_closed(mut stream: TcpStream) -> anyhow::Result<bool> {
    let began = Instant::now();
    stream.set_read_timeout(Some(LONG))?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(_) if began.elapsed() < LONG => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(true),
            Ok(_) | Err(_) => return Ok(false),
        }
    }
}

/// CVE-2026-73500: a handshake that never ends is ended, wherever it stops.
#[tokio::test]
async fn a_handshake_has_an_end() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("authority");
    let pair = authority.issue(&Holder::new("server", &["127.0.0.1", "localhost"]));
    let (cert, key) = pair.write(folder.path(), "server");
    let trusted = write(folder.path(), "ca.pem", authority.certificate());
    let secured = ports::free_address()?;
    let (server, _data) = start(&[
        &format!("--listen-metrics-urls=https://{secured}"),
        &format!("--cert-file={}", cert.display()),
        &format!("--key-file={}", key.display()),
        &format!("--trusted-ca-file={}", trusted.display()),
        "--client-cert-auth",
    ])?;
    let hello = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    let mut open = Vec::new();
    for begun in [&hello[..0], &hello[..1], &hello[..5], &hello] {
        let mut stream = TcpStream::connect(secured)?;
        stream.write_all(begun)?;
        open.push(stream);
    }
    for stream in open {
        assert!(is_closed(stream)?, "a handshake goes on for ever");
    }
    expect_service(&server).await
}

/// A head or a body that never ends.
#[tokio::test]
async fn heads_and_bodies_have_an_end() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    let begin = |address: SocketAddr, text: &str| -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(text.as_bytes())?;
        Ok(stream)
    };
    let address = server.address();
    let mut open = Vec::new();
    for text in [
        "",
        "POST /v3/kv/put HT",
        "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"key\":",
        "PUT /v2/keys/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nvalue",
        "PUT /config/local/log HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
    ] {
        open.push((text, begin(address, text)?));
    }
    for (text, stream) in open {
        assert!(is_closed(stream)?, "{text}");
    }
    expect_service(&server).await
}

/// Reliability 6.1: a body that says it is larger than any request may be is not waited for.
#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    for path in ["/v3/kv/put", "/v3/kv/txn", "/v3/lease/grant"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n"
        );
        let request = [head.as_bytes(), &vec![b' '; 24 << 20]].concat();
        let answer = exchange(server.address(), &request)?;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{path}: {answer}");
    }
    expect_service(&server).await
}
