//! A line split into words, the way the lines of `txn` and `watch -i` are.
//!
//! etcd: `etcdctl/ctlv3/command/util.go`, `Argify`.

use cli::flag::Argument;
use cli::quote::unquote_prefix;

/// Splits at white space. Words may stand in single quotes, where everything is literal, or in
/// double quotes, where a backslash escapes as in Go. `None` if a double-quoted word has a wrong
/// escape. Quotes that are never closed are skipped, as etcd does.
pub(crate) fn split(line: &str) -> Option<Vec<Argument>> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' => double_quoted_len(rest),
            '\'' => rest[1..].find('\'').map(|position| position + 2),
            _ if first.is_whitespace() => None,
            _ => Some(bare_len(rest)),
        };
        let Some(len) = len else {
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let word = &rest[..len];
        words.push(match first {
            '"' => unquote_prefix(word)?.0,
            '\'' => word.as_bytes()[1..len - 1].to_vec(),
            _ => word.as_bytes().to_vec(),
        });
        rest = &rest[len..];
    }
    Some(words)
}

/// Length of a double-quoted word with its quotes; `None` if it is never closed.
fn double_quoted_len(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (position, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some(position + 1),
            _ => {}
        }
    }
    None
}

/// A bare word reaches to the next white space, and may have quotes inside but one at its end.
fn bare_len(text: &str) -> usize {
    text.find(char::is_whitespace).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::split;

    fn words(line: &str) -> Vec<String> {
        let words = split(line).unwrap();
        words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    /// CTL3-40.
    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words(r#"put key1 "a \"b\" c""#), ["put", "key1", r#"a "b" c"#]);
        assert_eq!(words(r"put 'a \ b' c"), ["put", r"a \ b", "c"]);
        assert_eq!(words("  "), Vec::<String>::new());
        assert_eq!(words("get k --rev=3"), ["get", "k", "--rev=3"]);
    }
}
