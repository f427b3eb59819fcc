//! Sockets: of files, shared ports, and whom they let in.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context as _;
use retcd_conformance::{Keys, Server, ServerOptions};
use socket2::{Domain, Socket, Type};

use super::{OURS, start};

fn answer(
    mut stream: impl std::io::Read + std::io::Write,
    request: &str,
) -> anyhow::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// SRV-048, SRV-152, R9: clients may come by a file, which the name of a host or a path may name,
/// and members may reach each other by one.
#[tokio::test]
async fn clients_and_members_may_come_by_a_file() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let client = folder.path().join("client.sock");
    let peer = folder.path().join("peer.sock");
    let http = ports::free_url()?;
    let flags = [
        format!("--listen-client-urls=unix://{},{http}", client.display()),
        format!("--advertise-client-urls=unix://{}", client.display()),
        format!("--listen-peer-urls=unix://{}", peer.display()),
        format!("--initial-advertise-peer-urls=unix://{}", peer.display()),
        format!("--initial-cluster=m0=unix://{}", peer.display()),
    ];
    // Not `Server`, which waits for the port that it chose itself.
    let mut command = std::process::Command::new(OURS);
    command.args(["--name=m0"]).args(&flags).arg("--data-dir").arg(folder.path().join("data"));
    command.stderr(std::process::Stdio::null());
    let mut child = command.spawn()?;
    let asked = super::until("a member behind a file", || {
        let Ok(stream) = UnixStream::connect(&client) else { return Ok(false) };
        let request = "GET /health HTTP/1.0\r\nHost: a\r\n\r\n";
        Ok(answer(stream, request).is_ok_and(|text| text.contains("\"health\":\"true\"")))
    });
    let peers = UnixStream::connect(&peer).map_err(anyhow::Error::from);
    let members = peers.and_then(|peer| answer(peer, "GET /members HTTP/1.0\r\nHost: a\r\n\r\n"));
    let written = async { anyhow::Ok(Keys::of(&http)?.put("a", "b").await?) }.await;
    child.kill()?;
    child.wait()?;
    asked?;
    written?;
    assert!(members?.contains("\"peerURLs\":[\"unix://"));
    Ok(())
}

/// SRV-062: another process may have the same port only if both say so.
#[test]
fn a_port_may_be_shared() -> anyhow::Result<()> {
    for (flags, expected) in [(&["--socket-reuse-port"][..], true), (&[], false)] {
        let (server, _folder) = start(flags)?;
        let other = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        other.set_reuse_port(true)?;
        let shared = other.bind(&SocketAddr::from(([127, 0, 0, 1], server.client_port())).into());
        assert_eq!(shared.is_ok(), expected, "{flags:?}");
    }
    Ok(())
}

/// SRV-062: a port can be had again at once after its connections ended, with the flag or without.
#[test]
fn a_port_can_be_had_again_at_once() -> anyhow::Result<()> {
    for flags in [&["--socket-reuse-address"][..], &[]] {
        let folder = tempfile::tempdir()?;
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut server = Server::start(Path::new(OURS), folder.path(), ServerOptions { flags })?;
        // The side that closes first keeps the connection's address busy: here the server's.
        let open = TcpStream::connect(server.address())?;
        server.kill()?;
        server.restart(Path::new(OURS))?;
        drop(open);
    }
    Ok(())
}

fn plain(server: &Server, head: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(server.address())?;
    answer(stream, &format!("GET /version HTTP/1.1\r\n{head}Connection: close\r\n\r\n"))
}

/// SRV-105, SRV-106, A13: who may ask from a browser, and for which host.
#[test]
fn pages_ask_only_from_and_for_where_they_may() -> anyhow::Result<()> {
    let (server, _folder) =
        start(&["--host-whitelist=localhost,a.example", "--cors=http://page.example:80"])?;
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    for (host, expected) in [
        ("a.example", "200"),
        ("localhost:2379", "200"),
        // What a page does whose name suddenly points here.
        ("evil.example", "421"),
        ("127.0.0.1", "421"),
    ] {
        let answer = plain(&server, &format!("Host: {host}\r\n"))?;
        assert_eq!(status(&answer), expected, "{host}: {answer}");
    }
    let allowed = |origin: &str| -> anyhow::Result<Option<String>> {
        let answer = plain(&server, &format!("Host: localhost\r\nOrigin: {origin}\r\n"))?;
        let mut lines = answer.lines().map(str::to_ascii_lowercase);
        Ok(lines
            .find_map(|line| line.strip_prefix("access-control-allow-origin: ").map(str::to_owned)))
    };
    assert_eq!(allowed("http://page.example")?.as_deref(), Some("http://page.example"));
    assert_eq!(allowed("http://other.example")?, None);
    Ok(())
}

/// SRV-065: memory is locked, or the server does not start and says why.
#[test]
fn memory_is_locked_or_the_flag_refused() -> anyhow::Result<()> {
    match start(&["--memory-mlock"]) {
        Ok((server, _folder)) => {
            let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
            let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
            let locked = locked.context("a process has locked memory")?.trim();
            assert_ne!(locked, "0 kB");
        }
        Err(error) => assert!(error.to_string().contains("--memory-mlock"), "{error}"),
    }
    Ok(())
}
