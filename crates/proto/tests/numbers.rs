//! Numbers of fields as clients of other languages know them: bytes, written by hand.

use prost::Message as _;
use retcd_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use retcd_proto::mvccpb::event::EventType;
use retcd_proto::mvccpb::{Event, KeyValue};

/// W-12: 1 to 7, and 11 for the events.
#[test]
fn replies_of_a_watch_have_etcds_numbers() {
    let whole = WatchResponse {
        header: Some(ResponseHeader { revision: 5, ..Default::default() }),
        watch_id: 2,
        created: true,
        canceled: true,
        compact_revision: 3,
        cancel_reason: "x".to_owned(),
        fragment: true,
        events: vec![Event::default()],
    };
    let bytes = [
        &[0x0A, 2, 0x18, 5][..],
        &[0x10, 2, 0x18, 1, 0x20, 1, 0x28, 3],
        &[0x32, 1, b'x', 0x38, 1, 0x5A, 0],
    ];
    assert_eq!(whole.encode_to_vec(), bytes.concat());
    assert_eq!(WatchResponse::decode(&bytes.concat()[..]), Ok(whole));
}

/// W-13.
#[test]
fn events_have_etcds_numbers() {
    let row = |revision| KeyValue { mod_revision: revision, ..Default::default() };
    let delete =
        Event { r#type: EventType::Delete.into(), kv: Some(row(7)), prev_kv: Some(row(6)) };
    assert_eq!(delete.encode_to_vec(), [0x08, 1, 0x12, 2, 0x18, 7, 0x1A, 2, 0x18, 6]);
    assert_eq!(i32::from(EventType::Put), 0);
}
