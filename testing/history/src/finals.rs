//! The members at the end: equal to each other, to the model, and not older than any
//! acknowledged change.

use std::collections::BTreeMap;

use crate::chain::Chain;
use crate::record::{Final, History};
use crate::time::Knowledge;
use crate::violation::{Rule, Violation};

pub(crate) fn judge(history: &History, knowledge: &Knowledge, chain: &Chain) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut groups: BTreeMap<i64, &Final> = BTreeMap::new();
    for member in &history.finals {
        let first = *groups.entry(member.revision).or_insert(member);
        if (first.hash, first.compact_revision) != (member.hash, member.compact_revision) {
            let text = format!(
                "at revision {} member {} has hash {:08x} and compaction {}, member {} has {:08x} \
                 and {}",
                member.revision,
                first.member,
                first.hash,
                first.compact_revision,
                member.member,
                member.hash,
                member.compact_revision
            );
            violations.push(Violation::new(Rule::MembersDiffer, text));
        }
    }
    for member in &history.finals {
        violations.extend(end(member, knowledge, chain));
    }
    violations
}

fn end(member: &Final, knowledge: &Knowledge, chain: &Chain) -> Option<Violation> {
    let (revision, number) = (member.revision, member.member);
    if let Some(lost) = knowledge.first_seen(revision + 1) {
        let text =
            format!("member {number} ends at revision {revision}, but {} was seen", lost.revision);
        let violation = Violation::new(Rule::EndDiffers, text).witness(lost.witness);
        return Some(violation.operations(chain.operations([lost.revision])));
    }
    let pairs = member.pairs.as_ref()?;
    if chain.store.revision() < revision {
        return None;
    }
    let expected = chain.store.pairs(revision);
    let different = expected
        .iter()
        .find(|pair| !pairs.contains(pair))
        .or_else(|| pairs.iter().find(|pair| !expected.contains(pair)))?;
    let text = format!(
        "member {number} ends with another value of {} than the model",
        different.key.escape_ascii()
    );
    let operations = chain.operations([different.mod_revision]);
    Some(Violation::new(Rule::EndDiffers, text).operations(operations))
}
