//! JSON of requests as Go reads it: names of fields in any case, `null` for what is not given,
//! nothing but an object for a struct.
//!
//! Source: Go's encoding/json.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Reads the first value of a text into something whose fields have names in small letters.
/// `None` if it is none.
pub(super) fn first<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    fields(values.next()?.ok()?)
}

/// What Go calls the kind of a value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Go's text for what is wrong with a text that is no JSON, where it is one of the usual mistakes.
pub(super) fn fault(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let said = error.to_string();
    let places = [
        ("expected value", "looking for beginning of value"),
        ("trailing comma", "looking for beginning of value"),
        ("trailing characters", "after top-level value"),
        ("key must be a string", "looking for beginning of object key string"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
    ];
    let place = places.iter().find(|(ours, _)| said.starts_with(ours));
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    let at = line.and_then(|line| line.get(error.column().checked_sub(1)?));
    match (place, at) {
        (Some((_, place)), Some(byte)) => {
            format!("invalid character {:?} {place}", char::from(*byte))
        }
        (None, _) | (_, None) => said,
    }
}

/// Reads a value into something whose fields have names in small letters.
fn fields<T: DeserializeOwned>(value: Value) -> Option<T> {
    let object = match value {
        Value::Null => Value::Object(Map::new()),
        Value::Object(_) => folded(value),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => return None,
    };
    serde_json::from_value(object).ok()
}

fn folded(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let given = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(given.map(|(name, value)| (name.to_lowercase(), folded(value))).collect())
        }
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Pair {
        left: String,
        right: Option<Vec<String>>,
    }

    /// V2-160.
    #[test]
    fn structs_are_read_as_go_does() {
        let read = |text: &str| first::<Pair>(text.as_bytes());
        let pair = |left: &str| Some(Pair { left: left.to_owned(), right: None });
        assert_eq!(read("{\"LEFT\":\"a\",\"right\":null,\"more\":[1]} behind"), pair("a"));
        assert_eq!(read("null"), pair(""));
        for wrong in ["", "{", "[]", "[\"a\",[]]", "1", "\"x\"", "{\"left\":1}"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
