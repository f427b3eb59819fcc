//! HTTP/2 as far as these tests look at it: frames on a socket, on either side.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;

const POLL: Duration = Duration::from_millis(100);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const HEADERS: u8 = 1;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GO_AWAY: u8 = 7;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection.
pub(super) struct Frames(TcpStream);

/// A frame that is no answer to one of ours.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
}

impl Frames {
    /// As a client.
    pub(super) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(PREFACE)?;
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, b"")?;
        Ok(frames)
    }

    /// As a server.
    pub(super) fn serve(mut stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface)?;
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, b"")?;
        frames.send(SETTINGS, ACK, 0, b"")?;
        Ok(frames)
    }

    pub(super) fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u8,
        payload: &[u8],
    ) -> anyhow::Result<()> {
        let mut frame = vec![0, 0, u8::try_from(payload.len())?, kind, flags, 0, 0, 0, stream];
        frame.extend(payload);
        Ok(self.0.write_all(&frame)?)
    }

    pub(super) fn ping(&mut self) -> anyhow::Result<()> {
        self.send(PING, 0, 0, b"8 bytes.")
    }

    /// Opens a call that nobody ends.
    pub(super) fn open_watch(&mut self) -> anyhow::Result<()> {
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
        self.send(HEADERS, END_HEADERS, 1, &headers)
    }

    /// Whether the connection lasts so long, whatever comes; asks `is_fine` of each frame.
    pub(super) fn lasts(
        &mut self,
        time: Duration,
        mut is_fine: impl FnMut(&Frame) -> bool,
    ) -> anyhow::Result<bool> {
        let began = Instant::now();
        self.0.set_read_timeout(Some(POLL))?;
        while began.elapsed() < time {
            match self.0.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Ok(false),
                Ok(_) => {
                    self.0.set_read_timeout(Some(PATIENCE))?;
                    let Some(frame) = self.next()? else { return Ok(false) };
                    if !is_fine(&frame) {
                        return Ok(false);
                    }
                    self.0.set_read_timeout(Some(POLL))?;
                }
            }
        }
        self.0.set_read_timeout(Some(PATIENCE))?;
        Ok(true)
    }

    /// The next frame; `None` at the end of the connection.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            let mut head = [0; 9];
            match self.0.read_exact(&mut head) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) => return Ok(None),
                Ok(()) => {}
            }
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(len)?];
            self.0.read_exact(&mut payload)?;
            let is_answer = [SETTINGS, PING].contains(&head[3]) && head[4] == ACK;
            if !is_answer {
                return Ok(Some(Frame { kind: head[3], payload }));
            }
        }
    }
}
