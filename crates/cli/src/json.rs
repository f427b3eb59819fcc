//! JSON as Go's `encoding/json` writes etcd's structs: fields in declaration order, zero values
//! left out, bytes as base64, `<`, `>` and `&` escaped.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// A value that knows how Go would write it.
pub trait GoJson {
    /// Whether a field that may be left out is left out.
    fn is_zero(&self) -> bool;

    /// Appends the value.
    fn write(&self, out: &mut String);

    /// The value alone.
    fn to_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl GoJson for $number {
            fn is_zero(&self) -> bool {
                *self == 0
            }

            fn write(&self, out: &mut String) {
                write!(out, "{self}").expect("writing to a string");
            }
        })*
    };
}

numbers!(u32, u64, i32, i64);

impl GoJson for bool {
    fn is_zero(&self) -> bool {
        !self
    }

    fn write(&self, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }
}

impl GoJson for str {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, out: &mut String) {
        out.push('"');
        for character in self.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..=' ' if character != ' ' => push_code(out, character),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => push_code(out, character),
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}

fn push_code(out: &mut String, character: char) {
    write!(out, "\\u{:04x}", u32::from(character)).expect("writing to a string");
}

impl GoJson for &str {
    fn is_zero(&self) -> bool {
        str::is_zero(self)
    }

    fn write(&self, out: &mut String) {
        str::write(self, out);
    }
}

impl GoJson for String {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, out: &mut String) {
        self.as_str().write(out);
    }
}

impl GoJson for Bytes {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, out: &mut String) {
        out.push('"');
        STANDARD.encode_string(self, out);
        out.push('"');
    }
}

impl<T: GoJson> GoJson for Option<T> {
    fn is_zero(&self) -> bool {
        self.is_none()
    }

    fn write(&self, out: &mut String) {
        match self {
            Some(value) => value.write(out),
            None => out.push_str("null"),
        }
    }
}

/// An empty list that is not left out is Go's nil slice.
impl<T: GoJson> GoJson for Vec<T> {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, out: &mut String) {
        self.as_slice().write(out);
    }
}

impl<T: GoJson> GoJson for [T] {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, out: &mut String) {
        if self.is_empty() {
            out.push_str("null");
            return;
        }
        for (position, value) in self.iter().enumerate() {
            out.push(if position == 0 { '[' } else { ',' });
            value.write(out);
        }
        out.push(']');
    }
}

/// Writes the fields of one object.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut String,
    is_first: bool,
}

impl<'a> Object<'a> {
    /// Opens the object.
    pub fn new(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, is_first: true }
    }

    /// Writes a field whatever its value.
    pub fn always<T: GoJson + ?Sized>(&mut self, name: &str, value: &T) -> &mut Self {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(',');
        }
        write!(self.out, "\"{name}\":").expect("writing to a string");
        value.write(self.out);
        self
    }

    /// Writes a field unless it is zero.
    pub fn field<T: GoJson + ?Sized>(&mut self, name: &str, value: &T) -> &mut Self {
        if value.is_zero() { self } else { self.always(name, value) }
    }

    /// Closes the object.
    pub fn end(&mut self) {
        self.out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTL3-20.
    #[test]
    fn text_is_escaped_for_html() {
        assert_eq!(
            "a<b>&\"\\\n\u{1}\u{2028}é".to_json(),
            r#""a\u003cb\u003e\u0026\"\\\n\u0001\u2028é""#
        );
    }

    #[test]
    fn zero_fields_are_left_out_unless_wanted() {
        let mut out = String::new();
        let mut object = Object::new(&mut out);
        object.field("a", &0_u64).field("b", &1_i64).field("c", &Vec::<u64>::new());
        object.always("d", &false).always("e", &Vec::<u64>::new()).always("f", "").end();
        assert_eq!(out, r#"{"b":1,"d":false,"e":null,"f":""}"#);
    }
}
