//! The configuration file: YAML, of which JSON is a part.
//!
//! Keys are the names of flags, and blocks for TLS, discovery and sockets. A key that is unknown
//! is told about and ignored; a value of the wrong type, a key given twice and a file that is no
//! YAML are refused with file, line and column.
//! Source: etcd server/embed/config.go (keys and blocks). More than etcd takes: durations as text,
//! URLs as lists.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::flags::{self, Flag, Role};
use super::notice::Notice;
use super::settings::Settings;
use super::value::{Kind, ValueError};

/// Why a configuration file is refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("open {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key stands there twice.
    #[error("{}:{line}:{column}: {} set twice", .path.display(), twice(key.as_deref()))]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// Of the second one, from 1.
        line: u64,
        /// From 1.
        column: u64,
        /// The key as it stands there; `None` if it is no text.
        key: Option<String>,
    },
    /// It is no YAML.
    #[error("{}:{line}:{column}: {why}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What is wrong.
        why: String,
    },
    /// A value is of another type than its key.
    #[error("{}:{line}:{column}: {key} is {found}, not {expected}", .path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// The key, with the blocks around it.
        key: String,
        /// What stands there.
        found: &'static str,
        /// What may stand there.
        expected: String,
    },
    /// A value of the right type cannot be understood.
    #[error("{}:{line}:{column}: invalid value for {key}: {why}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// The key, with the blocks around it.
        key: String,
        /// What is wrong.
        why: Box<ValueError>,
        /// What may stand there.
        expected: String,
    },
}

impl FileError {
    /// How to put it right, as one line.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreadable { .. } => "correct --config-file or ETCD_CONFIG_FILE".to_owned(),
            Self::Syntax { .. } => {
                "write one 'key: value' per line, indented with blanks and not with tabs".to_owned()
            }
            Self::Duplicate { line, key: Some(key), .. } => {
                format!("keep one of the lines that set {key}, for example without line {line}")
            }
            Self::Duplicate { line, key: None, .. } => {
                format!("remove the key on line {line}, or the one before that is equal to it")
            }
            Self::Type { key, expected, .. } | Self::Value { key, expected, .. } => {
                format!("set {key} to {expected}")
            }
        }
    }
}

fn twice(key: Option<&str>) -> String {
    key.map_or_else(|| "a key is".to_owned(), |key| format!("{key} is"))
}

/// Keys that are no flags, and keys in blocks: the path and the flag it sets.
const BLOCK_KEYS: &[(&str, &str)] = &[
    ("client-transport-security.cert-file", "cert-file"),
    ("client-transport-security.key-file", "key-file"),
    ("client-transport-security.client-cert-file", "client-cert-file"),
    ("client-transport-security.client-key-file", "client-key-file"),
    ("client-transport-security.client-cert-auth", "client-cert-auth"),
    ("client-transport-security.trusted-ca-file", "trusted-ca-file"),
    ("client-transport-security.auto-tls", "auto-tls"),
    ("client-transport-security.allowed-hostname", "client-cert-allowed-hostname"),
    ("peer-transport-security.cert-file", "peer-cert-file"),
    ("peer-transport-security.key-file", "peer-key-file"),
    ("peer-transport-security.client-cert-file", "peer-client-cert-file"),
    ("peer-transport-security.client-key-file", "peer-client-key-file"),
    ("peer-transport-security.client-cert-auth", "peer-client-cert-auth"),
    ("peer-transport-security.trusted-ca-file", "peer-trusted-ca-file"),
    ("peer-transport-security.auto-tls", "peer-auto-tls"),
    ("peer-transport-security.allowed-cn", "peer-cert-allowed-cn"),
    ("peer-transport-security.allowed-hostname", "peer-cert-allowed-hostname"),
    ("peer-transport-security.skip-client-san-verification", "peer-skip-client-san-verification"),
    ("socket-options.reuse-port", "socket-reuse-port"),
    ("socket-options.reuse-address", "socket-reuse-address"),
    ("discovery-config.token", "discovery-token"),
    ("discovery-config.endpoints", "discovery-endpoints"),
    ("discovery-config.dial-timeout", "discovery-dial-timeout"),
    ("discovery-config.request-timeout", "discovery-request-timeout"),
    ("discovery-config.keepalive-time", "discovery-keepalive-time"),
    ("discovery-config.keepalive-timeout", "discovery-keepalive-timeout"),
    ("discovery-config.secure.insecure-transport", "discovery-insecure-transport"),
    ("discovery-config.secure.insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify"),
    ("discovery-config.secure.cert", "discovery-cert"),
    ("discovery-config.secure.key", "discovery-key"),
    ("discovery-config.secure.cacert", "discovery-cacert"),
    ("discovery-config.auth.username", "discovery-user"),
    ("discovery-config.auth.password", "discovery-password"),
];

/// Reads the file's text into `settings`.
pub(crate) fn apply(
    path: &Path,
    text: &str,
    settings: &mut Settings,
    notices: &mut Vec<Notice>,
) -> Result<(), FileError> {
    // A file without any value, comments apart, is a file that leaves everything as it is.
    let document: Spanned<Option<Node>> =
        serde_saphyr::from_str(text).map_err(|error| syntax(path, text, &error))?;
    let place = (document.referenced.line(), document.referenced.column());
    let entries = match document.value {
        None | Some(Node::Null) => return Ok(()),
        Some(Node::Map(entries)) => entries,
        Some(other) => {
            return Err(FileError::Type {
                path: path.to_owned(),
                line: place.0,
                column: place.1,
                key: "the document".to_owned(),
                found: other.kind(),
                expected: "a map of keys and values".to_owned(),
            });
        }
    };
    Reader { path, settings, notices }.block("", entries)
}

fn syntax(path: &Path, text: &str, error: &serde_saphyr::Error) -> FileError {
    let refuse = |line, column, why: &str| FileError::Syntax {
        path: path.to_owned(),
        line,
        column,
        why: why.to_owned(),
    };
    // The reader places a tab at the value before it, where nobody looks for it.
    // JSON may be indented with tabs.
    let is_json = text.trim_start().starts_with('{');
    let tab = (1..).zip(text.lines()).find_map(|(line, text)| {
        let indentation = &text[..text.len() - text.trim_start().len()];
        Some((line, (1..).zip(indentation.chars()).find(|(_, character)| *character == '\t')?.0))
    });
    if let Some((line, column)) = tab.filter(|_| !is_json) {
        return refuse(line, column, "a tab in the indentation");
    }
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    let error = error.without_snippet();
    if let serde_saphyr::Error::DuplicateMappingKey { key, .. } = error {
        return FileError::Duplicate { path: path.to_owned(), line, column, key: key.clone() };
    }
    let why = error.to_string();
    refuse(line, column, why.lines().next().unwrap_or_default())
}

struct Reader<'a> {
    path: &'a Path,
    settings: &'a mut Settings,
    notices: &'a mut Vec<Notice>,
}

type Entries = Vec<(Spanned<String>, Spanned<Node>)>;

impl Reader<'_> {
    fn block(&mut self, prefix: &str, entries: Entries) -> Result<(), FileError> {
        for (key, node) in entries {
            // Go's JSON reader does not mind the case of keys, and calls v3 discovery's
            // connection a block of its own.
            let name = key.value.to_ascii_lowercase();
            let full = match (prefix, name.as_str()) {
                ("", _) => name,
                ("discovery-config", "client") => prefix.to_owned(),
                _ => format!("{prefix}.{name}"),
            };
            let place = (key.referenced.line(), key.referenced.column());
            match (flag_of(&full), node.value) {
                (Some(flag), value) => {
                    let at = node.referenced;
                    self.set(flag, &full, (at.line(), at.column()), value)?;
                }
                (None, Node::Map(inner)) if is_block(&full) => self.block(&full, inner)?,
                (None, Node::Null) if is_block(&full) => {}
                (None, _) => self.notices.push(
                    Notice::warn("unknown key in the configuration file; it is ignored")
                        .with("path", format!("{}:{}:{}", self.path.display(), place.0, place.1))
                        .with("key", full),
                ),
            }
        }
        Ok(())
    }

    fn set(
        &mut self,
        flag: &'static Flag,
        key: &str,
        (line, column): (u64, u64),
        node: Node,
    ) -> Result<(), FileError> {
        let path = || self.path.to_owned();
        let expected = || expected(flag.kind);
        let found = node.kind();
        let text = match text_of(flag.kind, node) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(()),
            Err(WrongType) => {
                let (path, expected, key) = (path(), expected(), key.to_owned());
                return Err(FileError::Type { path, line, column, key, found, expected });
            }
        };
        self.settings.assign(flag, &text).map_err(|why| FileError::Value {
            path: path(),
            line,
            column,
            key: key.to_owned(),
            why: Box::new(why),
            expected: expected(),
        })
    }
}

struct WrongType;

/// The flag syntax of a node; `None` leaves the default.
fn text_of(kind: Kind, node: Node) -> Result<Option<String>, WrongType> {
    Ok(Some(match (kind, node) {
        (_, Node::Null) => return Ok(None),
        // An empty choice is no choice.
        (Kind::Choice(_) | Kind::Choices(_) | Kind::Level, Node::Text(text)) if text.is_empty() => {
            return Ok(None);
        }
        (Kind::Bool, Node::Bool(on)) => on.to_string(),
        // Words of YAML 1.1 that YAML 1.2 takes for text.
        (Kind::Bool, Node::Text(text)) => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" => "true".to_owned(),
            "no" | "off" => "false".to_owned(),
            _ => return Err(WrongType),
        },
        (Kind::Unsigned | Kind::Unsigned32 | Kind::Signed, Node::Integer(number)) => {
            number.to_string()
        }
        (Kind::Duration, Node::Integer(nanoseconds)) => format!("{nanoseconds}ns"),
        (
            Kind::Duration
            | Kind::Text
            | Kind::Urls
            | Kind::Origins
            | Kind::Words
            | Kind::WordSet
            | Kind::Choice(_)
            | Kind::Choices(_)
            | Kind::Level
            | Kind::Gates,
            Node::Text(text),
        ) => text,
        (Kind::Urls | Kind::Origins | Kind::Words | Kind::WordSet, Node::List(items)) => {
            let words = items.into_iter().map(|item| {
                let Node::Text(word) = item.value else {
                    return Err(WrongType);
                };
                Ok(word)
            });
            words.collect::<Result<Vec<_>, _>>()?.join(",")
        }
        _ => return Err(WrongType),
    }))
}

fn expected(kind: Kind) -> String {
    if kind == Kind::Text {
        "text (in quotation marks)".to_owned()
    } else if kind == Kind::Duration {
        "nanoseconds or a duration such as \"300ms\"".to_owned()
    } else if matches!(kind, Kind::Words | Kind::WordSet) {
        "a list of texts".to_owned()
    } else {
        kind.expects()
    }
}

fn flag_of(key: &str) -> Option<&'static Flag> {
    if let Some((_, name)) = BLOCK_KEYS.iter().find(|(path, _)| *path == key) {
        return flags::find(name);
    }
    let in_block = BLOCK_KEYS.iter().any(|(_, name)| *name == key);
    let elsewhere = in_block || key == "config-file";
    flags::find(key).filter(|flag| !elsewhere && flag.role != Role::Ignored)
}

/// Where a flag stands in a file: keys of blocks around it, separated by dots, and its own.
#[cfg(test)]
pub(super) fn key_of(flag: &'static Flag) -> &'static str {
    BLOCK_KEYS.iter().find(|(_, name)| *name == flag.name).map_or(flag.name, |(path, _)| path)
}

fn is_block(key: &str) -> bool {
    BLOCK_KEYS
        .iter()
        .any(|(path, _)| path.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// Any YAML value.
enum Node {
    Null,
    Bool(bool),
    Integer(i128),
    Float,
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Entries),
}

impl Node {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "a whole number",
            Self::Float => "a number with a fraction",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, on: bool) -> Result<Node, E> {
        Ok(Node::Bool(on))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Integer(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Node, E> {
        Ok(Node::Integer(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Float)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}
