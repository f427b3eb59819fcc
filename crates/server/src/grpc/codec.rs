//! Replies straight into the connection's buffer.
//!
//! Requests are decoded by prost. Replies are values that know how to write themselves
//! ([`WriteWire`]), so that a stored row or an event that many watchers share is spliced in as
//! bytes instead of being decoded and encoded again.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::etcdserverpb as pb;
use state::RangeReply;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::budget::Charge;
use super::request_body::PREFIX_LEN;
use super::status;

/// A reply that writes its own wire form.
pub(crate) trait WriteWire: Send + 'static {
    /// Bytes that [`WriteWire::write`] will write.
    fn len(&self) -> usize;

    /// Writes the message.
    fn write(self, buffer: &mut impl BufMut);

    /// Room in the budget of replies that the message needs until the connection has it.
    fn charge(&self) -> Option<Arc<Charge>> {
        None
    }
}

/// Appends a reply as one message of a stream, its prefix before it.
///
/// # Errors
///
/// The prefix cannot say how long it is.
pub(crate) fn frame(reply: impl WriteWire, buffer: &mut Vec<u8>) -> Result<(), Status> {
    let len = reply.len();
    buffer.reserve(PREFIX_LEN + len);
    put_prefix(len, buffer)?;
    reply.write(buffer);
    Ok(())
}

/// Appends what stands before a message of `len` bytes.
///
/// # Errors
///
/// As [`frame`].
pub(crate) fn put_prefix(len: usize, buffer: &mut Vec<u8>) -> Result<(), Status> {
    let said = u32::try_from(len).map_err(|_| status::reply_too_large(len))?;
    buffer.put_u8(0);
    buffer.put_u32(said);
    Ok(())
}

/// A unary reply as it goes out.
#[derive(Debug)]
pub(crate) struct Framed {
    /// The message and its prefix.
    pub(crate) bytes: Bytes,
    /// Its room in the budget of replies.
    pub(crate) charge: Option<Arc<Charge>>,
}

impl Framed {
    pub(crate) fn new(reply: impl WriteWire) -> Result<Self, Status> {
        let charge = reply.charge();
        let mut bytes = Vec::new();
        frame(reply, &mut bytes)?;
        Ok(Self { bytes: bytes.into(), charge })
    }
}

/// Decodes requests `D` by prost and lets replies `E` write themselves.
#[derive(Debug)]
pub(crate) struct DirectCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for DirectCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// The encoding half of [`DirectCodec`].
#[derive(Debug)]
pub(crate) struct DirectEncoder<E>(PhantomData<E>);

/// The decoding half of [`DirectCodec`].
#[derive(Debug)]
pub(crate) struct DirectDecoder<D>(PhantomData<D>);

impl<E: WriteWire, D: Message + Default + 'static> Codec for DirectCodec<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = DirectEncoder<E>;
    type Decoder = DirectDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        DirectEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        DirectDecoder(PhantomData)
    }
}

impl<E: WriteWire> Encoder for DirectEncoder<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.len());
        item.write(buffer);
        Ok(())
    }
}

impl<D: Message + Default> Decoder for DirectDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let decoded = D::decode(buffer).map_err(|error| status::malformed_message(&error))?;
        Ok(Some(decoded))
    }
}

/// A message of prost's, as it is.
#[derive(Debug)]
pub(crate) struct Plain<M> {
    message: M,
    charge: Option<Arc<Charge>>,
}

impl<M> Plain<M> {
    pub(crate) fn new(message: M) -> Self {
        Self { message, charge: None }
    }

    pub(crate) fn message(&self) -> &M {
        &self.message
    }

    /// A large message, with its room in the budget of replies.
    pub(crate) fn charged(message: M, charge: Option<Charge>) -> Self {
        Self { message, charge: charge.map(Arc::new) }
    }
}

impl<M: Message + 'static> WriteWire for Plain<M> {
    fn len(&self) -> usize {
        self.message.encoded_len()
    }

    fn charge(&self) -> Option<Arc<Charge>> {
        self.charge.clone()
    }

    fn write(self, buffer: &mut impl BufMut) {
        self.message.encode_raw(buffer);
    }
}

/// A `RangeResponse` whose rows are spliced in.
#[derive(Debug)]
pub(crate) struct SplicedRange {
    pub(crate) header: Option<pb::ResponseHeader>,
    pub(crate) reply: RangeReply,
    pub(crate) charge: Option<Arc<Charge>>,
}

impl SplicedRange {
    /// A reply that needs no room in the budget of replies.
    pub(crate) fn new(header: Option<pb::ResponseHeader>, reply: RangeReply) -> Self {
        Self { header, reply, charge: None }
    }
}

/// Fields of `RangeResponse`.
mod range_field {
    pub(super) const HEADER: u32 = 1;
    pub(super) const KVS: u32 = 2;
    pub(super) const MORE: u32 = 3;
    pub(super) const COUNT: u32 = 4;
}

/// Bytes of a length-delimited field.
pub(crate) fn delimited_len(field: u32, len: usize) -> usize {
    key_len(field) + encoded_len_varint(len as u64) + len
}

impl WriteWire for SplicedRange {
    fn len(&self) -> usize {
        let header = self.header.as_ref();
        let header = header.map_or(0, |h| delimited_len(range_field::HEADER, h.encoded_len()));
        let rows = self.reply.rows.iter().map(|row| delimited_len(range_field::KVS, row.0.len()));
        let tail = pb::RangeResponse {
            more: self.reply.more,
            count: self.reply.count,
            ..Default::default()
        };
        header + rows.sum::<usize>() + tail.encoded_len()
    }

    fn charge(&self) -> Option<Arc<Charge>> {
        self.charge.clone()
    }

    fn write(self, buffer: &mut impl BufMut) {
        if let Some(header) = &self.header {
            prost::encoding::message::encode(range_field::HEADER, header, buffer);
        }
        for row in self.reply.rows {
            encode_key(range_field::KVS, WireType::LengthDelimited, buffer);
            encode_varint(row.0.len() as u64, buffer);
            buffer.put_slice(&row.0);
        }
        if self.reply.more {
            prost::encoding::bool::encode(range_field::MORE, &true, buffer);
        }
        if self.reply.count != 0 {
            prost::encoding::int64::encode(range_field::COUNT, &self.reply.count, buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mvcc::Row;
    use proto::mvccpb::KeyValue;

    use super::*;

    /// KV-11: the spliced bytes are those prost would write.
    #[test]
    fn a_spliced_range_equals_the_encoded_message() {
        let kvs: Vec<KeyValue> = (0..5u8)
            .map(|n| KeyValue {
                key: Bytes::copy_from_slice(&[b'k', n]),
                value: Bytes::from(vec![n; usize::from(n) * 100]),
                mod_revision: i64::from(n) + 2,
                ..Default::default()
            })
            .collect();
        for (more, count) in [(false, 0), (true, 17), (false, 5)] {
            let header =
                Some(pb::ResponseHeader { revision: 9, raft_term: 2, ..Default::default() });
            let whole = pb::RangeResponse { header, kvs: kvs.clone(), more, count };
            let rows = kvs.iter().map(|kv| Row(kv.encode_to_vec().into())).collect();
            let spliced = SplicedRange::new(header, RangeReply { rows, more, count, revision: 9 });
            let mut bytes = Vec::new();
            assert_eq!(spliced.len(), whole.encoded_len());
            spliced.write(&mut bytes);
            assert_eq!(bytes, whole.encode_to_vec());
        }
    }
}
