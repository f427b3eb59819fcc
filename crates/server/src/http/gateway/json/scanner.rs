//! Where a JSON value ends in a text that may still be arriving.
//!
//! Says nothing of what the value means; what it passes is whole and well formed but for the bytes
//! inside strings. Refusals have the words of Go's decoder, which etcd's users see (source:
//! encoding/json, scanner.go).

use base::quote;

/// Values within values at most, as Go's decoder takes them.
const DEPTH_MAX: usize = 10_000;

/// Why a text is no JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotJson {
    /// A character that must not be where it is.
    #[error("invalid character {} {context}", character(*.byte))]
    Character {
        /// Taken for one of Latin-1, as Go does.
        byte: u8,
        /// What was being read.
        context: &'static str,
    },
    /// A literal that goes on differently.
    #[error(
        "invalid character {} in literal {literal} (expecting '{}')",
        character(*.byte),
        char::from(*.expected)
    )]
    Literal {
        /// What came.
        byte: u8,
        /// What was begun.
        literal: &'static str,
        /// What had to come.
        expected: u8,
    },
    /// It broke off.
    #[error("unexpected EOF")]
    End,
}

/// A byte between single quotes, as Go writes it.
fn character(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => r#"'"'"#.to_owned(),
        // Not printable, as Go sees it.
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        other => {
            let quoted = quote::quote(char::from(other).encode_utf8(&mut [0; 2]));
            format!("'{}'", quoted.trim_matches('"'))
        }
    }
}

/// What the next byte has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    ValueOrClose,
    Key,
    KeyOrClose,
    Colon,
    CommaOrClose,
    String { is_key: bool },
    Escape { is_key: bool },
    Hex { is_key: bool, left: u8 },
    Literal { text: &'static str, known: usize },
    Minus,
    AfterZero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSigned,
    ExponentDigits,
}

/// Whether the value goes on behind a byte.
enum Step {
    On(State),
    /// It ended before this byte.
    EndedBefore,
    EndedWith,
}

/// Reads one value after the other; begins anew after each.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    /// What is open, outermost first: `true` for an object.
    open: Vec<bool>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { state: State::Value, open: Vec::new() }
    }
}

impl Scanner {
    /// Reads on; the number of bytes of `text` that the value still took, or `None` if it goes on
    /// behind them. Blanks before a value count to it.
    ///
    /// # Errors
    ///
    /// This is no JSON; nothing that follows can be read.
    pub(super) fn scan(&mut self, text: &[u8]) -> Result<Option<usize>, NotJson> {
        for (at, byte) in text.iter().enumerate() {
            let len = match self.step(*byte)? {
                Step::On(state) => {
                    self.state = state;
                    continue;
                }
                Step::EndedBefore => at,
                Step::EndedWith => at + 1,
            };
            self.state = State::Value;
            return Ok(Some(len));
        }
        Ok(None)
    }

    /// Whether the value is whole if nothing follows: only a number can be.
    pub(super) fn may_end(&self) -> bool {
        self.open.is_empty() && is_number_that_may_end(self.state)
    }

    fn step(&mut self, byte: u8) -> Result<Step, NotJson> {
        let refuse = |context| Err(NotJson::Character { byte, context });
        let next = match self.state {
            State::Value
            | State::ValueOrClose
            | State::Key
            | State::KeyOrClose
            | State::Colon
            | State::CommaOrClose
                if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') =>
            {
                self.state
            }
            State::ValueOrClose if byte == b']' => return Ok(self.close()),
            State::Value | State::ValueOrClose => self.begin(byte)?,
            State::KeyOrClose if byte == b'}' => return Ok(self.close()),
            State::Key | State::KeyOrClose if byte == b'"' => State::String { is_key: true },
            State::Key | State::KeyOrClose => {
                return refuse("looking for beginning of object key string");
            }
            State::Colon if byte == b':' => State::Value,
            State::Colon => return refuse("after object key"),
            State::CommaOrClose => return self.go_on(byte),
            State::String { is_key } => match byte {
                b'"' if is_key => State::Colon,
                b'"' => return Ok(self.ended()),
                b'\\' => State::Escape { is_key },
                0..0x20 => return refuse("in string literal"),
                _ => self.state,
            },
            State::Escape { is_key } => match byte {
                b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => State::String { is_key },
                b'u' => State::Hex { is_key, left: 4 },
                _ => return refuse("in string escape code"),
            },
            State::Hex { is_key, left } if byte.is_ascii_hexdigit() => match left {
                1 => State::String { is_key },
                _ => State::Hex { is_key, left: left - 1 },
            },
            State::Hex { .. } => return refuse("in \\u hexadecimal character escape"),
            State::Literal { text, known } => return self.literal(byte, text, known),
            State::Minus
            | State::AfterZero
            | State::Digits
            | State::Point
            | State::Fraction
            | State::Exponent
            | State::ExponentSigned
            | State::ExponentDigits => {
                return self.number(byte);
            }
        };
        Ok(Step::On(next))
    }

    /// The first byte of a value.
    fn begin(&mut self, byte: u8) -> Result<State, NotJson> {
        Ok(match byte {
            b'{' | b'[' => {
                if self.open.len() == DEPTH_MAX {
                    return Err(NotJson::Character { byte, context: "exceeded max depth" });
                }
                self.open.push(byte == b'{');
                if byte == b'{' { State::KeyOrClose } else { State::ValueOrClose }
            }
            b'"' => State::String { is_key: false },
            b'-' => State::Minus,
            b'0' => State::AfterZero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Literal { text: "true", known: 1 },
            b'f' => State::Literal { text: "false", known: 1 },
            b'n' => State::Literal { text: "null", known: 1 },
            _ => {
                return Err(NotJson::Character { byte, context: "looking for beginning of value" });
            }
        })
    }

    /// What follows a value within another.
    fn go_on(&mut self, byte: u8) -> Result<Step, NotJson> {
        let refuse = |context| Err(NotJson::Character { byte, context });
        match (self.open.last(), byte) {
            (Some(true), b',') => Ok(Step::On(State::Key)),
            (Some(false), b',') => Ok(Step::On(State::Value)),
            (Some(true), b'}') | (Some(false), b']') => Ok(self.close()),
            (Some(true), _) => refuse("after object key:value pair"),
            (Some(false), _) => refuse("after array element"),
            (None, _) => unreachable!("a value outside of any other has ended"),
        }
    }

    fn close(&mut self) -> Step {
        self.open.pop();
        self.ended()
    }

    /// A value has ended with this byte.
    fn ended(&self) -> Step {
        if self.open.is_empty() { Step::EndedWith } else { Step::On(State::CommaOrClose) }
    }

    fn literal(&self, byte: u8, literal: &'static str, known: usize) -> Result<Step, NotJson> {
        let expected = literal.as_bytes()[known];
        if byte != expected {
            return Err(NotJson::Literal { byte, literal, expected });
        }
        if known + 1 == literal.len() {
            return Ok(self.ended());
        }
        Ok(Step::On(State::Literal { text: literal, known: known + 1 }))
    }

    fn number(&mut self, byte: u8) -> Result<Step, NotJson> {
        let state = self.state;
        let next = match (state, byte) {
            (State::Minus, b'0') => State::AfterZero,
            (State::Minus, b'1'..=b'9') | (State::Digits, b'0'..=b'9') => State::Digits,
            (State::AfterZero | State::Digits, b'.') => State::Point,
            (State::Point | State::Fraction, b'0'..=b'9') => State::Fraction,
            (State::AfterZero | State::Digits | State::Fraction, b'e' | b'E') => State::Exponent,
            (State::Exponent, b'+' | b'-') => State::ExponentSigned,
            (State::Exponent | State::ExponentSigned | State::ExponentDigits, b'0'..=b'9') => {
                State::ExponentDigits
            }
            _ => {
                let context = if state == State::Minus {
                    "in numeric literal"
                } else if state == State::Point {
                    "after decimal point in numeric literal"
                } else {
                    "in exponent of numeric literal"
                };
                if !is_number_that_may_end(state) {
                    return Err(NotJson::Character { byte, context });
                }
                if self.open.is_empty() {
                    return Ok(Step::EndedBefore);
                }
                self.state = State::CommaOrClose;
                return self.step(byte);
            }
        };
        Ok(Step::On(next))
    }
}

fn is_number_that_may_end(state: State) -> bool {
    matches!(state, State::AfterZero | State::Digits | State::Fraction | State::ExponentDigits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &[u8]) -> Result<Option<usize>, String> {
        Scanner::default().scan(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_ends_where_it_is_whole() {
        for whole in
            ["{}", " \t\r\n{\"a\":[1,{\"b\":null}],\"c\":\"\\u00ff\\n\"}", "[]", "\"x\"", "true"]
        {
            assert_eq!(scan(whole.as_bytes()), Ok(Some(whole.len())), "{whole}");
            let followed = format!("{whole}}}");
            assert_eq!(scan(followed.as_bytes()), Ok(Some(whole.len())), "{followed}");
            for cut in 0..whole.len() {
                assert_eq!(scan(&whole.as_bytes()[..cut]), Ok(None), "{whole} to {cut}");
            }
        }
        // Only what follows a number tells its end.
        for number in ["0", "-1", "10.5", "1e9", "1.0E-7"] {
            let mut scanner = Scanner::default();
            assert_eq!(scanner.scan(number.as_bytes()), Ok(None), "{number}");
            assert!(scanner.may_end(), "{number}");
            assert_eq!(scan(format!("{number} ").as_bytes()), Ok(Some(number.len())));
            assert_eq!(scan(format!("{number}x").as_bytes()), Ok(Some(number.len())));
        }
    }

    #[test]
    fn a_value_may_arrive_in_parts() {
        let mut scanner = Scanner::default();
        assert_eq!(scanner.scan(b"{\"a\":\"\\"), Ok(None));
        assert_eq!(scanner.scan(b"\"\"}{"), Ok(Some(3)));
        assert_eq!(scanner.scan(b"[1"), Ok(None));
        assert_eq!(scanner.scan(b"]"), Ok(Some(1)));
    }

    /// The words of encoding/json, seen at the gateways of etcd 3.5.30 and 3.7.1.
    #[test]
    fn what_is_wrong_is_said_in_gos_words() {
        for (text, words) in [
            (&b"xyz"[..], "invalid character 'x' looking for beginning of value"),
            (b"'", r"invalid character '\'' looking for beginning of value"),
            (b"\x00", r"invalid character '\x00' looking for beginning of value"),
            (b"\xff", "invalid character 'ÿ' looking for beginning of value"),
            (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
            (b"\xa0", r"invalid character '\u00a0' looking for beginning of value"),
            (b"{,", "invalid character ',' looking for beginning of object key string"),
            (b"{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            (b"{\"a\" \"b\"}", "invalid character '\"' after object key"),
            (b"{\"a\":1 /", "invalid character '/' after object key:value pair"),
            (b"{\"a\":01}", "invalid character '1' after object key:value pair"),
            (b"[1 2]", "invalid character '2' after array element"),
            (b"\"a\tb\"", r"invalid character '\t' in string literal"),
            (b"\"\\x\"", "invalid character 'x' in string escape code"),
            (b"\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape"),
            (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
            (b"nil", "invalid character 'i' in literal null (expecting 'u')"),
            (b"-x", "invalid character 'x' in numeric literal"),
            (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
            (b"1e+x", "invalid character 'x' in exponent of numeric literal"),
        ] {
            assert_eq!(scan(text), Err(words.to_owned()), "{}", text.escape_ascii());
        }
        assert_eq!(scan(&[b'['; DEPTH_MAX]), Ok(None));
        let deep = scan(&[b'['; DEPTH_MAX + 1]).unwrap_err();
        assert_eq!(deep, "invalid character '[' exceeded max depth");
    }
}
