//! Go's way of quoting a string, and the nearest name to a mistyped one.
//!
//! Messages about flags are matched by scripts in Go's wording, and Go quotes with `%q`.
//! Not a general escaper: only what messages need.

/// Quotes `text` as Go's `%q` does: double quotes, `\n \t \r \" \\`, other control characters as
/// `\x00`; printable text outside ASCII stays as it is.
pub(crate) fn quote(text: &str) -> String {
    use std::fmt::Write as _;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                write!(quoted, "\\x{:02x}", u32::from(control)).expect("a String takes any text");
            }
            printable => quoted.push(printable),
        }
    }
    quoted.push('"');
    quoted
}

/// The candidate that needs the fewest single-character edits to become `wrong`, if that is few
/// enough to be a slip of the finger: at most a third of its length, and at most four.
pub(crate) fn nearest<'a>(
    wrong: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let allowed = (wrong.chars().count() / 3).clamp(1, 4);
    candidates
        .map(|candidate| (edits(wrong, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance of two words.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(quote("a\"b\\\n\u{1}é"), "\"a\\\"b\\\\\\n\\x01é\"");
    }

    #[test]
    fn nearest_name_forgives_slips_only() {
        let names = ["snapshot-count", "max-wals", "name"];
        assert_eq!(nearest("snapshot-cout", names.into_iter()), Some("snapshot-count"));
        assert_eq!(nearest("max-wal", names.into_iter()), Some("max-wals"));
        assert_eq!(nearest("something-else", names.into_iter()), None);
    }
}
