//! Good histories are accepted, also when less is known about them.

#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, unreachable_pub, clippy::wildcard_enum_match_arm, reason = "shared by tests")]
mod support;

use retcd_history::search::{Verdict, search_beginning, search_history};
use retcd_history::{Outcome, judge, read, write};

#[test]
fn perfect_clusters_are_accepted() {
    for seed in 0..200 {
        let history = support::good(seed, 300);
        if let Err(violations) = judge(&history) {
            let stories: Vec<_> = violations.iter().map(|found| found.story(&history)).collect();
            panic!("seed {seed}:\n{}", stories.join("\n"));
        }
    }
}

/// A client that did not hear what happened contradicts nobody.
#[test]
fn lost_answers_do_no_harm() {
    for seed in 0..100 {
        let mut history = support::good(seed, 200);
        for (index, operation) in history.operations.iter_mut().enumerate() {
            if index % 5 == 0 {
                operation.outcome = Outcome::Unknown("not heard".to_owned());
            }
        }
        judge(&history).unwrap_or_else(|violations| panic!("seed {seed}: {}", violations[0]));
        history.watches.clear();
        judge(&history)
            .unwrap_or_else(|violations| panic!("seed {seed}, blind: {}", violations[0]));
    }
}

/// The search, which trusts no revision, agrees.
#[test]
fn the_search_finds_the_order_of_small_histories() {
    for seed in 0..40 {
        let history = support::good(seed, 40);
        let without_leases = history
            .operations
            .iter()
            .all(|operation| !matches!(operation.call, retcd_history::Call::Grant(_)));
        let found = search_history(&history, 200_000);
        assert!(!without_leases || found == Verdict::Linearizable, "seed {seed}: {found:?}");
    }
}

/// And of the beginning of long ones, whatever leases do later; not with an answer that is not so.
#[test]
fn the_search_finds_the_order_of_beginnings() {
    let mut searched = 0;
    for seed in 0..40 {
        let mut history = support::good(seed, 300);
        let (found, len) = search_beginning(&history, 40, 200_000);
        assert_ne!(found, Verdict::Impossible, "seed {seed}");
        let mut first = history.operations.iter_mut().filter_map(|one| match &mut one.outcome {
            Outcome::Answered(retcd_history::Answer::Put(put)) => put.header.as_mut(),
            Outcome::Answered(_) | Outcome::Refused(_) | Outcome::Unknown(_) => None,
        });
        if let Some(header) = first.next().filter(|_| 20 < len && found == Verdict::Linearizable) {
            header.revision += 7;
            let (found, _) = search_beginning(&history, 40, 200_000);
            assert_ne!(found, Verdict::Linearizable, "seed {seed}");
            searched += 1;
        }
    }
    assert!(3 < searched, "{searched}");
}

#[test]
fn a_file_holds_a_history_whole() {
    let history = support::good(3, 300);
    let mut file = Vec::new();
    write(&history, &mut file).unwrap();
    assert_eq!(read(&file[..]).unwrap(), history);
}

/// Cost grows with the length, not faster: this would take minutes otherwise.
#[test]
fn long_histories_are_judged() {
    let history = support::good(1, 20_000);
    let report = judge(&history).unwrap_or_else(|violations| panic!("{}", violations[0]));
    assert_eq!(report.operations, 20_000);
}
