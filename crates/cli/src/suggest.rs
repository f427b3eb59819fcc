//! Which commands a mistyped name may have meant.

/// Names this many edits away are worth mentioning.
const DISTANCE_MAX: usize = 2;

/// Whether `name` should be offered to a user who typed `typed`.
pub(crate) fn is_near(typed: &str, name: &str) -> bool {
    let (typed, name) = (typed.to_lowercase(), name.to_lowercase());
    name.starts_with(&typed) || distance(typed.as_bytes(), name.as_bytes()) <= DISTANCE_MAX
}

/// Whether `name` was probably meant: as [`is_near`], but for names that no short word comes near.
pub(crate) fn is_nearly(typed: &str, name: &str) -> bool {
    let distance_max = (typed.len().min(name.len()) / 3).min(DISTANCE_MAX);
    distance(typed.to_lowercase().as_bytes(), name.as_bytes()) <= distance_max
}

/// Levenshtein's distance, one row at a time.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::is_near;

    /// CTL3-04.
    #[test]
    fn set_is_near_four_commands() {
        let names = ["get", "put", "del", "txn", "watch", "user", "lease", "member", "auth"];
        let near: Vec<_> = names.into_iter().filter(|name| is_near("set", name)).collect();
        assert_eq!(near, ["get", "put", "del", "user"]);
    }
}
