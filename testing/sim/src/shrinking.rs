//! Leaves out faults of a life that fails, as long as it fails in the same way.
//!
//! Another failure is another finding: it would take the place of the one that is looked for, often
//! because a left out fault was what made the cluster whole again.

use retcd_sim::{Failure, Life};

/// What is compared of two failures: enough to tell promises apart, too little for the story of one
/// life.
const KIND_CHARS_MAX: usize = 60;

/// The life with as few faults as this finds, and how it fails.
pub(crate) fn shrink<T>(
    life: &Life,
    failure: Failure,
    live: impl Fn(&Life) -> Result<T, Box<Failure>>,
) -> (Life, Failure) {
    let (mut left, mut failure) = (life.clone(), failure);
    let wanted = kind(&failure.what);
    let faults = failure.faults;
    let mut len = faults;
    // Ever smaller pieces, down to single faults.
    while 0 < len {
        let mut from = 0;
        while from < faults {
            let mut fewer = left.clone();
            fewer.without.extend(from..(from + len).min(faults));
            if fewer.without != left.without
                && let Err(still) = live(&fewer)
                && kind(&still.what) == wanted
            {
                (left, failure) = (fewer, *still);
            }
            from += len;
        }
        len /= 2;
    }
    (left, failure)
}

/// What is the same in two failures of one kind: the beginning of the text, where a word with a digit
/// (a number, an id, a key) stands for every other.
fn kind(what: &str) -> String {
    let mut kind = String::new();
    let mut rest = what;
    while let Some(first) = rest.chars().next() {
        let is_word = |letter: char| letter.is_alphanumeric();
        let len = match rest.find(|letter| !is_word(letter)) {
            Some(0) => first.len_utf8(),
            Some(end) => end,
            None => rest.len(),
        };
        let (part, behind) = rest.split_at(len);
        kind.push_str(if part.contains(|letter: char| letter.is_ascii_digit()) {
            "#"
        } else {
            part
        });
        rest = behind;
    }
    kind.chars().take(KIND_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use super::*;

    fn failure(what: &str) -> Failure {
        let (seed, millis, what) = (1, 1, what.to_owned());
        Failure { seed, millis, what, faults: 10, happened: Vec::new(), story: Vec::new() }
    }

    /// What is left of ten faults of a life that fails as `fails` says of those that happen.
    fn left(fails: impl Fn(&dyn Fn(u64) -> bool) -> Option<&'static str>) -> (Vec<u64>, String) {
        let live = |life: &Life| match fails(&|fault| !life.without.contains(&fault)) {
            Some(what) => Err(Box::new(failure(what))),
            None => Ok(()),
        };
        let whole = Life { seed: 1, ..Life::default() };
        let first = *live(&whole).expect_err("it fails with all its faults");
        let (life, failure) = shrink(&whole, first, live);
        ((0..10).filter(|fault| !life.without.contains(fault)).collect(), failure.what)
    }

    #[test]
    fn faults_that_are_not_needed_are_left_out() {
        let (faults, what) = left(|has| (has(3) && has(7)).then_some("two leaders in term 4"));
        assert_eq!((faults, what.as_str()), (vec![3, 7], "two leaders in term 4"));
    }

    #[test]
    fn a_failure_that_needs_no_fault_keeps_none() {
        assert!(left(|_| Some("no agreement")).0.is_empty());
    }

    /// Fault 5 heals what fault 2 did: without 5 the life fails too, but of something else.
    #[test]
    fn another_failure_is_not_taken_for_the_same() {
        let (faults, what) = left(|has| match (has(2), has(5), has(8)) {
            (true, false, _) => Some("no agreement after the faults"),
            (true, true, true) => Some("member 2 lost revision 17"),
            _ => None,
        });
        assert_eq!((faults, what.as_str()), (vec![2, 5, 8], "member 2 lost revision 17"));
    }

    #[test]
    fn what_is_told_is_how_the_shrunk_life_fails() {
        let (_, what) = left(|has| match has(9) {
            true => Some("member 2 lost revision 17"),
            false => Some("member 3 lost revision 4"),
        });
        assert_eq!(what, "member 3 lost revision 4");
    }

    #[test]
    fn what_was_left_out_from_the_beginning_stays_out() {
        let whole = Life { seed: 1, without: BTreeSet::from([0, 1]), ..Life::default() };
        let lived = Cell::new(0);
        let live = |life: &Life| {
            lived.set(lived.get() + 1);
            assert!(life.without.is_superset(&whole.without));
            Ok::<(), _>(())
        };
        let (life, _) = shrink(&whole, failure("x"), live);
        assert_eq!(life.without, whole.without);
        assert!(0 < lived.get());
    }

    #[test]
    fn a_kind_is_the_beginning_without_numbers_ids_and_keys() {
        assert_eq!(kind("200a2 leads 7 and commits 12"), "# leads # and commits #");
        assert_eq!(kind("clients saw: StaleRead: key-07"), "clients saw: StaleRead: key-#");
        assert_eq!(kind("member 2: é 3"), kind("member 14: é 900"));
        assert_ne!(kind("clients saw: StaleRead"), kind("clients saw: WatchGap"));
        assert_ne!(kind("panicked: commit goes back"), kind("commit goes back"));
        assert_eq!(kind(&"x ".repeat(100)).len(), KIND_CHARS_MAX);
        assert_eq!(kind(""), "");
    }
}
