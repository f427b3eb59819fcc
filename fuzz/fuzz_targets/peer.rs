//! Any bytes as what another member sends: read or refused, never a panic; and what was read as a
//! message is the same after it was written and read again.

#![no_main]

use base::MemberId;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use transport::codec::{Decoder, StreamKind};
use transport::{Pieces, wire};

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    for kind in [StreamKind::Message, StreamKind::Append] {
        let mut decoder = Decoder::new(kind, MemberId(1), MemberId(2));
        'stream: for piece in bytes.chunks(usize::from(cut) + 1) {
            decoder.push(Bytes::copy_from_slice(piece));
            loop {
                match decoder.decode() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
    }
    let (message, data) = match wire::decode(Bytes::copy_from_slice(bytes)) {
        Ok(wire::Decoded::Message(message)) => (message, Bytes::new()),
        Ok(wire::Decoded::Snapshot(message, data)) => (message, data),
        Ok(wire::Decoded::LinkHeartbeat) | Err(_) => return,
    };
    let mut pieces = Pieces::default();
    wire::encode(&message, &data, &mut pieces);
    let again = match wire::decode(pieces.take_joined()) {
        Ok(wire::Decoded::Message(message)) => (message, Bytes::new()),
        Ok(wire::Decoded::Snapshot(message, data)) => (message, data),
        Ok(wire::Decoded::LinkHeartbeat) | Err(_) => panic!("unreadable when written again"),
    };
    assert_eq!(again, (message, data));
});
