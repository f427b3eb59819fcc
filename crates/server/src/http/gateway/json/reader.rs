//! JSON as a message, by the rules of protojson: names of both kinds, numbers as text, base64 of
//! both alphabets, unknown fields passed over, nothing said twice.
//!
//! Reads what [`super::scanner`] found to be one whole value and nothing else. Refusals are in the
//! words of protojson, with the place counted from the value's first byte (source:
//! google.golang.org/protobuf, encoding/protojson/decode.go).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::number;

/// Messages within messages at most: what prost decodes.
const DEPTH_MAX: usize = 100;

/// Where something stands in a value: line and character, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "(line {}:{})", self.line, self.column)
    }
}

/// Why a value is not the message that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotMessage {
    /// Another kind of value than the message has there.
    #[error("proto: syntax error {place}: unexpected token {token}")]
    Token { place: Place, token: String },
    /// A string with other bytes than UTF-8's.
    #[error("proto: syntax error {place}: invalid UTF-8 in string")]
    Utf8 { place: Place },
    /// Half of a character that takes two escapes.
    #[error("proto: syntax error {place}: invalid escape code {code} in string")]
    Escape { place: Place, code: String },
    /// Such a half at the end of the text.
    #[error("proto: unexpected EOF")]
    End,
    /// A field that was there before.
    #[error("proto: {place}: duplicate field {name}")]
    Duplicate { place: Place, name: String },
    /// A field that excludes another one, which was there before.
    #[error("proto: {place}: error parsing {name}, oneof {oneof} is already set")]
    Another { place: Place, name: String, oneof: String },
    /// A value that the field cannot have.
    #[error("proto: {place}: invalid value for {kind} field {name}: {value}")]
    Value { place: Place, kind: &'static str, name: String, value: String },
    /// More messages within messages than are read.
    #[error("proto: exceeded max recursion depth")]
    Depth,
}

/// The message of this form that `text` says.
///
/// # Errors
///
/// It says none.
///
/// # Panics
///
/// If `text` is not one whole value, as the scanner finds them.
pub(super) fn read(form: MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, NotMessage> {
    let first = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(text.len());
    Reader { text: &text[first..], at: 0 }.message(form, 1)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Null,
    Bool(bool),
    Number,
    String,
    ObjectOpen,
    ObjectClose,
    ArrayOpen,
    ArrayClose,
}

/// A piece of the text.
struct Token<'t> {
    kind: TokenKind,
    at: usize,
    raw: &'t [u8],
    /// What a string says.
    said: String,
}

impl Token<'_> {
    fn raw(&self) -> String {
        String::from_utf8_lossy(self.raw).into_owned()
    }
}

struct Reader<'t> {
    text: &'t [u8],
    /// Of the next byte to read.
    at: usize,
}

impl<'t> Reader<'t> {
    fn place(&self, at: usize) -> Place {
        let before = &self.text[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let chunks = before[start..].utf8_chunks();
        let characters = chunks.map(|chunk| chunk.valid().chars().count() + chunk.invalid().len());
        Place { line, column: characters.sum::<usize>() + 1 }
    }

    /// What the next token begins with; nothing of it is read.
    fn peek(&mut self) -> u8 {
        // Where they stand was seen to be right.
        let is_between = |byte: &u8| byte.is_ascii_whitespace() || b",:".contains(byte);
        let rest = &self.text[self.at..];
        self.at += rest.iter().take_while(|byte| is_between(byte)).count();
        *self.text.get(self.at).expect("a whole value does not end within another")
    }

    fn next(&mut self) -> Result<Token<'t>, NotMessage> {
        let first = self.peek();
        let (at, rest) = (self.at, &self.text[self.at..]);
        let mut said = String::new();
        let (kind, len) = match first {
            b'{' => (TokenKind::ObjectOpen, 1),
            b'}' => (TokenKind::ObjectClose, 1),
            b'[' => (TokenKind::ArrayOpen, 1),
            b']' => (TokenKind::ArrayClose, 1),
            b'n' => (TokenKind::Null, "null".len()),
            b't' => (TokenKind::Bool(true), "true".len()),
            b'f' => (TokenKind::Bool(false), "false".len()),
            b'"' => {
                let len;
                (said, len) = self.string(rest)?;
                (TokenKind::String, len)
            }
            _ => {
                let is_of_number =
                    |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                (TokenKind::Number, rest.iter().take_while(is_of_number).count())
            }
        };
        self.at += len;
        Ok(Token { kind, at, raw: &rest[..len], said })
    }

    /// What the string at the beginning of `rest` says, and its length with the quotes.
    fn string(&self, rest: &[u8]) -> Result<(String, usize), NotMessage> {
        let (mut said, mut at) = (String::new(), 1);
        loop {
            let behind = &rest[at..];
            let special = behind.iter().position(|byte| b"\"\\".contains(byte));
            let special = special.expect("a whole string has an end");
            let plain = std::str::from_utf8(&behind[..special]);
            said += plain.map_err(|_| NotMessage::Utf8 { place: self.place(self.at) })?;
            at += special + 1;
            if behind[special] == b'"' {
                return Ok((said, at));
            }
            at += 1;
            said.push(match rest[at - 1] {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let (character, len) = self.escaped(&rest[at..])?;
                    at += len;
                    character
                }
                itself => char::from(itself),
            });
        }
    }

    /// The character of the digits behind `\u`, and how many bytes say it.
    fn escaped(&self, rest: &[u8]) -> Result<(char, usize), NotMessage> {
        let unit = |digits: &[u8]| {
            std::str::from_utf8(digits).ok().and_then(|digits| u16::from_str_radix(digits, 16).ok())
        };
        let first = unit(&rest[..4]).expect("four digits follow");
        if let Some(Ok(character)) = char::decode_utf16([first]).next() {
            return Ok((character, 4));
        }
        let second = rest.get(4..10).ok_or(NotMessage::End)?;
        let pair = second.strip_prefix(b"\\u").and_then(unit);
        let pair = pair.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
        let refused = || NotMessage::Escape {
            place: self.place(self.at),
            code: base::quote::quote(&String::from_utf8_lossy(second)),
        };
        Ok((pair.ok_or_else(refused)?, 10))
    }

    fn unexpected(&self, token: &Token<'_>) -> NotMessage {
        NotMessage::Token { place: self.place(token.at), token: token.raw() }
    }

    fn open(&mut self, kind: TokenKind) -> Result<(), NotMessage> {
        let token = self.next()?;
        if token.kind == kind { Ok(()) } else { Err(self.unexpected(&token)) }
    }

    fn message(
        &mut self,
        form: MessageDescriptor,
        depth: usize,
    ) -> Result<DynamicMessage, NotMessage> {
        if DEPTH_MAX < depth {
            return Err(NotMessage::Depth);
        }
        self.open(TokenKind::ObjectOpen)?;
        let (mut seen, mut seen_oneofs) = (BTreeSet::new(), BTreeSet::new());
        let mut message = DynamicMessage::new(form.clone());
        loop {
            let name = self.next()?;
            if name.kind == TokenKind::ObjectClose {
                return Ok(message);
            }
            let Some(field) = find(&form, &name.said) else {
                self.pass_over()?;
                continue;
            };
            let place = self.place(name.at);
            if !seen.insert(field.number()) {
                return Err(NotMessage::Duplicate { place, name: name.raw() });
            }
            if self.peek() == b'n' {
                self.next()?;
                continue;
            }
            if let Some(oneof) = field.containing_oneof()
                && !seen_oneofs.insert(oneof.full_name().to_owned())
            {
                let oneof = oneof.full_name().to_owned();
                return Err(NotMessage::Another { place, name: name.raw(), oneof });
            }
            let value = if field.is_list() {
                Some(Value::List(self.list(&field, depth)?))
            } else {
                self.value(&field, depth)?
            };
            if let Some(value) = value {
                message.set_field(&field, value);
            }
        }
    }

    fn list(&mut self, field: &FieldDescriptor, depth: usize) -> Result<Vec<Value>, NotMessage> {
        self.open(TokenKind::ArrayOpen)?;
        let mut values = Vec::new();
        while self.peek() != b']' {
            values.extend(self.value(field, depth)?);
        }
        self.next()?;
        Ok(values)
    }

    /// One value of a field; `None` for an enumeration's name that nobody knows.
    fn value(
        &mut self,
        field: &FieldDescriptor,
        depth: usize,
    ) -> Result<Option<Value>, NotMessage> {
        let kind = field.kind();
        if let Kind::Message(form) = kind {
            return Ok(Some(Value::Message(self.message(form, depth + 1)?)));
        }
        let token = self.next()?;
        let value = match (&kind, token.kind) {
            (Kind::Bool, TokenKind::Bool(value)) => Some(Value::Bool(value)),
            (Kind::String, TokenKind::String) => Some(Value::String(token.said.clone())),
            (Kind::Bytes, TokenKind::String) => bytes(&token.said).map(Value::Bytes),
            (Kind::Enum(form), TokenKind::String) => {
                let Some(known) = form.get_value_by_name(&token.said) else { return Ok(None) };
                Some(Value::EnumNumber(known.number()))
            }
            (Kind::Enum(_), TokenKind::Number) => {
                integer(&token).and_then(|text| text.parse().ok()).map(Value::EnumNumber)
            }
            (_, TokenKind::Number | TokenKind::String) => {
                integer(&token).and_then(|text| of_kind(&text, &kind))
            }
            _ => None,
        };
        let refused = || NotMessage::Value {
            place: self.place(token.at),
            kind: name_of(&kind),
            name: field.json_name().to_owned(),
            value: token.raw(),
        };
        value.map(Some).ok_or_else(refused)
    }

    /// Leaves out one value.
    fn pass_over(&mut self) -> Result<(), NotMessage> {
        let mut open = 0_usize;
        loop {
            match self.next()?.kind {
                TokenKind::ObjectOpen | TokenKind::ArrayOpen => open += 1,
                TokenKind::ObjectClose | TokenKind::ArrayClose => open -= 1,
                TokenKind::Null | TokenKind::Bool(_) | TokenKind::Number | TokenKind::String => {}
            }
            if open == 0 {
                return Ok(());
            }
        }
    }
}

/// The field of a name: `rangeEnd` or `range_end`.
fn find(form: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    form.get_field_by_json_name(name).or_else(|| form.get_field_by_name(name))
}

/// What a number says, or a string with nothing but one in front.
fn integer(token: &Token<'_>) -> Option<String> {
    if token.kind == TokenKind::Number {
        return number::integer(&token.raw());
    }
    let is_trimmed = token.said.trim().len() == token.said.len();
    is_trimmed.then(|| number::integer(&token.said)).flatten()
}

/// An integer as a field of this kind has it.
fn of_kind(text: &str, kind: &Kind) -> Option<Value> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => text.parse().ok().map(Value::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => text.parse().ok().map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => text.parse().ok().map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => text.parse().ok().map(Value::U64),
        // No request has the first two; a test sees to it.
        Kind::Double
        | Kind::Float
        | Kind::Bool
        | Kind::String
        | Kind::Bytes
        | Kind::Message(_)
        | Kind::Enum(_) => None,
    }
}

fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Message(_) => "message",
        Kind::Enum(_) => "enum",
    }
}

/// Base64 as Go's decoder takes it: either alphabet, but not both; filled up if its length says so;
/// with line ends anywhere.
fn bytes(text: &str) -> Option<Bytes> {
    let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let is_filled = text.len().is_multiple_of(4);
    let padding = if is_filled {
        DecodePaddingMode::RequireCanonical
    } else {
        DecodePaddingMode::RequireNone
    };
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(padding);
    let engine = GeneralPurpose::new(&alphabet, config);
    let decoded = if text.contains(['\r', '\n']) {
        engine.decode(text.replace(['\r', '\n'], ""))
    } else {
        engine.decode(text)
    };
    decoded.ok().map(Bytes::from)
}

#[cfg(test)]
mod tests;
