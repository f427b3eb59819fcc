//! The boundaries of HTTP/2 frames in a stream of bytes (RFC 9113, section 4.1).
//!
//! Costs a few nanoseconds a frame, whatever its length. What the frames contain is not looked at,
//! and nothing is refused: that is the HTTP/2 library's work.

/// Bytes before each frame's payload: length, type, flags, stream.
const HEAD_BYTES: usize = 9;

/// On headers and data: the last frame of this side of the stream.
pub(super) const END_STREAM: u8 = 0x1;

/// On pings: an answer.
pub(super) const ACK: u8 = 0x1;

/// The type of the frame that announces the end of a connection.
pub(super) const GO_AWAY: u8 = 0x7;

/// A frame's type, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Reset,
    Ping,
    Other,
}

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// A place in a stream of frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that have been seen.
    head_len: usize,
    payload_left: usize,
}

impl Frames {
    /// Walks over the next bytes; `on_head` gets each head that becomes whole.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut on_head: impl FnMut(Head)) {
        loop {
            if self.head_len == 0 {
                // Nearly always the heads lie whole in one piece.
                while let Some(after) = bytes.get(self.payload_left..)
                    && let Some((head, rest)) = after.split_first_chunk()
                {
                    self.payload_left = payload_len(head);
                    bytes = rest;
                    on_head(Head::of(head));
                }
                let skipped = self.payload_left.min(bytes.len());
                self.payload_left -= skipped;
                bytes = &bytes[skipped..];
            }
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD_BYTES - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == HEAD_BYTES {
                self.head_len = 0;
                self.payload_left = payload_len(&self.head);
                on_head(Head::of(&self.head));
            }
        }
    }

    /// Bytes up to the end of the frame, or of its head while that is not whole; 0 between frames.
    pub(super) fn missing_bytes(&self) -> usize {
        match self.head_len {
            0 => self.payload_left,
            len => HEAD_BYTES - len,
        }
    }
}

impl Head {
    fn of(&[_, _, _, kind, flags, s3, s2, s1, s0]: &[u8; HEAD_BYTES]) -> Self {
        let kind = match kind {
            0x0 => Kind::Data,
            0x1 => Kind::Headers,
            0x3 => Kind::Reset,
            0x6 => Kind::Ping,
            _ => Kind::Other,
        };
        // The highest bit is reserved.
        Self { kind, flags, stream: u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]) }
    }
}

fn payload_len(&[l2, l1, l0, ..]: &[u8; HEAD_BYTES]) -> usize {
    usize::from(l2) << 16 | usize::from(l1) << 8 | usize::from(l0)
}

/// The head of a frame of the connection itself.
pub(super) fn head(kind: u8, payload_len: usize) -> [u8; HEAD_BYTES] {
    let len = u8::try_from(payload_len).expect("frames made here are short");
    [0, 0, len, kind, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut.
    #[test]
    fn heads_are_found_at_any_cut() {
        let mut bytes = vec![0, 0, 3, 0x0, END_STREAM, 0x80, 0, 0, 5, 6, 6, 6];
        bytes.extend([0, 0, 0, 0x1, 0, 0, 0, 1, 2]);
        bytes.extend([0, 1, 0, 0x3, 0, 0, 0, 0, 7]);
        bytes.extend([6; 256]);
        bytes.extend([0, 0, 8, 0x6, ACK, 0, 0, 0, 0, 6, 6, 6]);
        let expected = [
            Head { kind: Kind::Data, flags: END_STREAM, stream: 5 },
            Head { kind: Kind::Headers, flags: 0, stream: 258 },
            Head { kind: Kind::Reset, flags: 0, stream: 7 },
            Head { kind: Kind::Ping, flags: ACK, stream: 0 },
        ];
        for cut in 1..bytes.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for part in bytes.chunks(cut) {
                frames.scan(part, |head| found.push(head));
            }
            assert_eq!(found, expected, "{cut}");
            assert_eq!(frames.missing_bytes(), 5);
        }
    }
}
