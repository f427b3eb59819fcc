//! Clients that name the server by a URL where HTTP/2 wants a host.
//!
//! Clients of etcd 3.4 that speak to one endpoint (`etcdctl --endpoints=http://... endpoint status`
//! and others) send the endpoint as it was given as `:authority`. Go's servers do not look at it;
//! the library that reads requests here refuses what is no authority. So the first call of a
//! connection is read before that library does, and a scheme in front of the host is taken away.
//! From then on bytes pass unseen: a connection has one authority, which later calls name by its
//! place in the compression table.
//!
//! The new name is shorter, so the table of the reader holds all that the client believes to be in
//! it (RFC 7541 §4). Whatever is not understood here passes as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use httlib_huffman::DecoderSpeed;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What every client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_LEN: usize = 9;
const HEADERS: u8 = 1;
/// Flags of a frame with headers: they end in it; it is padded, or tells a priority.
const END_HEADERS: u8 = 0x4;
const PADDED_OR_PRIORITY: u8 = 0x28;
/// Frames before the first call that are looked at; a longer one is none of a usual client.
const FRAME_BYTES_MAX: usize = 16_384;
/// Read at once while the first call is waited for.
const READ_BYTES: usize = 4096;
/// The place of `:authority` in the static table.
const AUTHORITY: u64 = 1;

/// A connection whose first call is looked at.
#[derive(Debug)]
pub(crate) struct Forgiving<S> {
    io: S,
    /// Looked at, and to be read next.
    ready: BytesMut,
    /// Not looked at; `None` once nothing more is to be.
    pending: Option<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: BytesMut,
    has_preface: bool,
}

/// What became of what was read.
enum Looked {
    /// It goes on.
    Waits,
    /// Nothing more needs to be looked at.
    Ends,
}

impl<S> Forgiving<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, ready: BytesMut::new(), pending: Some(Pending::default()) }
    }
}

impl Pending {
    /// Moves to `ready` what may be read.
    fn look(&mut self, ready: &mut BytesMut) -> Looked {
        if !self.has_preface {
            let len = self.bytes.len().min(PREFACE.len());
            if self.bytes[..len] != PREFACE[..len] {
                return Looked::Ends;
            }
            if len < PREFACE.len() {
                return Looked::Waits;
            }
            ready.extend_from_slice(&self.bytes.split_to(len));
            self.has_preface = true;
        }
        while FRAME_HEAD_LEN <= self.bytes.len() {
            let len = usize::from(self.bytes[0]) << 16
                | usize::from(self.bytes[1]) << 8
                | usize::from(self.bytes[2]);
            if FRAME_BYTES_MAX < len {
                return Looked::Ends;
            }
            if self.bytes.len() < FRAME_HEAD_LEN + len {
                return Looked::Waits;
            }
            let frame = self.bytes.split_to(FRAME_HEAD_LEN + len);
            if frame[3] != HEADERS {
                ready.extend_from_slice(&frame);
                continue;
            }
            let is_simple = frame[4] & END_HEADERS != 0 && frame[4] & PADDED_OR_PRIORITY == 0;
            let block = &frame[FRAME_HEAD_LEN..];
            match if is_simple { without_scheme(block) } else { None } {
                None => ready.extend_from_slice(&frame),
                Some(block) => {
                    let len = u32::try_from(block.len()).expect("it became shorter");
                    ready.extend_from_slice(&len.to_be_bytes()[1..]);
                    ready.extend_from_slice(&frame[3..FRAME_HEAD_LEN]);
                    ready.extend_from_slice(&block);
                }
            }
            return Looked::Ends;
        }
        Looked::Waits
    }
}

/// The same headers with an authority that is one; `None` if it is already, or they are not
/// understood. Those of the request itself stand first, so little is walked over.
fn without_scheme(block: &[u8]) -> Option<Vec<u8>> {
    let mut rest = Bytes::copy_from_slice(block);
    while let Some(&first) = rest.first() {
        let at = block.len() - rest.len();
        let (name_bits, has_value) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let name = integer(&mut rest, name_bits)?;
        if !has_value {
            continue;
        }
        if name == 0 {
            text(&mut rest)?;
        }
        let value_at = block.len() - rest.len();
        let value = text(&mut rest)?;
        if name != AUTHORITY {
            continue;
        }
        let host = value.strip_prefix(b"http://").or_else(|| value.strip_prefix(b"https://"))?;
        let host = host.split(|byte| *byte == b'/').next()?;
        // Longer ones need a length of several bytes, and are no host.
        let len = u8::try_from(host.len()).ok().filter(|len| *len < 0x7f)?;
        let mut block = [&block[..value_at], &[len], host, &rest].concat();
        block[at] = first;
        return Some(block);
    }
    None
}

/// An integer whose first bits share a byte with something else (RFC 7541 §5.1).
fn integer(rest: &mut Bytes, bits: u8) -> Option<u64> {
    let mask = (1_u8 << bits) - 1;
    let mut value = u64::from(rest.try_get_u8().ok()? & mask);
    if value < u64::from(mask) {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = rest.try_get_u8().ok()?;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A text, compressed or not (RFC 7541 §5.2).
fn text(rest: &mut Bytes) -> Option<Vec<u8>> {
    let is_compressed = rest.first()? & 0x80 != 0;
    let len = usize::try_from(integer(rest, 7)?).ok()?;
    if rest.len() < len {
        return None;
    }
    let bytes = rest.split_to(len);
    if !is_compressed {
        return Some(bytes.to_vec());
    }
    let mut text = Vec::new();
    httlib_huffman::decode(&bytes, &mut text, DecoderSpeed::FourBits).ok()?;
    Some(text)
}

impl<S: AsyncRead + Unpin> AsyncRead for Forgiving<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                let len = this.ready.len().min(buffer.remaining());
                buffer.put_slice(&this.ready.split_to(len));
                return Poll::Ready(Ok(()));
            }
            let Some(pending) = &mut this.pending else {
                return Pin::new(&mut this.io).poll_read(context, buffer);
            };
            let mut space = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.io).poll_read(context, &mut read))?;
            pending.bytes.extend_from_slice(read.filled());
            let looked = match read.filled().is_empty() {
                true => Looked::Ends,
                false => pending.look(&mut this.ready),
            };
            if let Looked::Ends = looked {
                this.ready.extend_from_slice(&pending.bytes);
                this.pending = None;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Forgiving<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        [&[0, 0, len, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `POST`, a path, `authority` as a new entry of the table, and one more header.
    fn head(authority: &[u8], is_compressed: bool) -> Vec<u8> {
        let flag = if is_compressed { 0x80 } else { 0 };
        let len = u8::try_from(authority.len()).unwrap();
        let path = [&[0x44, 4], &b"/a/b"[..]].concat();
        let last = [&[0x40, 2], &b"te"[..], &[8], b"trailers"].concat();
        [&[0x83, 0x86], &path[..], &[0x41, flag | len], authority, &last].concat()
    }

    /// What is read of `sent`, given in pieces of `step` bytes.
    async fn read(sent: Vec<u8>, step: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(step);
        let writing = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            client.write_all(&sent).await.unwrap();
        });
        let mut found = Vec::new();
        Forgiving::new(server).read_to_end(&mut found).await.unwrap();
        writing.await.unwrap();
        found
    }

    fn connection(head: &[u8]) -> Vec<u8> {
        let call = [frame(HEADERS, END_HEADERS, head), frame(0, 1, b"data")].concat();
        [PREFACE, &frame(4, 0, b""), &call].concat()
    }

    #[tokio::test]
    async fn scheme_before_the_host_is_taken_away() {
        let wanted = connection(&head(b"127.0.0.1:2379", false));
        for url in
            [&b"http://127.0.0.1:2379"[..], b"https://127.0.0.1:2379", b"http://127.0.0.1:2379/x"]
        {
            let mut compressed = Vec::new();
            httlib_huffman::encode(url, &mut compressed).unwrap();
            for step in [1, 7, 4096] {
                assert_eq!(read(connection(&head(url, false)), step).await, wanted);
                assert_eq!(read(connection(&head(&compressed, true)), step).await, wanted);
            }
        }
    }

    #[tokio::test]
    async fn everything_else_passes_as_it_is() {
        let padded =
            [PREFACE, &frame(HEADERS, END_HEADERS | 8, &head(b"http://a", false))].concat();
        let cut = connection(&head(b"http://127.0.0.1:2379", false));
        for sent in [
            connection(&head(b"localhost:2379", false)),
            b"GET /health HTTP/1.1\r\nhost: http://a\r\n\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nnot it".to_vec(),
            PREFACE[..9].to_vec(),
            cut[..cut.len() - 20].to_vec(),
            padded,
            [PREFACE, &frame(HEADERS, END_HEADERS, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff])].concat(),
            [PREFACE, &[0xff; 40]].concat(),
            Vec::new(),
        ] {
            for step in [1, 4096] {
                assert_eq!(read(sent.clone(), step).await, sent);
            }
        }
    }
}
