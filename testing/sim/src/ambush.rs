//! Ambushes: a fault that waits for the one moment in which it hurts most.

use base::probe::reached;
use member::Outputs;
use vfs::fault::Kind;

use crate::world::World;

/// A moment in which the power goes, or the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ambush {
    /// Entries and the term they are of are written at once.
    NewTerm,
    /// A snapshot has just taken the place of the log.
    Restored,
    /// A change of the members is in the log and not known to be committed: it is cut off.
    UncertainChange,
}

impl World {
    /// Whether the moment has come for which an ambush waits, and the machine lost power at once. If
    /// it is a write, that is torn later.
    pub(crate) fn is_ambushed(&mut self, at: usize, out: &Outputs) -> bool {
        match self.machines[at].ambush {
            Some(Ambush::Restored) if out.restored.is_some() => {
                reached("sim: the power goes when a snapshot took the place of the log");
                self.machines[at].ambush = None;
                self.end_and_restart(at, true);
                true
            }
            Some(Ambush::NewTerm) => {
                let told = self.process(at).term;
                let tells_term = |batch: &raft::Persist| {
                    batch.hard_state.as_ref().is_some_and(|state| told < state.term)
                        && batch.entries.iter().any(|entry| told < entry.term)
                };
                if out.persist.iter().any(tells_term) {
                    reached("sim: the power goes while a new term is written with its entries");
                    let machine = &mut self.machines[at];
                    (machine.ambush, machine.is_ambushed) = (None, true);
                    machine.plan.stop_at(Kind::Sync, machine.plan.count(Kind::Sync) + 1);
                }
                false
            }
            Some(Ambush::Restored | Ambush::UncertainChange) | None => false,
        }
    }

    /// Cuts a member off that has a change of the members in its log and cannot know whether it is
    /// committed, where that was waited for.
    pub(crate) fn cut_off_uncertain(&mut self, at: usize, out: &Outputs) {
        let is_change = |entry: &raft::Entry| entry.kind != raft::EntryKind::Normal;
        let mut entries = out.persist.iter().flat_map(|batch| &batch.entries);
        if self.machines[at].ambush == Some(Ambush::UncertainChange) && entries.any(is_change) {
            self.machines[at].ambush = None;
            self.network.isolate(at, self.machines.len());
        }
    }
}
