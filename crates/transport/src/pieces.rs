//! Bytes on their way out: small ones gathered, large ones shared instead of copied.
//!
//! What was put in comes out in order; where the cuts are means nothing.

use bytes::{BufMut as _, Bytes, BytesMut};

/// From this size on a payload travels as its own piece: below, copying it is cheaper than one
/// more buffer in the write.
const SHARED_BYTES_MIN: usize = 8 << 10;

/// A sequence of bytes made of pieces.
#[derive(Debug, Default)]
pub struct Pieces {
    ready: Vec<Bytes>,
    gathered: BytesMut,
    len: usize,
}

impl Pieces {
    /// How many bytes there are in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was put in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes all pieces out, in order.
    #[must_use]
    pub fn take(&mut self) -> Vec<Bytes> {
        self.cut();
        self.len = 0;
        std::mem::take(&mut self.ready)
    }

    /// Takes everything out as one piece; copies if there were several.
    #[must_use]
    pub fn take_joined(&mut self) -> Bytes {
        let mut pieces = self.take();
        if pieces.len() == 1 {
            return pieces.swap_remove(0);
        }
        pieces.concat().into()
    }

    pub(crate) fn put_u8(&mut self, value: u8) {
        self.gathered.put_u8(value);
        self.len += 1;
    }

    /// Big-endian, as every length on the wire.
    pub(crate) fn put_u64(&mut self, value: u64) {
        self.gathered.put_u64(value);
        self.len += 8;
    }

    pub(crate) fn put_varint(&mut self, value: u64) {
        let before = self.gathered.len();
        prost::encoding::encode_varint(value, &mut self.gathered);
        self.len += self.gathered.len() - before;
    }

    /// Shares `bytes` if it is large.
    pub(crate) fn put_bytes(&mut self, bytes: &Bytes) {
        self.len += bytes.len();
        if bytes.len() < SHARED_BYTES_MIN {
            self.gathered.put_slice(bytes);
        } else {
            self.cut();
            self.ready.push(bytes.clone());
        }
    }

    fn cut(&mut self) {
        if !self.gathered.is_empty() {
            self.ready.push(self.gathered.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_large_payloads_are_shared() {
        let large = Bytes::from(vec![7; SHARED_BYTES_MIN]);
        let mut pieces = Pieces::default();
        pieces.put_u8(1);
        pieces.put_bytes(&large);
        pieces.put_varint(300);
        pieces.put_bytes(&Bytes::from_static(b"small"));
        assert_eq!(pieces.len(), 1 + SHARED_BYTES_MIN + 2 + 5);
        let taken = pieces.take();
        assert_eq!(taken.len(), 3);
        assert_eq!(taken[1].as_ptr(), large.as_ptr());
        assert_eq!(&taken[2][..], b"\xac\x02small");
        assert!(pieces.is_empty());
    }
}
