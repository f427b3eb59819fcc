//! HTTP/2 as far as tests look at it: frames on a socket, on either side.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::patience::PATIENCE;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames (RFC 9113 §6).
pub const DATA: u8 = 0;
/// The head of a call.
pub const HEADERS: u8 = 1;
/// What a side wants of the other.
pub const SETTINGS: u8 = 4;
/// Whether the other side lives.
pub const PING: u8 = 6;
/// The end of a connection.
pub const GO_AWAY: u8 = 7;

/// Of settings and pings: an answer.
pub const ACK: u8 = 1;
/// Of heads and data: nothing more comes on this stream.
pub const END_STREAM: u8 = 1;
/// Of heads: they are whole.
pub const END_HEADERS: u8 = 4;

/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// The bytes of a frame.
///
/// # Panics
///
/// If the payload is longer than 4 GiB.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection.
#[derive(Debug)]
pub struct Frames(TcpStream);

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    /// One of the kinds above, or another.
    pub kind: u8,
    /// Their meaning depends on the kind.
    pub flags: u8,
    /// What is behind the head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it answers a frame of ours.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        [SETTINGS, PING].contains(&self.kind) && self.flags == ACK
    }
}

impl Frames {
    /// As a client, behind the preface and empty settings.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(PREFACE)?;
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, b"")?;
        Ok(frames)
    }

    /// As a server, behind its settings.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn serve(mut stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface)?;
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, b"")?;
        frames.send(SETTINGS, ACK, 0, b"")?;
        Ok(frames)
    }

    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> anyhow::Result<()> {
        Ok(self.0.write_all(&frame(kind, flags, stream, payload))?)
    }

    /// Asks whether the other side lives.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn ping(&mut self) -> anyhow::Result<()> {
        self.send(PING, 0, 0, b"8 bytes.")
    }

    /// Opens a call that nobody ends.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn open_watch(&mut self) -> anyhow::Result<()> {
        self.send(HEADERS, END_HEADERS, 1, &call_head("/etcdserverpb.Watch/Watch")?)
    }

    /// Whether the connection lasts so long, whatever comes; asks `is_fine` of each frame.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn lasts(
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
                    let Some(frame) = self.next_question()? else { return Ok(false) };
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

    /// The next frame that is no answer; `None` at the end of the connection.
    ///
    /// # Errors
    ///
    /// None came for two minutes, or the connection ended within one.
    pub fn next_question(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            let frame = self.next_frame()?;
            if !frame.as_ref().is_some_and(Frame::is_answer) {
                return Ok(frame);
            }
        }
    }

    /// The next frame; `None` at the end of the connection.
    ///
    /// # Errors
    ///
    /// As [`Self::next_question`].
    pub fn next_frame(&mut self) -> anyhow::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) => return Ok(None),
            Ok(()) => {}
        }
        let [l2, l1, l0, kind, flags, ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, l2, l1, l0]))?];
        self.0.read_exact(&mut payload)?;
        Ok(Some(Frame { kind, flags, payload }))
    }
}

/// The head of a call of gRPC, as the payload of [`HEADERS`].
///
/// # Errors
///
/// The path is longer than 127 bytes.
pub fn call_head(path: &str) -> anyhow::Result<Vec<u8>> {
    // POST and http of the static table, the others as literals.
    let mut headers = vec![0x83, 0x86];
    for (name, value) in [
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.push(0);
        for text in [name, value] {
            anyhow::ensure!(text.len() < 128, "{text} is too long");
            headers.push(u8::try_from(text.len())?);
            headers.extend(text.as_bytes());
        }
    }
    Ok(headers)
}
