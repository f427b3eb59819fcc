//! The messages of a reply, out of the frames of its body.

use bytes::{Buf, BufMut as _, Bytes, BytesMut};

use super::PREFIX_LEN;

/// Bytes that arrived and are not taken.
#[derive(Debug, Default)]
pub(super) struct Replies {
    arrived: BytesMut,
    /// Bytes that came since `arrived` was moved last: no more than this is kept in memory.
    kept: usize,
}

impl Replies {
    /// Adds a frame: messages do not end where frames end.
    pub(super) fn put(&mut self, frame: impl Buf) {
        self.kept += frame.remaining();
        self.arrived.put(frame);
    }

    /// The next message without its prefix, if all of it is here. It shares the memory of its frame.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let prefix = self.arrived.first_chunk::<PREFIX_LEN>()?;
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        let len = usize::try_from(len).expect("lengths fit in memory");
        if self.arrived.len() - PREFIX_LEN < len {
            return None;
        }
        self.arrived.advance(PREFIX_LEN);
        let message = self.arrived.split_to(len).freeze();
        // What is left may have to wait for a slow client, and must not keep all that is taken. Each
        // byte is copied once at most this way, however small the messages are.
        if self.arrived.len() <= self.kept / 2 {
            self.arrived = BytesMut::from(&self.arrived[..]);
            self.kept = self.arrived.len();
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(lens: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (nth, len) in (0_u8..=u8::MAX).cycle().zip(lens) {
            bytes.push(0);
            bytes.extend_from_slice(&u32::try_from(*len).unwrap().to_be_bytes());
            bytes.resize(bytes.len() + len, nth);
        }
        bytes
    }

    /// However the body is cut into frames.
    #[test]
    fn messages_come_out_as_they_went_in() {
        let lens = [3, 0, 1, 700, 2, 2, 90, 0];
        let bytes = framed(&lens);
        for frame_len in [1, 2, 5, 6, 7, 64, 705, 710, bytes.len()] {
            let (mut replies, mut found) = (Replies::default(), Vec::new());
            for frame in bytes.chunks(frame_len) {
                replies.put(frame);
                found.extend(std::iter::from_fn(|| replies.take()));
            }
            let expected = (0_u8..).zip(&lens).map(|(nth, len)| vec![nth; *len]);
            assert!(found.iter().eq(&expected.collect::<Vec<_>>()), "{frame_len}: {found:?}");
            assert_eq!(replies.arrived.len(), 0);
        }
    }

    #[test]
    fn what_waits_does_not_keep_what_is_taken() {
        let mut replies = Replies::default();
        replies.put(&framed(&[60_000, 100, 100])[..]);
        assert_eq!(replies.take().map(|message| message.len()), Some(60_000));
        assert_eq!(replies.kept, replies.arrived.len());
        assert!(replies.arrived.capacity() < 1_000, "{}", replies.arrived.capacity());

        replies.put(&framed(&[100; 200])[..]);
        for left in (0..202).rev() {
            assert_eq!(replies.take().map(|message| message.len()), Some(100));
            assert!(replies.kept <= 2 * left * 105 + 1, "{left}: {}", replies.kept);
        }
        assert_eq!((replies.take(), replies.kept), (None, 0));
    }
}
