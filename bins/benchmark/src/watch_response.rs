//! What the generator needs of a watch response, without decoding the rest.
//!
//! Not a decoder: a thousand watchers of a key get a thousand responses per put, and building
//! messages out of them would cost more than the server spends on sending. Malformed bytes read
//! as the end of the message.

/// The outline of a watch response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanned<'a> {
    /// It confirms a watcher.
    pub(crate) created: bool,
    /// It ends a watcher.
    pub(crate) canceled: bool,
    /// Number of events.
    pub(crate) events: u64,
    /// The value of the first event's key.
    pub(crate) first_value: Option<&'a [u8]>,
}

const RESPONSE_CREATED: u64 = 3;
const RESPONSE_CANCELED: u64 = 4;
const RESPONSE_EVENTS: u64 = 11;
const EVENT_KV: u64 = 2;
const KEY_VALUE_VALUE: u64 = 5;

/// Reads the outline of an encoded watch response.
pub(crate) fn scan(message: &[u8]) -> Scanned<'_> {
    let mut scanned = Scanned::default();
    for field in Fields(message) {
        match (field.number, field.value) {
            (RESPONSE_CREATED, Value::Number(number)) => scanned.created = number != 0,
            (RESPONSE_CANCELED, Value::Number(number)) => scanned.canceled = number != 0,
            (RESPONSE_EVENTS, Value::Bytes(event)) => {
                if scanned.events == 0 {
                    scanned.first_value = bytes_field(event, EVENT_KV)
                        .and_then(|key_value| bytes_field(key_value, KEY_VALUE_VALUE));
                }
                scanned.events += 1;
            }
            _ => {}
        }
    }
    scanned
}

fn bytes_field(message: &[u8], number: u64) -> Option<&[u8]> {
    Fields(message).find_map(|field| match field.value {
        Value::Bytes(bytes) if field.number == number => Some(bytes),
        Value::Bytes(_) | Value::Number(_) => None,
    })
}

/// The fields of an encoded message.
struct Fields<'a>(&'a [u8]);

struct Field<'a> {
    number: u64,
    value: Value<'a>,
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let tag = varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut self.0)?),
            2 => {
                let len = usize::try_from(varint(&mut self.0)?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            // No message here has fixed-size fields or groups.
            _ => return None,
        };
        Some(Field { number: tag >> 3, value })
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use proto::etcdserverpb::{ResponseHeader, WatchResponse};
    use proto::mvccpb::{Event, KeyValue};

    #[test]
    fn outline_agrees_with_the_decoded_message() {
        let event = |value: &'static str| Event {
            kv: Some(KeyValue {
                key: "k".into(),
                mod_revision: 300,
                value: value.into(),
                ..KeyValue::default()
            }),
            ..Event::default()
        };
        let response = WatchResponse {
            header: Some(ResponseHeader { revision: 1 << 40, ..ResponseHeader::default() }),
            watch_id: 5,
            canceled: true,
            cancel_reason: "because".to_owned(),
            events: vec![event("first"), event("second")],
            ..WatchResponse::default()
        };
        let wanted = Scanned {
            created: false,
            canceled: true,
            events: 2,
            first_value: Some(b"first".as_slice()),
        };
        assert_eq!(scan(&response.encode_to_vec()), wanted);
        let created = WatchResponse { created: true, ..WatchResponse::default() };
        assert!(scan(&created.encode_to_vec()).created);
    }

    #[test]
    fn cut_messages_do_not_panic() {
        let response = WatchResponse { created: true, watch_id: 1 << 60, ..Default::default() };
        let bytes = response.encode_to_vec();
        for len in 0..bytes.len() {
            scan(&bytes[..len]);
        }
    }
}
