//! The nearest name to a mistyped one.

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
    fn nearest_name_forgives_slips_only() {
        let names = ["snapshot-count", "max-wals", "name"];
        assert_eq!(nearest("snapshot-cout", names.into_iter()), Some("snapshot-count"));
        assert_eq!(nearest("max-wal", names.into_iter()), Some("max-wals"));
        assert_eq!(nearest("something-else", names.into_iter()), None);
    }
}
