//! All judges over one history.

use crate::record::History;
use crate::time::Knowledge;
use crate::violation::Violation;
use crate::{chain, finals, lease, reads, watch};

/// What a history without violations held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Calls.
    pub operations: usize,
    /// Of them those with an answer.
    pub answered: usize,
    /// Of them those of which nobody knows whether they happened.
    pub unknown: usize,
    /// Revisions that the clients' requests made.
    pub revisions: usize,
    /// Of them those that only an unanswered request or the end of a lease explains.
    pub inferred: usize,
    /// Watches.
    pub watches: usize,
    /// Events they delivered.
    pub events: usize,
}

/// Judges a history.
///
/// Linear in the history's length, but for revisions that nobody was answered for; see the module
/// comment of the crate.
///
/// # Errors
///
/// What is wrong with it, the most telling first.
pub fn judge(history: &History) -> Result<Report, Vec<Violation>> {
    let knowledge = Knowledge::of(history);
    let (chain, mut violations) = chain::resolve(history, &knowledge);
    violations.extend(reads::judge(history, &knowledge, &chain));
    violations.extend(watch::judge(history, &chain));
    violations.extend(lease::judge(history, &knowledge, &chain));
    violations.extend(finals::judge(history, &knowledge, &chain));
    if !violations.is_empty() {
        return Err(violations);
    }
    let inferred = chain.authors.values().filter(|author| match author {
        chain::Author::Operation(index) => history.operations[*index].is_unknown(),
        chain::Author::Expiry(_) => true,
    });
    let observations = history.watches.iter().flat_map(|watch| &watch.observations);
    let operations = &history.operations;
    Ok(Report {
        operations: operations.len(),
        answered: operations.iter().filter(|operation| operation.answer().is_some()).count(),
        unknown: operations.iter().filter(|operation| operation.is_unknown()).count(),
        revisions: chain.authors.len(),
        inferred: inferred.count(),
        watches: history.watches.len(),
        events: observations.map(|seen| seen.response.events.len()).sum(),
    })
}
