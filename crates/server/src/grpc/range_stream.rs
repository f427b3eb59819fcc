//! A range as a stream of chunks (KV-12 to KV-14), made one by one as the connection takes them,
//! so that a client may read any number of keys and the server holds one chunk of them.
//!
//! All chunks show the revision that the first one saw. Only the last one has a header, `more`
//! and `count`. Source: etcd: server/etcdserver/v3_server.go (rangeStream).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use state::{Identity, RangeReply};
use tonic::Status;

use super::budget::held_bytes;
use super::codec::{SplicedRange, WriteWire};
use super::kv::Kv;
use super::status::{self, refused};

/// Keys in the first chunk; later ones have more or fewer by the bytes of the one before.
const FIRST_CHUNK_KEYS: i64 = 10;

/// The only field of `RangeStreamResponse`.
const RANGE_RESPONSE_FIELD: u32 = 1;

/// Checks a request.
pub(crate) fn check(request: &pb::RangeRequest) -> Result<(), Status> {
    state::check_range(request).map_err(|refusal| refused(&refusal))?;
    let ascending =
        request.sort_order() == SortOrder::None || request.sort_order() == SortOrder::Ascend;
    if request.sort_target() != SortTarget::Key || !ascending {
        return Err(status::stream_of_sorted());
    }
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if bounds.iter().any(|bound| *bound != 0) {
        return Err(status::stream_of_filtered());
    }
    Ok(())
}

/// One message of the stream.
#[derive(Debug)]
pub(crate) struct Chunk(SplicedRange);

impl WriteWire for Chunk {
    fn len(&self) -> usize {
        let len = self.0.len();
        key_len(RANGE_RESPONSE_FIELD) + encoded_len_varint(len as u64) + len
    }

    fn write(self, buffer: &mut impl BufMut) {
        encode_key(RANGE_RESPONSE_FIELD, WireType::LengthDelimited, buffer);
        encode_varint(self.0.len() as u64, buffer);
        self.0.write(buffer);
    }
}

/// Chunks of a checked request.
pub(crate) fn chunks(
    kv: Arc<Kv>,
    request: pb::RangeRequest,
    who: Identity,
) -> impl Stream<Item = Result<Chunk, Status>> + Send + 'static {
    let progress = Progress::new(request, kv.handle.limits().request_bytes_max);
    let state = Some(Chunks { kv, who, progress });
    stream::unfold(state, |state| async {
        let mut chunks = state?;
        match chunks.next().await {
            Ok((chunk, done)) => Some((Ok(chunk), (!done).then_some(chunks))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

/// A stream under way.
#[derive(Debug)]
struct Chunks {
    kv: Arc<Kv>,
    who: Identity,
    progress: Progress,
}

impl Chunks {
    async fn next(&mut self) -> Result<(Chunk, bool), Status> {
        base::probe::failpoint("beforeRangeStreamChunk");
        let Kv { handle, budget, .. } = &*self.kv;
        // Each chunk is a read of its own: what is revoked meanwhile ends the stream.
        let denied = |refusal| refused(&refusal);
        let request = &self.progress.request;
        let authorized = handle.authorize(&self.who, request).map_err(denied)?;
        // Only while the chunk is made: from then on it counts for the connection.
        let _charge = self.kv.room(|| budget.estimate(handle, request)).await?;
        let reads = handle.reads();
        let reply = reads.range(authorized).map_err(denied)?;
        handle.check_still(&self.who, request).map_err(denied)?;
        let held = held_bytes(&reply.rows);
        budget.learn(reply.rows.len(), held);
        let (mut chunk, done) = self.progress.on_reply(reply);
        if done {
            chunk.header = Some(handle.header(self.progress.revision));
        }
        Ok((Chunk(chunk), done))
    }
}

/// What the next chunk asks for.
#[derive(Debug)]
struct Progress {
    request: pb::RangeRequest,
    /// Keys that may still be sent; `None` for all.
    left: Option<i64>,
    chunk_keys: i64,
    sent: i64,
    /// The store's revision when the first chunk was read.
    revision: i64,
    chunk_bytes: usize,
}

impl Progress {
    fn new(mut request: pb::RangeRequest, chunk_bytes: usize) -> Self {
        let left = (0 < request.limit).then_some(request.limit);
        request.limit = left.map_or(FIRST_CHUNK_KEYS, |left| left.min(FIRST_CHUNK_KEYS));
        let chunk_keys = request.limit;
        Self { request, left, chunk_keys, sent: 0, revision: 0, chunk_bytes }
    }

    /// Makes a chunk of what was read; `true` with the last one, whose header is the caller's.
    fn on_reply(&mut self, reply: RangeReply) -> (SplicedRange, bool) {
        if self.revision == 0 {
            self.revision = reply.revision;
            if self.request.revision <= 0 {
                self.request.revision = reply.revision;
            }
        }
        let keys = i64::try_from(reply.rows.len()).expect("rows are in memory");
        // The count is of everything from the chunk's first key on.
        let count = self.sent + reply.count;
        self.sent += keys;
        self.left = self.left.map(|left| left - keys);
        let done = self.request.count_only || !reply.more || self.left == Some(0);
        let more = reply.more && done;
        let last = reply.rows.last().filter(|_| !done).map(|row| row.decode().key);
        let reply = RangeReply { more, count: if done { count } else { 0 }, ..reply };
        let chunk = SplicedRange::new(None, reply);
        if let Some(last) = last {
            self.request.key = behind(&last);
            self.chunk_keys = adapted(self.chunk_keys, chunk.len(), self.chunk_bytes);
            self.request.limit =
                self.left.map_or(self.chunk_keys, |left| left.min(self.chunk_keys));
        }
        (chunk, done)
    }
}

/// The first key that may follow.
fn behind(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// Twice as many keys after a chunk of less than half the bytes wanted, half after one of more
/// than twice.
fn adapted(keys: i64, bytes: usize, wanted: usize) -> i64 {
    if bytes < wanted / 2 {
        keys.saturating_mul(2)
    } else if wanted.saturating_mul(2) < bytes {
        (keys / 2).max(1)
    } else {
        keys
    }
}

#[cfg(test)]
mod tests {
    use mvcc::Row;
    use prost::Message as _;
    use proto::mvccpb::KeyValue;

    use super::*;

    /// Plays a store of `keys` keys with values of `value_bytes`, and gives the sizes of chunks.
    fn play(keys: i64, value_bytes: usize, limit: i64) -> (Vec<usize>, SplicedRange) {
        let key = |number: i64| Bytes::from(format!("{number:08}"));
        let request = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            limit,
            ..Default::default()
        };
        let mut progress = Progress::new(request, 64 << 10);
        let (mut first, mut sizes) = (0, Vec::new());
        loop {
            assert!(first == 0 || progress.request.key == behind(&key(first - 1)));
            let asked = progress.request.limit.min(keys - first);
            let rows = (first..first + asked).map(|number| {
                let value = Bytes::from(vec![0; value_bytes]);
                let kv = KeyValue { key: key(number), value, ..Default::default() };
                Row(kv.encode_to_vec().into())
            });
            let reply = RangeReply {
                rows: rows.collect(),
                more: first + asked < keys,
                count: keys - first,
                revision: 40 + first,
            };
            first += asked;
            sizes.push(usize::try_from(asked).unwrap());
            let (chunk, done) = progress.on_reply(reply);
            assert_eq!(progress.request.revision, 40);
            if done {
                return (sizes, chunk);
            }
            assert_eq!((chunk.reply.more, chunk.reply.count), (false, 0));
        }
    }

    /// KV-13.
    #[test]
    fn chunks_grow_towards_the_size_of_a_request() {
        let (sizes, last) = play(1000, 100, 0);
        assert_eq!(sizes, [10, 20, 40, 80, 160, 320, 320, 50]);
        assert_eq!((last.reply.more, last.reply.count), (false, 1000));
        let (sizes, _) = play(30, 20_000, 0);
        assert_eq!(sizes, [10, 5, 5, 5, 5]);
        let (sizes, _) = play(3, 1_000_000, 0);
        assert_eq!(sizes, [3]);
    }

    /// KV-13: `more` and `count` are those of the whole range.
    #[test]
    fn a_limit_ends_the_stream() {
        let (sizes, last) = play(100, 10, 25);
        assert_eq!(sizes, [10, 15]);
        assert_eq!((last.reply.more, last.reply.count), (true, 100));
        let (sizes, last) = play(100, 10, 100);
        assert_eq!(sizes, [10, 20, 40, 30]);
        assert_eq!((last.reply.more, last.reply.count), (false, 100));
        let (sizes, last) = play(0, 10, 0);
        assert_eq!((sizes, last.reply.count), (vec![0], 0));
    }

    #[test]
    fn a_chunk_is_the_encoded_message() {
        let kv = KeyValue { key: Bytes::from_static(b"k"), ..Default::default() };
        let reply = RangeReply {
            rows: vec![Row(kv.encode_to_vec().into())],
            more: true,
            count: 7,
            revision: 3,
        };
        let header = Some(pb::ResponseHeader { revision: 3, ..Default::default() });
        let chunk = Chunk(SplicedRange::new(header, reply));
        let whole = pb::RangeStreamResponse {
            range_response: Some(pb::RangeResponse { header, kvs: vec![kv], more: true, count: 7 }),
        };
        let mut bytes = Vec::new();
        assert_eq!(chunk.len(), whole.encoded_len());
        chunk.write(&mut bytes);
        assert_eq!(bytes, whole.encode_to_vec());
    }
}
