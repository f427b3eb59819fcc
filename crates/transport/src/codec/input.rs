//! Bytes that have come in and were not used yet.
//!
//! Bytes that came in one piece are given out without a copy; only what is cut in the middle is
//! gathered. Nothing is set aside for what has not arrived.

use bytes::{Buf as _, Bytes, BytesMut};

/// What came in, in order: first `current`, then `gathered`; one of them is always empty.
#[derive(Debug, Default)]
pub(super) struct Input {
    current: Bytes,
    gathered: BytesMut,
}

impl Input {
    pub(super) fn push(&mut self, bytes: Bytes) {
        if self.gathered.is_empty() && self.current.is_empty() {
            self.current = bytes;
            return;
        }
        if self.gathered.is_empty() {
            self.gathered.extend_from_slice(&self.current);
            self.current = Bytes::new();
        }
        self.gathered.extend_from_slice(&bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.current.len() + self.gathered.len()
    }

    fn as_slice(&self) -> &[u8] {
        if self.gathered.is_empty() { &self.current } else { &self.gathered }
    }

    /// The big-endian number at `offset`, if it has arrived.
    pub(super) fn u64_at(&self, offset: usize) -> Option<u64> {
        let bytes = self.as_slice().get(offset..offset + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    pub(super) fn first(&self) -> Option<u8> {
        self.as_slice().first().copied()
    }

    /// Forgets `len` bytes, which must have arrived.
    pub(super) fn skip(&mut self, len: usize) {
        drop(self.take(len));
    }

    /// Takes `len` bytes, which must have arrived.
    pub(super) fn take(&mut self, len: usize) -> Bytes {
        if !self.gathered.is_empty() {
            // What was gathered is shared from now on, so that the rest is not copied again.
            if len < self.gathered.len() {
                self.current = std::mem::take(&mut self.gathered).freeze();
            } else {
                return self.gathered.split().freeze();
            }
        }
        if len == self.current.len() {
            return std::mem::take(&mut self.current);
        }
        let taken = self.current.slice(..len);
        self.current.advance(len);
        taken
    }
}
