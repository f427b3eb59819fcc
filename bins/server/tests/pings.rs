//! Clients that ping too often are sent away, as by real etcd (G-010).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use retcd_conformance::frames::{Frames, GO_AWAY, PING};
use retcd_conformance::{Server, real_etcd};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// Waits for the answer to a ping.
fn await_pong(frames: &mut Frames) -> anyhow::Result<()> {
    loop {
        let frame = frames.next_frame()?.context("the connection ended")?;
        match frame.kind {
            PING if frame.is_answer() => return Ok(()),
            GO_AWAY => bail!("sent away: {}", frame.payload.escape_ascii()),
            _ => {}
        }
    }
}

/// What a client that pings as fast as it can is told at the end.
fn farewell(server: &Server) -> anyhow::Result<String> {
    let mut client = Frames::open(server.address())?;
    for _ in 0..4 {
        client.ping()?;
    }
    let mut farewell = None;
    while let Some(frame) = client.next_question()? {
        if frame.kind == GO_AWAY {
            farewell = Some(frame.payload);
        }
    }
    let farewell = farewell.context("the connection ended without a word")?;
    Ok(farewell.escape_ascii().to_string())
}

/// G-010.
#[test]
fn a_client_that_pings_too_often_is_sent_away() -> anyhow::Result<()> {
    let (ours, _folder) = Server::fresh(Path::new(OURS), &[])?;
    let told = farewell(&ours)?;
    assert_eq!(told, "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x0btoo_many_pings");
    if let Some(programs) = real_etcd("3.5") {
        let (theirs, _folder) = Server::fresh(&programs.join("etcd"), &[])?;
        assert_eq!(farewell(&theirs)?, told);
    }
    Ok(())
}

/// G-010: with an open call `--grpc-keepalive-min-time` counts.
#[test]
fn a_client_with_an_open_call_may_ping_as_the_flag_says() -> anyhow::Result<()> {
    let (server, _folder) = Server::fresh(Path::new(OURS), &["--grpc-keepalive-min-time=1ms"])?;
    let mut client = Frames::open(server.address())?;
    client.open_watch()?;
    for _ in 0..10 {
        client.ping()?;
        await_pong(&mut client)?;
        // At least this long, so that it is never too often.
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
