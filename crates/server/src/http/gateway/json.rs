//! Messages of gRPC as JSON and back, as protojson writes and reads them (GW-13, GW-14, GW-17).

mod number;
mod reader;
mod scanner;

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use tonic::Status;

use scanner::{NotJson, Scanner};

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

    /// The message that a value says, as [`Values`] finds them; fields nobody knows are passed over.
    ///
    /// # Errors
    ///
    /// It is no such message: InvalidArgument, with the place.
    pub(super) fn request(&self, value: &[u8]) -> Result<Vec<u8>, Status> {
        let message = reader::read(self.request.clone(), value);
        let message = message.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(message.encode_to_vec())
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

/// A text that arrives bit by bit, and its values.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// What arrived and is in no value that was taken.
    text: BytesMut,
    /// How much of it was looked at.
    scanned: usize,
    scanner: Scanner,
}

impl Values {
    /// Adds what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Takes the next value, if it is whole.
    ///
    /// # Errors
    ///
    /// The text does not go on with a value: InvalidArgument, in Go's words. No value follows.
    pub(super) fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let found = self.scanner.scan(&self.text[self.scanned..]).map_err(|error| refused(&error));
        let Some(len) = found? else {
            self.scanned = self.text.len();
            return Ok(None);
        };
        let value = self.text.split_to(self.scanned + len);
        self.scanned = 0;
        Ok(Some(value.freeze()))
    }
}

/// The first value of a text, if there is one: what follows it is nobody's concern, as for Go's
/// decoder.
///
/// # Errors
///
/// The text does not begin with a value, or breaks off in it: InvalidArgument, in Go's words.
pub(super) fn first_value(text: &[u8]) -> Result<Option<&[u8]>, Status> {
    let mut scanner = Scanner::default();
    match scanner.scan(text) {
        Ok(Some(len)) => Ok(Some(&text[..len])),
        Ok(None) if scanner.may_end() => Ok(Some(text)),
        Ok(None) if text.iter().all(u8::is_ascii_whitespace) => Ok(None),
        Ok(None) => Err(refused(&NotJson::End)),
        Err(error) => Err(refused(&error)),
    }
}

fn refused(error: &NotJson) -> Status {
    Status::invalid_argument(error.to_string())
}

/// GW-18.
pub(super) fn error(status: &Status) -> String {
    let code = i32::from(status.code());
    format!(r#"{{"code":{code}, "message":{}}}"#, Value::from(status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::etcdserverpb::{PutRequest, StatusResponse};

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
        assert_eq!(put(r#"{"lease":7,"prev_kv":true}"#).unwrap().lease, 7);
    }

    /// GW-17.
    #[test]
    fn the_first_value_counts() {
        let error = |text: &[u8]| first_value(text).unwrap_err().message().to_owned();
        assert_eq!(error(b"xyz"), "invalid character 'x' looking for beginning of value");
        assert_eq!(error(br#"{"key":"#), "unexpected EOF");
        assert_eq!(error(b"nul"), "unexpected EOF");
        assert_eq!(first_value(b" \n").unwrap(), None);
        assert_eq!(first_value(b"{} and more").unwrap(), Some(&b"{}"[..]));
        assert_eq!(first_value(b" 17").unwrap(), Some(&b" 17"[..]));
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
        let mut values = Values::default();
        assert_eq!(values.take().unwrap(), None);
        values.push(b" {\"a\":");
        assert_eq!(values.take().unwrap(), None);
        values.push(b"1}{} 1");
        assert_eq!(values.take().unwrap().unwrap(), &b" {\"a\":1}"[..]);
        assert_eq!(values.take().unwrap().unwrap(), &b"{}"[..]);
        assert_eq!(values.take().unwrap(), None);
        assert_eq!(values.len(), 2);
        values.push(b"}");
        assert_eq!(values.take().unwrap().unwrap(), &b" 1"[..]);
        assert!(values.take().is_err());
    }
}
