//! `--enable-pprof`.

use std::io::Read as _;

use retcd_conformance::ask;

use super::start;

/// SRV-110, HTTP-18: profiles are offered if asked for, or while everything is logged.
#[test]
fn profiles_are_offered_if_asked_for() -> anyhow::Result<()> {
    let (server, _folder) = start(&[])?;
    assert_eq!(ask(server.address(), "GET", "/debug/pprof/", "")?.status, 404);
    for flag in ["--enable-pprof", "--log-level=debug"] {
        let (server, _folder) = start(&[flag])?;
        let get = |path: &str| ask(server.address(), "GET", &format!("/debug/pprof/{path}"), "");
        let index = get("")?;
        assert_eq!(index.status, 200);
        for name in ["profile", "heap", "goroutine", "threadcreate", "block", "mutex"] {
            assert!(index.body.contains(&format!("href=\"{name}\"")), "{name}");
        }
        assert!(get("cmdline")?.body.contains("--data-dir\0"));
        assert!(get("goroutine?debug=1")?.body.starts_with("goroutine profile: total "));
        assert!(get("heap?debug=1")?.body.contains(" private\n"));
        assert_eq!(get("nope")?.status, 404);
    }
    Ok(())
}

/// HTTP-18: a profile is a compressed message that names what it counts.
#[test]
fn a_profile_can_be_read() -> anyhow::Result<()> {
    let (server, _folder) = start(&["--enable-pprof"])?;
    let mut stream = std::net::TcpStream::connect(server.address())?;
    std::io::Write::write_all(
        &mut stream,
        b"GET /debug/pprof/profile?seconds=1 HTTP/1.0\r\nHost: a\r\n\r\n",
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
    let body = &answer[end.map_or(answer.len(), |end| end + 4)..];
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut message)?;
    let holds = |text: &[u8]| message.windows(text.len()).any(|part| part == text);
    assert!(holds(b"cpu") && holds(b"nanoseconds"));
    Ok(())
}
