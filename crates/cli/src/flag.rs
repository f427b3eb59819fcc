//! Flags and their values, read from the command line the way Go's pflag reads them.
//!
//! etcd: `github.com/spf13/pflag` as used by `etcdctl`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::csv::{self, CsvError};
use crate::duration::{self, DurationError};
use crate::number::{self, NumberError};
use crate::quote::{quote, quote_char};

/// A word of the command line. Keys and values may be any bytes.
pub type Argument = Vec<u8>;

/// One flag as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The name behind the two dashes.
    pub name: &'static str,
    /// The letter behind one dash.
    pub shorthand: Option<char>,
    /// What the value must look like.
    pub kind: Kind,
    /// The value when the flag is not given, as it is written; "" where that means nothing.
    pub default: &'static str,
    /// The line of help.
    pub usage: Cow<'static, str>,
    /// Left out of help.
    pub hidden: bool,
    /// Whether the command refuses to run without it.
    pub is_required: bool,
}

/// What a flag's value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A truth value; alone it means true.
    Bool,
    /// A signed number.
    Int,
    /// An unsigned number.
    Uint,
    /// An unsigned number of four bytes.
    Uint32,
    /// A duration with units.
    Duration,
    /// Anything.
    Text,
    /// Texts between commas; given again, it adds to the list.
    List,
}

impl Flag {
    /// A switch that is off by default.
    #[must_use]
    pub fn bool(name: &'static str, usage: impl Into<Cow<'static, str>>) -> Self {
        Self::new(name, Kind::Bool, "false", usage)
    }

    /// A number that is 0 by default.
    #[must_use]
    pub fn int(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Int, "0", usage)
    }

    /// A text that is empty by default.
    #[must_use]
    pub fn text(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Text, "", usage)
    }

    /// A flag of any kind with its default.
    #[must_use]
    pub fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        usage: impl Into<Cow<'static, str>>,
    ) -> Self {
        let usage = usage.into();
        Self { name, shorthand: None, kind, default, usage, hidden: false, is_required: false }
    }

    /// The same with a letter.
    #[must_use]
    pub fn short(self, letter: char) -> Self {
        Self { shorthand: Some(letter), ..self }
    }

    /// The same with another default.
    #[must_use]
    pub fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// The same, left out of help.
    #[must_use]
    pub fn hide(self) -> Self {
        Self { hidden: true, ..self }
    }

    /// The same, without which the command refuses to run.
    #[must_use]
    pub fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    fn label(&self) -> String {
        match self.shorthand {
            Some(letter) => format!("-{letter}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }

    fn read(&self, text: &str) -> Result<Value, ValueError> {
        Ok(match self.kind {
            Kind::Bool => Value::Bool(number::parse_bool(text)?),
            Kind::Int => Value::Int(number::parse_int(text, 0)?),
            Kind::Uint => Value::Uint(number::parse_uint(text, 0)?),
            Kind::Uint32 => Value::Uint(number::parse_uint32(text, 0)?),
            Kind::Duration => Value::Duration(duration::parse(text)?),
            Kind::Text => Value::Text(text.to_owned()),
            Kind::List => Value::List(csv::split(text)?),
        })
    }
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Duration(Duration),
    Text(String),
    List(Vec<String>),
}

/// Why a value does not fit its flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not the number that was wanted.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// Not a duration.
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// Not a list.
    #[error(transparent)]
    Csv(#[from] CsvError),
}

/// Why a command line cannot be read. The texts are pflag's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// There is no such flag.
    #[error("unknown flag: --{name}")]
    Unknown {
        /// The name as it was given.
        name: String,
    },
    /// There is no such letter.
    #[error("unknown shorthand flag: {} in -{letters}", quote_char(*letter))]
    UnknownShorthand {
        /// The letter.
        letter: char,
        /// It and the letters behind it.
        letters: String,
    },
    /// The value is missing.
    #[error("flag needs an argument: --{name}")]
    NeedsArgument {
        /// The flag's name.
        name: String,
    },
    /// The value is missing.
    #[error("flag needs an argument: {} in -{letters}", quote_char(*letter))]
    ShorthandNeedsArgument {
        /// The flag's letter.
        letter: char,
        /// It and the letters behind it.
        letters: String,
    },
    /// The value does not fit.
    #[error("invalid argument {} for {} flag: {cause}",
        quote(value.as_bytes()), quote(flag.as_bytes()))]
    Invalid {
        /// The value as it was given.
        value: String,
        /// The flag's names.
        flag: String,
        /// What is wrong.
        cause: ValueError,
    },
    /// Three dashes, or a name that starts with an equals sign.
    #[error("bad flag syntax: {text}")]
    BadSyntax {
        /// The word as it was given.
        text: String,
    },
}

/// The flags that a command knows, with their values.
#[derive(Clone, Debug)]
pub struct Values {
    entries: BTreeMap<&'static str, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    flag: Flag,
    value: Value,
    changed: bool,
}

impl Values {
    /// Flags at their defaults. Of two with one name the first counts.
    ///
    /// # Panics
    ///
    /// A default does not fit its flag.
    #[must_use]
    pub fn new<'a>(flags: impl IntoIterator<Item = &'a Flag>) -> Self {
        let mut entries = BTreeMap::new();
        for flag in flags {
            let value = flag.read(flag.default).expect("a declared default fits its flag");
            let entry = Entry { flag: flag.clone(), value, changed: false };
            entries.entry(flag.name).or_insert(entry);
        }
        Self { entries }
    }

    /// Takes flags out of `words` and returns the rest. Flags may stand anywhere before `--`.
    ///
    /// # Errors
    ///
    /// See [`FlagError`]; flags read before the error keep their values.
    pub fn parse(&mut self, words: &[Argument]) -> Result<Vec<Argument>, FlagError> {
        let mut rest = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == b"--" {
                rest.extend(words.cloned());
                break;
            }
            if word.len() < 2 || word[0] != b'-' {
                rest.push(word.clone());
            } else if word[1] == b'-' {
                self.parse_long(&text_of(word), &mut words)?;
            } else {
                self.parse_short(&text_of(&word[1..]), &mut words)?;
            }
        }
        Ok(rest)
    }

    fn parse_long<'a>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'a Argument>,
    ) -> Result<(), FlagError> {
        let name = &word[2..];
        if name.is_empty() || name.starts_with(['-', '=']) {
            return Err(FlagError::BadSyntax { text: word.to_owned() });
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let entry = self.entries.get(name);
        let entry = entry.ok_or_else(|| FlagError::Unknown { name: name.to_owned() })?;
        let value = match value {
            Some(value) => value,
            None if entry.flag.kind == Kind::Bool => "true".to_owned(),
            None => {
                let next = words.next().map(|word| text_of(word));
                next.ok_or_else(|| FlagError::NeedsArgument { name: name.to_owned() })?
            }
        };
        self.set(name, &value)
    }

    /// Reads a row of letters; the first that takes a value takes what follows as its value.
    fn parse_short<'a>(
        &mut self,
        letters: &str,
        words: &mut impl Iterator<Item = &'a Argument>,
    ) -> Result<(), FlagError> {
        let mut rest = letters;
        while let Some(letter) = rest.chars().next() {
            let letters = rest.to_owned();
            let entry = self.entries.values().find(|entry| entry.flag.shorthand == Some(letter));
            let Some(entry) = entry else {
                return Err(FlagError::UnknownShorthand { letter, letters });
            };
            let name = entry.flag.name;
            let after = &rest[letter.len_utf8()..];
            let value = if let Some(value) = after.strip_prefix('=').filter(|v| !v.is_empty()) {
                rest = "";
                value.to_owned()
            } else if entry.flag.kind == Kind::Bool {
                rest = after;
                "true".to_owned()
            } else if after.is_empty() {
                rest = "";
                let next = words.next().map(|word| text_of(word));
                next.ok_or(FlagError::ShorthandNeedsArgument { letter, letters })?
            } else {
                rest = "";
                after.to_owned()
            };
            self.set(name, &value)?;
        }
        Ok(())
    }

    /// Gives a flag a value, from the command line or from the environment.
    ///
    /// # Errors
    ///
    /// There is no such flag or the value does not fit.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), FlagError> {
        let entry = self.entries.get_mut(name);
        let entry = entry.ok_or_else(|| FlagError::Unknown { name: name.to_owned() })?;
        let value = entry.flag.read(text).map_err(|cause| FlagError::Invalid {
            value: text.to_owned(),
            flag: entry.flag.label(),
            cause,
        })?;
        match (&mut entry.value, value) {
            (Value::List(list), Value::List(more)) if entry.changed => list.extend(more),
            (slot, value) => *slot = value,
        }
        entry.changed = true;
        Ok(())
    }

    /// Whether the flag was given.
    ///
    /// # Panics
    ///
    /// The flag is not declared.
    #[must_use]
    pub fn is_changed(&self, name: &str) -> bool {
        self.entry(name).changed
    }

    /// The value of a switch.
    ///
    /// # Panics
    ///
    /// The flag is not declared, or of another kind. The same holds for the other getters.
    #[must_use]
    pub fn bool(&self, name: &str) -> bool {
        let Value::Bool(value) = self.entry(name).value else {
            panic!("flag {name} is not a switch");
        };
        value
    }

    /// The value of a number.
    ///
    /// # Panics
    ///
    /// As [`Values::bool`].
    #[must_use]
    pub fn int(&self, name: &str) -> i64 {
        let Value::Int(value) = self.entry(name).value else {
            panic!("flag {name} is not a number");
        };
        value
    }

    /// The value of an unsigned number.
    ///
    /// # Panics
    ///
    /// As [`Values::bool`].
    #[must_use]
    pub fn uint(&self, name: &str) -> u64 {
        let Value::Uint(value) = self.entry(name).value else {
            panic!("flag {name} is not an unsigned number");
        };
        value
    }

    /// The value of a duration.
    ///
    /// # Panics
    ///
    /// As [`Values::bool`].
    #[must_use]
    pub fn duration(&self, name: &str) -> Duration {
        let Value::Duration(value) = self.entry(name).value else {
            panic!("flag {name} is not a duration");
        };
        value
    }

    /// The value of a text.
    ///
    /// # Panics
    ///
    /// As [`Values::bool`].
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let Value::Text(value) = &self.entry(name).value else {
            panic!("flag {name} is not a text");
        };
        value
    }

    /// The value of a list.
    ///
    /// # Panics
    ///
    /// As [`Values::bool`].
    #[must_use]
    pub fn list(&self, name: &str) -> &[String] {
        let Value::List(value) = &self.entry(name).value else {
            panic!("flag {name} is not a list");
        };
        value
    }

    /// The value as Go prints it, for the debug listing.
    #[must_use]
    pub fn display(&self, name: &str) -> String {
        match &self.entry(name).value {
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Uint(value) => value.to_string(),
            Value::Duration(value) => duration::format(*value),
            Value::Text(value) => value.clone(),
            Value::List(value) => format!("[{}]", value.join(",")),
        }
    }

    fn entry(&self, name: &str) -> &Entry {
        self.entries.get(name).unwrap_or_else(|| panic!("flag {name} is not declared"))
    }
}

pub(crate) fn text_of(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Values {
        Values::new(&[
            Flag::bool("prefix", ""),
            Flag::int("limit", ""),
            Flag::text("write-out", "").short('w').or("simple"),
            Flag::bool("interactive", "").short('i'),
            Flag::new("endpoints", Kind::List, "127.0.0.1:2379", ""),
            Flag::new("timeout", Kind::Duration, "5s", ""),
        ])
    }

    fn words(line: &str) -> Vec<Argument> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn error(line: &str) -> String {
        flags().parse(&words(line)).unwrap_err().to_string()
    }

    #[test]
    fn flags_stand_anywhere_before_two_dashes() {
        let mut values = flags();
        let rest = values.parse(&words("a --limit 3 b -wjson --prefix -- --prefix c")).unwrap();
        assert_eq!(rest, words("a b --prefix c"));
        assert_eq!((values.int("limit"), values.text("write-out")), (3, "json"));
        assert!(values.bool("prefix"));
        assert!(!values.is_changed("timeout"));
    }

    #[test]
    fn letters_join() {
        let mut values = flags();
        assert_eq!(values.parse(&words("-iw table -")).unwrap(), words("-"));
        assert!(values.bool("interactive"));
        assert_eq!(values.text("write-out"), "table");
    }

    #[test]
    fn lists_replace_the_default_and_then_grow() {
        let mut values = flags();
        values.parse(&words("--endpoints a,b --endpoints=c")).unwrap();
        assert_eq!(values.list("endpoints"), ["a", "b", "c"]);
    }

    /// CTL3-25.
    #[test]
    fn errors_read_like_pflags() {
        assert_eq!(error("-ttl"), "unknown shorthand flag: 't' in -ttl");
        assert_eq!(error("--foo"), "unknown flag: --foo");
        assert_eq!(error("--limit"), "flag needs an argument: --limit");
        assert_eq!(error("-iw"), "flag needs an argument: 'w' in -w");
        assert_eq!(error("---x"), "bad flag syntax: ---x");
        assert_eq!(
            error("--limit=abc"),
            r#"invalid argument "abc" for "--limit" flag: strconv.ParseInt: parsing "abc": invalid syntax"#
        );
    }
}
