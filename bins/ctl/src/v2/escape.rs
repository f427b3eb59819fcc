//! Paths and queries as Go writes them, so that what `--debug` shows is what the original shows.
//!
//! Go: `net/url`, `path.Clean`; etcd: v3.4.23 pkg/pathutil/path.go.

use std::collections::BTreeMap;
use std::fmt::Write as _;

fn escape(text: &str, kept: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric() || kept.contains(character) {
            escaped.push(character);
        } else {
            write!(escaped, "%{byte:02X}").expect("writing to a string");
        }
    }
    escaped
}

/// A path.
pub(super) fn path(text: &str) -> String {
    escape(text, "-_.~$&+,/:;=@")
}

/// Fields of a form, or of a query, by name.
pub(super) fn form(fields: &BTreeMap<&str, String>) -> String {
    let word = |text: &str| escape(text, "-_.~ ").replace(' ', "+");
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", word(name), word(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// The shortest path that means the same; it begins with a slash, and ends with one if it did.
pub(super) fn canonical(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if text.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTL2-10, CTL2-20.
    #[test]
    fn paths_and_forms_are_gos() {
        assert_eq!(path("/a b/ü?#%!*"), "/a%20b/%C3%BC%3F%23%25%21%2A");
        let fields = BTreeMap::from([("value", "v&=é *".to_owned()), ("ttl", "5".to_owned())]);
        assert_eq!(form(&fields), "ttl=5&value=v%26%3D%C3%A9+%2A");
        for (text, expected) in [
            ("/v2/keys/a/../b//c/", "/v2/keys/b/c/"),
            ("/v2/keys", "/v2/keys"),
            ("/v2/keys/", "/v2/keys/"),
            ("", "/"),
            ("/", "/"),
            ("a", "/a"),
            ("/../..", "/"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }
}
