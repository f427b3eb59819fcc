//! The client half of HTTP/2 for gRPC, without I/O: bytes in, events out.
//!
//! Not a general HTTP/2 library. A load generator shares its processors with the server it
//! measures, so whatever it spends per request distorts the ratio of two servers. This one does
//! only what a gRPC server can see: request headers from the dynamic table, messages under flow
//! control, acknowledgements of settings and pings. Response headers are never decoded: a unary
//! call that failed carries no message, and that is how success is told from failure.
//!
//! Invariants:
//! * what is sent never exceeds the peer's windows; what does not fit waits in order of arrival;
//! * an unfinished frame is kept in `partial`, which is empty whenever a whole number of frames
//!   has been fed;
//! * a stream is in `streams` from its request headers until its end is reported.
//!
//! Source: RFC 9113 (HTTP/2), "gRPC over HTTP2".

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::hpack::RequestHeaders;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Http2Error {
    /// The server closes the connection.
    #[error("server closes the connection with code {code}: {text}")]
    GoAway {
        /// Error code of HTTP/2.
        code: u32,
        /// The server's debug data.
        text: String,
    },
    /// A frame above the size that was announced.
    #[error("frame of {len} bytes from the server, {FRAME_BYTES_MAX} are allowed")]
    FrameTooLarge {
        /// Length of its payload.
        len: usize,
    },
    /// A frame whose inside contradicts its length.
    #[error("frame of type {kind} has a malformed payload of {len} bytes")]
    Malformed {
        /// Frame type.
        kind: u8,
        /// Length of its payload.
        len: usize,
    },
    /// A message with the compressed flag, which was not offered.
    #[error("compressed message from the server")]
    Compressed,
    /// The server's table for request headers is smaller than the default.
    #[error("server's header table has {bytes} bytes, {HEADER_TABLE_BYTES} are needed")]
    HeaderTable {
        /// The announced size.
        bytes: u32,
    },
    /// More streams than the server accepts, or than a connection has numbers for.
    #[error("server accepts {max} streams on a connection")]
    TooManyStreams {
        /// The limit.
        max: u32,
    },
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// One gRPC message of a stream.
    Message {
        /// The caller's mark of the stream.
        tag: u32,
        /// The message; empty if it spread over frames and the stream does not collect.
        bytes: &'a [u8],
        /// Its length, also when `bytes` is left out.
        len: usize,
    },
    /// The server ended a stream.
    End {
        /// The caller's mark of the stream.
        tag: u32,
        /// How many messages it carried. A unary call with none has failed.
        messages: u64,
    },
}

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Http2 {
    headers: RequestHeaders,
    out: Vec<u8>,
    out_written: usize,
    partial: Vec<u8>,
    streams: HashMap<u32, Stream, BuildHasherDefault<StreamIdHasher>>,
    stream_id_next: u32,
    blocked: VecDeque<Blocked>,
    send_window: i64,
    stream_window_initial: i64,
    frame_bytes_max: usize,
    streams_max: u32,
    received_unacknowledged: u32,
}

#[derive(Debug)]
struct Stream {
    tag: u32,
    collect: bool,
    send_window: i64,
    received_unacknowledged: u32,
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    message_len: usize,
    message_remaining: usize,
    message: Vec<u8>,
    messages: u64,
}

/// Message bytes, with their gRPC prefix, that wait for a window.
#[derive(Debug)]
struct Blocked {
    stream: u32,
    bytes: Vec<u8>,
    sent: usize,
    end: bool,
}

/// Stream numbers are dense already; hashing them well would only cost.
#[derive(Debug, Default)]
struct StreamIdHasher(u64);

impl Hasher for StreamIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }
    fn write_u32(&mut self, number: u32) {
        // The table takes its bucket from the low bits and its tag from the top seven.
        self.0 = u64::from(number >> 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

const PREFIX_BYTES: usize = 5;
const FRAME_HEADER_BYTES: usize = 9;
/// The protocol's default, which this client keeps: official clients do, too.
const FRAME_BYTES_MAX: usize = 16_384;
const HEADER_TABLE_BYTES: u32 = 4_096;
const WINDOW_DEFAULT: u32 = 65_535;
const WINDOW_MAX: u32 = 0x7fff_ffff;
/// Windows are topped up rarely: at a quarter of what was granted.
const WINDOW_ACKNOWLEDGE_BYTES: u32 = 0x2000_0000;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const FLAG_END_STREAM: u8 = 1;
const FLAG_ACK: u8 = 1;
const FLAG_END_HEADERS: u8 = 4;
const FLAG_PADDED: u8 = 8;

impl Http2 {
    /// Starts a connection to `authority`; the preface is waiting to be written afterwards.
    pub(crate) fn new(authority: &str) -> Self {
        let mut connection = Self {
            headers: RequestHeaders::new(authority),
            out: Vec::with_capacity(4 * FRAME_BYTES_MAX),
            out_written: 0,
            partial: Vec::new(),
            streams: HashMap::default(),
            stream_id_next: 1,
            blocked: VecDeque::new(),
            send_window: i64::from(WINDOW_DEFAULT),
            stream_window_initial: i64::from(WINDOW_DEFAULT),
            frame_bytes_max: FRAME_BYTES_MAX,
            streams_max: u32::MAX,
            received_unacknowledged: 0,
        };
        connection.out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut settings = [0u8; 12];
        settings[..6].copy_from_slice(&[0, 2, 0, 0, 0, 0]); // no push
        settings[6..8].copy_from_slice(&[0, 4]); // initial window
        settings[8..].copy_from_slice(&WINDOW_MAX.to_be_bytes());
        connection.frame(SETTINGS, 0, 0, &settings);
        connection.window_update(0, WINDOW_MAX - WINDOW_DEFAULT);
        connection
    }

    /// The bytes that must be written to the socket.
    pub(crate) fn output(&self) -> &[u8] {
        &self.out[self.out_written..]
    }

    /// Notes that `len` bytes of [`Http2::output`] were written.
    ///
    /// # Panics
    /// If that is more than there were.
    pub(crate) fn on_written(&mut self, len: usize) {
        self.out_written += len;
        assert!(self.out_written <= self.out.len(), "{} > {}", self.out_written, self.out.len());
        if self.out_written == self.out.len() {
            self.out.clear();
            self.out_written = 0;
        }
    }

    /// Opens a stream for a method and returns its number.
    ///
    /// `collect` says whether messages that spread over frames are wanted whole.
    ///
    /// # Errors
    /// If the server's limit of concurrent streams, or the numbers, are used up.
    pub(crate) fn open(
        &mut self,
        tag: u32,
        path: &'static str,
        collect: bool,
    ) -> Result<u32, Http2Error> {
        let open = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        if open >= self.streams_max {
            return Err(Http2Error::TooManyStreams { max: self.streams_max });
        }
        let id = self.stream_id_next;
        if id > WINDOW_MAX {
            return Err(Http2Error::TooManyStreams { max: WINDOW_MAX / 2 });
        }
        self.stream_id_next = id + 2;
        let start = self.out.len();
        self.out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        self.headers.encode(path, &mut self.out);
        let len = self.out.len() - start - FRAME_HEADER_BYTES;
        let header = frame_header(len, HEADERS, FLAG_END_HEADERS, id);
        self.out[start..start + FRAME_HEADER_BYTES].copy_from_slice(&header);
        self.streams.insert(id, Stream::new(tag, collect, self.stream_window_initial));
        Ok(id)
    }

    /// Sends one message, without its gRPC prefix, on an open stream; `end` closes our half.
    /// A stream that has ended meanwhile is left alone.
    pub(crate) fn send(&mut self, stream: u32, message: &[u8], end: bool) {
        let total = PREFIX_BYTES + message.len();
        let window = i64::try_from(total).unwrap_or(i64::MAX);
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let fits = self.blocked.is_empty()
            && total <= self.frame_bytes_max
            && window <= self.send_window
            && window <= state.send_window;
        let prefix = message_prefix(message.len());
        if fits {
            state.send_window -= window;
            self.send_window -= window;
            let flags = if end { FLAG_END_STREAM } else { 0 };
            self.out.extend_from_slice(&frame_header(total, DATA, flags, stream));
            self.out.extend_from_slice(&prefix);
            self.out.extend_from_slice(message);
            return;
        }
        let mut bytes = Vec::with_capacity(total);
        bytes.extend_from_slice(&prefix);
        bytes.extend_from_slice(message);
        self.blocked.push_back(Blocked { stream, bytes, sent: 0, end });
        self.send_blocked();
    }

    /// Takes bytes from the socket and reports what they contain.
    ///
    /// # Errors
    /// If the connection cannot go on.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Http2Error> {
        if self.partial.is_empty() {
            let used = self.frames(bytes, sink)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut joined = std::mem::take(&mut self.partial);
            joined.extend_from_slice(bytes);
            let used = self.frames(&joined, sink)?;
            joined.drain(..used);
            self.partial = joined;
        }
        Ok(())
    }

    /// Handles every whole frame and returns how many bytes they had.
    fn frames(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, Http2Error> {
        let mut rest = bytes;
        while let Some((header, after)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
            let len =
                usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            if len > FRAME_BYTES_MAX {
                return Err(Http2Error::FrameTooLarge { len });
            }
            let Some((payload, next)) = after.split_at_checked(len) else { break };
            let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
            self.on_frame(header[3], header[4], stream, payload, sink)?;
            rest = next;
        }
        Ok(bytes.len() - rest.len())
    }

    fn on_frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Http2Error> {
        let malformed = || Http2Error::Malformed { kind, len: payload.len() };
        match kind {
            DATA => {
                self.on_data(flags, stream, payload, sink)?;
                if flags & FLAG_END_STREAM != 0 {
                    self.on_end(stream, sink);
                }
            }
            HEADERS if flags & FLAG_END_STREAM != 0 => self.on_end(stream, sink),
            RST_STREAM => self.on_end(stream, sink),
            SETTINGS if flags & FLAG_ACK == 0 => {
                self.on_settings(payload)?;
                self.frame(SETTINGS, FLAG_ACK, 0, &[]);
            }
            PING if flags & FLAG_ACK == 0 => self.frame(PING, FLAG_ACK, 0, payload),
            GOAWAY => {
                let code = payload.get(4..).and_then(<[u8]>::first_chunk).ok_or_else(malformed)?;
                return Err(Http2Error::GoAway {
                    code: u32::from_be_bytes(*code),
                    text: String::from_utf8_lossy(&payload[8..]).into_owned(),
                });
            }
            WINDOW_UPDATE => {
                let grant =
                    i64::from(u32::from_be_bytes(*payload.first_chunk().ok_or_else(malformed)?));
                if stream == 0 {
                    self.send_window += grant;
                } else if let Some(state) = self.streams.get_mut(&stream) {
                    state.send_window += grant;
                }
                self.send_blocked();
            }
            // Priorities, response headers, unknown extensions.
            _ => {}
        }
        Ok(())
    }

    fn on_data(
        &mut self,
        flags: u8,
        stream: u32,
        payload: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Http2Error> {
        let len = u32::try_from(payload.len()).expect("frames are bounded");
        self.received_unacknowledged += len;
        if self.received_unacknowledged >= WINDOW_ACKNOWLEDGE_BYTES {
            self.window_update(0, self.received_unacknowledged);
            self.received_unacknowledged = 0;
        }
        let mut data = payload;
        if flags & FLAG_PADDED != 0 {
            let malformed = || Http2Error::Malformed { kind: DATA, len: payload.len() };
            let (padding, rest) = data.split_first().ok_or_else(malformed)?;
            let kept = rest.len().checked_sub(usize::from(*padding)).ok_or_else(malformed)?;
            data = &rest[..kept];
        }
        let Some(state) = self.streams.get_mut(&stream) else { return Ok(()) };
        state.received_unacknowledged += len;
        let grant = state.received_unacknowledged;
        state.on_data(data, sink)?;
        if grant >= WINDOW_ACKNOWLEDGE_BYTES {
            state.received_unacknowledged = 0;
            self.window_update(stream, grant);
        }
        Ok(())
    }

    fn on_end(&mut self, stream: u32, sink: &mut impl FnMut(Event<'_>)) {
        if let Some(state) = self.streams.remove(&stream) {
            sink(Event::End { tag: state.tag, messages: state.messages });
        }
    }

    fn on_settings(&mut self, payload: &[u8]) -> Result<(), Http2Error> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Http2Error::Malformed { kind: SETTINGS, len: payload.len() });
        }
        for setting in settings {
            let number = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match number {
                1 if value < HEADER_TABLE_BYTES => {
                    return Err(Http2Error::HeaderTable { bytes: value });
                }
                3 => self.streams_max = value,
                4 => {
                    let change = i64::from(value) - self.stream_window_initial;
                    self.stream_window_initial = i64::from(value);
                    #[allow(
                        clippy::iter_over_hash_type,
                        reason = "every stream changes alike; the order shows nowhere"
                    )]
                    for stream in self.streams.values_mut() {
                        stream.send_window += change;
                    }
                }
                5 => self.frame_bytes_max = FRAME_BYTES_MAX.min(value as usize),
                _ => {}
            }
        }
        self.send_blocked();
        Ok(())
    }

    /// Sends what waits for windows, in order, as far as they allow.
    fn send_blocked(&mut self) {
        while let Some(mut head) = self.blocked.pop_front() {
            let Some(state) = self.streams.get_mut(&head.stream) else { continue };
            while head.sent < head.bytes.len() {
                let window = self.send_window.min(state.send_window).max(0);
                let window = usize::try_from(window).unwrap_or(usize::MAX);
                let len = (head.bytes.len() - head.sent).min(window).min(self.frame_bytes_max);
                if len == 0 {
                    self.blocked.push_front(head);
                    return;
                }
                let part = &head.bytes[head.sent..head.sent + len];
                head.sent += len;
                let last = head.end && head.sent == head.bytes.len();
                let flags = if last { FLAG_END_STREAM } else { 0 };
                self.out.extend_from_slice(&frame_header(len, DATA, flags, head.stream));
                self.out.extend_from_slice(part);
                let len = i64::try_from(len).expect("frames are bounded");
                self.send_window -= len;
                state.send_window -= len;
            }
        }
    }

    fn window_update(&mut self, stream: u32, bytes: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.out.extend_from_slice(&frame_header(payload.len(), kind, flags, stream));
        self.out.extend_from_slice(payload);
    }
}

impl Stream {
    fn new(tag: u32, collect: bool, send_window: i64) -> Self {
        Self {
            tag,
            collect,
            send_window,
            received_unacknowledged: 0,
            prefix: [0; PREFIX_BYTES],
            prefix_len: 0,
            message_len: 0,
            message_remaining: 0,
            message: Vec::new(),
            messages: 0,
        }
    }

    /// Splits a frame's data into messages.
    fn on_data(
        &mut self,
        mut data: &[u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Http2Error> {
        while !data.is_empty() {
            if self.prefix_len < PREFIX_BYTES {
                let take = (PREFIX_BYTES - self.prefix_len).min(data.len());
                self.prefix[self.prefix_len..self.prefix_len + take].copy_from_slice(&data[..take]);
                self.prefix_len += take;
                data = &data[take..];
                if self.prefix_len < PREFIX_BYTES {
                    return Ok(());
                }
                let [compressed, len @ ..] = self.prefix;
                if compressed != 0 {
                    return Err(Http2Error::Compressed);
                }
                self.message_len = u32::from_be_bytes(len) as usize;
                self.message_remaining = self.message_len;
            }
            let take = self.message_remaining.min(data.len());
            let (part, rest) = data.split_at(take);
            data = rest;
            let whole = take == self.message_len;
            self.message_remaining -= take;
            if !whole && self.collect {
                self.message.extend_from_slice(part);
            }
            if self.message_remaining == 0 {
                self.messages += 1;
                self.prefix_len = 0;
                let bytes = if whole { part } else { &self.message };
                sink(Event::Message { tag: self.tag, bytes, len: self.message_len });
                self.message.clear();
            }
        }
        Ok(())
    }
}

fn frame_header(len: usize, kind: u8, flags: u8, stream: u32) -> [u8; FRAME_HEADER_BYTES] {
    let [_, high, middle, low] = u32::try_from(len).expect("frames are bounded").to_be_bytes();
    let [a, b, c, d] = stream.to_be_bytes();
    [high, middle, low, kind, flags, a, b, c, d]
}

fn message_prefix(len: usize) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = u32::try_from(len).expect("messages are below 4 GiB").to_be_bytes();
    [0, a, b, c, d]
}

#[cfg(test)]
#[path = "http2_tests.rs"]
mod tests;
