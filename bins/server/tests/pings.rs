//! Clients that ping too often are sent away, as by real etcd (G-010).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use retcd_conformance::{Server, real_etcd};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

/// A client that knows frames and nothing else.
struct Client {
    stream: TcpStream,
}

impl Client {
    fn connect(server: &Server) -> anyhow::Result<Self> {
        let endpoint = server.endpoint();
        let address = endpoint.strip_prefix("http://").context("no TLS here")?;
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Self { stream };
        client.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        client.send(4, 0, 0, b"")?;
        Ok(client)
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) -> anyhow::Result<()> {
        let len = u8::try_from(payload.len())?;
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, stream];
        frame.extend(payload);
        Ok(self.stream.write_all(&frame)?)
    }

    /// Opens a call that nobody ends.
    fn open_watch(&mut self) -> anyhow::Result<()> {
        // POST and http of the static table, the others as literals.
        let mut headers = vec![0x83, 0x86];
        for (name, value) in [
            (":path", "/etcdserverpb.Watch/Watch"),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            headers.push(0);
            for text in [name, value] {
                headers.push(u8::try_from(text.len())?);
                headers.extend(text.as_bytes());
            }
        }
        self.send(1, END_HEADERS, 1, &headers)
    }

    fn ping(&mut self) -> anyhow::Result<()> {
        self.send(6, 0, 0, b"8 bytes.")
    }

    /// The next frame; nothing at the end of the connection.
    fn receive(&mut self) -> anyhow::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error)
                if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset]
                    .contains(&error.kind()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        let [l2, l1, l0, kind, flags, ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, l2, l1, l0]))?];
        self.stream.read_exact(&mut payload)?;
        Ok(Some(Frame { kind, flags, payload }))
    }

    /// Waits for the answer to a ping.
    fn await_pong(&mut self) -> anyhow::Result<()> {
        loop {
            let frame = self.receive()?.context("the connection ended")?;
            match frame.kind {
                6 if frame.flags == ACK => return Ok(()),
                7 => bail!("sent away: {}", frame.payload.escape_ascii()),
                _ => {}
            }
        }
    }
}

/// What a client that pings as fast as it can is told at the end.
fn farewell(server: &Server) -> anyhow::Result<String> {
    let mut client = Client::connect(server)?;
    for _ in 0..4 {
        client.ping()?;
    }
    let mut farewell = None;
    while let Some(frame) = client.receive()? {
        if frame.kind == 7 {
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
    let mut client = Client::connect(&server)?;
    client.open_watch()?;
    for _ in 0..10 {
        client.ping()?;
        client.await_pong()?;
        // At least this long, so that it is never too often.
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
