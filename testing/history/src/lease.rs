//! The promises of leases: none ends before the time its client was last told, none lives on.
//!
//! A promise counts from the moment the client asked, which is before the server answered; a sign of
//! death counts from the moment a client saw it, which is after it happened. So neither clock of a
//! server enters, and no allowance is needed.
//!
//! That a lease takes all its keys, in one revision, and no others is the replay's business.

use std::collections::BTreeMap;

use crate::chain::{Author, Chain};
use crate::record::{Answer, Call, History, Operation, Outcome};
use crate::time::Knowledge;
use crate::violation::{Rule, Violation, Witness};

const NOT_FOUND: &str = "requested lease not found";
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// One lease's life as clients saw it.
#[derive(Debug, Default)]
struct Life {
    /// Acknowledged grants.
    grants: Vec<usize>,
    /// Asked, promised until, by whom.
    promises: Vec<(u64, u64, usize)>,
    /// Seen dead at, by whom.
    deaths: Vec<(u64, Option<Witness>)>,
    /// When somebody first tried to end it.
    revoked: Option<u64>,
    /// Acknowledged puts that attached a key: asked at, by whom.
    attached: Vec<(u64, usize)>,
}

pub(crate) fn judge(history: &History, knowledge: &Knowledge, chain: &Chain) -> Vec<Violation> {
    let mut lives: BTreeMap<i64, Life> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        note(&mut lives, index, operation);
    }
    for (revision, author) in &chain.authors {
        if let Author::Expiry(lease) = author
            && let Some(seen) = knowledge.first_seen(*revision)
        {
            lives.entry(*lease).or_default().deaths.push((seen.at, seen.witness));
        }
    }
    lives.iter().flat_map(|(lease, life)| verdict(*lease, life)).collect()
}

fn note(lives: &mut BTreeMap<i64, Life>, index: usize, operation: &Operation) {
    let refused_as_missing =
        matches!(&operation.outcome, Outcome::Refused(text) if text.contains(NOT_FOUND));
    let answer = operation.answer();
    let lease = match &operation.call {
        Call::Grant(request) => match answer {
            Some(Answer::Grant(answer)) => answer.id,
            Some(_) | None => request.id,
        },
        Call::Revoke(request) => request.id,
        Call::KeepAlive(request) => request.id,
        Call::TimeToLive(request) => request.id,
        Call::Put(request) if request.lease != 0 => request.lease,
        Call::Put(_) | Call::Range(_) | Call::Delete(_) | Call::Txn(_) | Call::Compact(_) => return,
    };
    let life = lives.entry(lease).or_default();
    let died = (operation.returned, Some(Witness::Operation(index)));
    if refused_as_missing {
        life.deaths.push(died);
    }
    if matches!(operation.call, Call::Revoke(_)) && !refused_as_missing {
        let first = life.revoked.unwrap_or(u64::MAX).min(operation.invoked);
        life.revoked = Some(first);
    }
    match answer {
        Some(Answer::Grant(answer)) => {
            life.grants.push(index);
            life.promises.push((operation.invoked, until(operation.invoked, answer.ttl), index));
        }
        Some(Answer::KeepAlive(answer)) if answer.ttl <= 0 => life.deaths.push(died),
        Some(Answer::KeepAlive(answer)) => {
            life.promises.push((operation.invoked, until(operation.invoked, answer.ttl), index));
        }
        Some(Answer::TimeToLive(answer)) if answer.ttl < 0 => life.deaths.push(died),
        Some(Answer::Revoke(_)) => life.deaths.push(died),
        Some(Answer::Put(_)) => life.attached.push((operation.invoked, index)),
        Some(
            Answer::TimeToLive(_)
            | Answer::Range(_)
            | Answer::Delete(_)
            | Answer::Txn(_)
            | Answer::Compact(_),
        )
        | None => {}
    }
}

fn until(begin: u64, seconds: i64) -> u64 {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    begin.saturating_add(seconds.saturating_mul(NANOSECONDS_PER_SECOND))
}

fn verdict(lease: i64, life: &Life) -> Vec<Violation> {
    let mut violations = Vec::new();
    if let [first, second, ..] = life.grants[..] {
        let text = format!("lease {lease} was granted twice");
        violations.push(Violation::new(Rule::LeaseTwice, text).operations([first, second]));
        return violations;
    }
    // Nothing is promised about a lease of which nobody knows when it began.
    if life.grants.is_empty() {
        return violations;
    }
    for (seen, witness) in &life.deaths {
        let by_request = life.revoked.is_some_and(|begin| begin <= *seen);
        let broken = life.promises.iter().find(|(_, until, _)| *seen < *until);
        if let (false, Some((_, until, promise))) = (by_request, broken) {
            let early = (until - seen) / 1_000_000;
            let text = format!("lease {lease} was gone {early} ms before its promised time");
            let violation = Violation::new(Rule::LeaseEarly, text).operations([*promise]);
            violations.push(violation.witness(*witness));
        }
    }
    let first_death = life.deaths.iter().min_by_key(|(seen, _)| *seen);
    if let Some((seen, witness)) = first_death {
        let promises = life.promises.iter().map(|(begin, _, index)| (begin, index));
        let uses = promises.chain(life.attached.iter().map(|(begin, index)| (begin, index)));
        for (_, index) in uses.filter(|(begin, _)| *seen < **begin) {
            let text = format!("lease {lease} was used after its end had been seen");
            let violation = Violation::new(Rule::LeaseAfterDeath, text).operations([*index]);
            violations.push(violation.witness(*witness));
        }
    }
    violations
}
