//! Messages of gRPC as JSON and back, as protojson writes and reads them (GW-13, GW-14, GW-17).

use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde::de::IgnoredAny;
use serde_json::Value;
use tonic::Status;

/// What is known of all messages; read when the gateway is first used.
static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(proto::DESCRIPTORS).expect("the generated descriptors are whole")
});

/// Characters of JSON for a byte of a message, at most: base64 takes four for three, and a byte of
/// a number may be a quoted digit of a field with a long name.
const TEXT_FOR_BYTE: usize = 2;

/// Space for names and blanks beside that.
const TEXT_OVERHEAD_BYTES: usize = 64 << 10;

/// How long the text of a request may be whose message may have so many bytes.
pub(super) fn text_bytes_max(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_mul(TEXT_FOR_BYTE).saturating_add(TEXT_OVERHEAD_BYTES)
}

/// The two messages of a call.
#[derive(Clone, Debug)]
pub(super) struct Form {
    request: MessageDescriptor,
    reply: MessageDescriptor,
}

impl Form {
    /// The messages of `/service/method`.
    pub(super) fn of(call: &str) -> Option<Self> {
        let (service, name) = call.strip_prefix('/')?.split_once('/')?;
        let service = DESCRIPTORS.get_service_by_name(service)?;
        let method = service.methods().find(|method| method.name() == name)?;
        Some(Self { request: method.input(), reply: method.output() })
    }

    /// The message that a text says; fields nobody knows are passed over.
    ///
    /// # Errors
    ///
    /// It is no such message: InvalidArgument, with the place.
    pub(super) fn request(&self, text: &[u8]) -> Result<Vec<u8>, Status> {
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let mut reader = serde_json::Deserializer::from_slice(text);
        let form = self.request.clone();
        match DynamicMessage::deserialize_with_options(form, &mut reader, &options) {
            Ok(message) => Ok(message.encode_to_vec()),
            Err(error) => Err(Status::invalid_argument(bad_text(text, &error))),
        }
    }

    /// A reply as one line of text.
    ///
    /// # Errors
    ///
    /// It is not a message, which is our fault.
    pub(super) fn reply(&self, message: &[u8]) -> Result<String, Status> {
        let broken = |error: &dyn std::error::Error| {
            Status::internal(format!("writing {} as JSON: {error}", self.reply.full_name()))
        };
        let message = DynamicMessage::decode(self.reply.clone(), message);
        let message = message.map_err(|error| broken(&error))?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        let mut text = Vec::new();
        let mut writer = serde_json::Serializer::new(&mut text);
        let written = message.serialize_with_options(&mut writer, &options);
        written.map_err(|error| broken(&error))?;
        String::from_utf8(text).map_err(|error| broken(&error))
    }
}

/// The first value of a text, if there is one: what follows it is nobody's concern, as for Go's
/// decoder.
///
/// # Errors
///
/// The text does not begin with a value, or breaks off in it: InvalidArgument, in Go's words.
pub(super) fn first_value(text: &[u8]) -> Result<Option<&[u8]>, Status> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match values.next() {
        None => Ok(None),
        Some(Ok(_)) => Ok(Some(&text[..values.byte_offset()])),
        Some(Err(error)) => Err(Status::invalid_argument(bad_text(text, &error))),
    }
}

/// What of a text that goes on arriving is a value; `None` while it is not whole.
///
/// # Errors
///
/// As [`first_value`].
pub(super) fn whole_value(text: &[u8]) -> Result<Option<usize>, Status> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match values.next() {
        None => Ok(None),
        Some(Ok(_)) => Ok(Some(values.byte_offset())),
        Some(Err(error)) if error.is_eof() => Ok(None),
        Some(Err(error)) => Err(Status::invalid_argument(bad_text(text, &error))),
    }
}

/// Why a text is not what is asked for.
fn bad_text(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let (line, column) = (error.line(), error.column());
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if let Some(first) = first.filter(|byte| !begins_value(**byte)) {
        let first = char::from(*first);
        return format!("invalid character '{first}' looking for beginning of value");
    }
    // The place is said once, and in front.
    let cause = error.to_string();
    let place = format!(" at line {line} column {column}");
    let cause = cause.strip_suffix(&place).unwrap_or(&cause);
    format!("proto: (line {line}:{column}): {cause}")
}

fn begins_value(byte: u8) -> bool {
    matches!(byte, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
}

/// GW-18.
pub(super) fn error(status: &Status) -> String {
    let code = i32::from(status.code());
    format!(r#"{{"code":{code}, "message":{}}}"#, Value::from(status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::etcdserverpb::{PutRequest, RangeRequest, StatusResponse};

    fn put(text: &str) -> Result<PutRequest, Status> {
        let form = Form::of("/etcdserverpb.KV/Put").unwrap();
        form.request(text.as_bytes()).map(|bytes| PutRequest::decode(&bytes[..]).unwrap())
    }

    /// GW-13, GW-14.
    #[test]
    fn requests_are_read_in_every_form_that_protojson_reads() {
        let whole = put(r#"{"key":"Zm9v","value":"YmFy","lease":"7","prevKv":true,"x":[1]}"#);
        let whole = whole.unwrap();
        assert_eq!((&whole.key[..], &whole.value[..]), (&b"foo"[..], &b"bar"[..]));
        assert_eq!((whole.lease, whole.prev_kv), (7, true));
        // Base64 of both alphabets, with and without what fills it up.
        assert_eq!(put(r#"{"key":"_-8"}"#).unwrap().key, put(r#"{"key":"/+8="}"#).unwrap().key);
        assert_eq!(put(r#"{"lease":7,"prev_kv":true}"#).unwrap().lease, 7);
        let range = Form::of("/etcdserverpb.KV/Range").unwrap();
        for text in [r#"{"sort_order":"DESCEND"}"#, r#"{"sortOrder":2}"#] {
            let range = range.request(text.as_bytes()).unwrap();
            assert_eq!(RangeRequest::decode(&range[..]).unwrap().sort_order, 2);
        }
        // A name that nobody knows is passed over as a field is.
        let range = range.request(br#"{"sort_order":"NOPE"}"#).unwrap();
        assert_eq!(RangeRequest::decode(&range[..]).unwrap(), RangeRequest::default());
    }

    /// GW-17.
    #[test]
    fn bad_requests_are_told_where_they_are_bad() {
        let text = |text: &str| put(text).unwrap_err().message().to_owned();
        assert!(
            text(r#"{"key":"%%"}"#).starts_with("proto: (line 1:"),
            "{}",
            text(r#"{"key":"%%"}"#)
        );
        assert!(text(r#"{"lease":"x"}"#).starts_with("proto: (line 1:"));
        assert!(text("[1]").starts_with("proto: (line 1:"));
        let first = |text: &[u8]| first_value(text).unwrap_err().message().to_owned();
        assert_eq!(first(b"xyz"), "invalid character 'x' looking for beginning of value");
        assert_eq!(first(br#"{"key":"#), "unexpected EOF");
        assert_eq!(first_value(b" ").unwrap(), None);
        assert_eq!(first_value(b"{} and more").unwrap(), Some(&b"{}"[..]));
    }

    /// GW-13, GW-14, GW-27.
    #[test]
    fn replies_have_the_fields_names_and_nothing_at_its_default() {
        let form = Form::of("/etcdserverpb.Maintenance/Status").unwrap();
        let reply = StatusResponse { version: "3".to_owned(), db_size: 5, ..Default::default() };
        let text = form.reply(&reply.encode_to_vec()).unwrap();
        assert_eq!(text, r#"{"version":"3","dbSize":"5"}"#);
        assert_eq!(form.reply(b"").unwrap(), "{}");
    }

    #[test]
    fn values_are_whole_or_awaited() {
        assert_eq!(whole_value(b" {\"a\":1}{").unwrap(), Some(8));
        assert_eq!(whole_value(b"{\"a\":").unwrap(), None);
        assert_eq!(whole_value(b"").unwrap(), None);
        assert!(whole_value(b"}").is_err());
    }
}
