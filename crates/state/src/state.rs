//! The state with its one owner: opening it, and handing batches of entries to apply.
//!
//! Invariants:
//! - every effect of an entry is in the one batch that moves the applied position past it (G4);
//! - an entry that is refused moves it too;
//! - readers see a batch at its end: keys first, then leases and the other facts;
//! - an entry that changes who may do what ends its batch, so that nobody reads what was written
//!   behind it with the permissions from before it.

use std::sync::Arc;

use backend::Backend;
use base::{Index, KeyRange, LogPosition};
use bytes::Bytes;
use mvcc::{RangeQuery, Store, Want};

use crate::apply::Applier;
use crate::auth::{Identity, ROOT};
use crate::lease::Leases;
use crate::reads::Shared;
use crate::schema::{self, Facts};
use crate::{Committed, Halt, LeaseTerm, Outcome, Payload, Reads, Received, Tally, members, v2};

/// How many rows are looked at in one step when leases take up their keys.
const ATTACH_STEP_ROWS: usize = 4096;

/// What all members must agree on beside the log.
#[derive(Clone, Debug)]
pub struct Options {
    /// The shortest lease, in seconds: `ceil(1.5 * election timeout)` (L-02).
    pub lease_ttl_seconds_min: i64,
    /// How many learners a cluster may have.
    pub learners_max: usize,
    /// The store's.
    pub mvcc: mvcc::Options,
}

/// Why the state does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The keys.
    #[error("restoring the key space")]
    Keys(#[source] mvcc::OpenError),
    /// Another bucket.
    #[error("reading the backend")]
    Backend(#[source] backend::ReadError),
    /// A value that no etcd wrote.
    #[error("bucket {bucket} holds a value that does not decode at key {key}")]
    Damaged {
        /// The bucket.
        bucket: &'static str,
        /// The key, in hex.
        key: String,
    },
    /// A release newer than this one wrote it (VER-13).
    #[error("version {storage:?} is not supported")]
    TooNew {
        /// The version of its layout, `3.8.0`.
        storage: String,
    },
}

/// The state machine; one owner.
#[derive(Debug)]
pub struct State {
    store: Store,
    leases: Leases,
    facts: Facts,
    options: Options,
    applied: LogPosition,
    /// The compaction boundary, of entries applied in the running batch too.
    compact_revision: i64,
    v2: v2store::Store,
    v2_applied: Index,
    reads: Reads,
    tally: Tally,
}

impl State {
    /// Opens the state a backend holds; empty in a new one.
    ///
    /// # Errors
    ///
    /// The backend's, bytes that are no state, or the state of a newer release.
    pub fn open(backend: &Backend, options: &Options) -> Result<Self, OpenError> {
        schema::check_storage_version(backend)?;
        let store = Store::open(backend, &options.mvcc).map_err(OpenError::Keys)?;
        let facts = schema::load_facts(backend)?;
        let stored = schema::load_leases(backend)?;
        let mut leases = Leases::restore(stored, options.lease_ttl_seconds_min);
        let reader = store.reader();
        if !leases.is_empty() {
            attach_keys(&reader, &mut leases).map_err(OpenError::Backend)?;
        }
        let shared = Arc::new(Shared::new(facts.clone()));
        leases.publish(&shared.leases);
        let (v2, v2_applied) = v2::load(backend)?;
        let reads = Reads::new(reader.clone(), store.watch(), v2.reader(), shared);
        Ok(Self {
            store,
            leases,
            facts,
            options: options.clone(),
            applied: backend.applied(),
            compact_revision: reader.compact_revision(),
            v2,
            v2_applied,
            reads,
            tally: Tally::default(),
        })
    }

    /// How far the log is applied.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// What was applied since the state was opened.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Applies entries in order, as one batch of the backend, or several if some change who may do
    /// what: what each did is pushed to `outcomes`. Readers see a batch at its end, whole. Entries
    /// at or below [`State::applied`] are skipped.
    ///
    /// # Errors
    ///
    /// `Halt` means this member alone failed and must stop. The entries before the one that failed
    /// are applied, unless it failed half way.
    ///
    /// # Panics
    ///
    /// If an entry is missing between two others, or behind [`State::applied`].
    pub fn apply(
        &mut self,
        entries: &[Committed],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Halt> {
        let skip = entries.partition_point(|entry| entry.position.index <= self.applied.index);
        let mut entries = &entries[skip..];
        while let Some(first) = entries.first() {
            let before = self.applied;
            let (facts_changed, halted) = self.apply_batch(first.position, entries, outcomes)?;
            if self.applied != before {
                // The keys are shown already; now the rest.
                let shared = self.reads.shared();
                self.leases.publish(&shared.leases);
                if facts_changed {
                    shared.show(self.facts.clone());
                }
            }
            if let Some(failure) = halted {
                return Err(failure);
            }
            let done = entries.partition_point(|it| it.position.index <= self.applied.index);
            entries = &entries[done..];
        }
        Ok(())
    }

    /// Applies entries as one batch of the store and hands it over; those behind a change of who may
    /// do what are left. Returns whether facts changed,
    /// and the failure of the entry before which the batch ends, if one failed without effect.
    fn apply_batch(
        &mut self,
        first: LogPosition,
        entries: &[Committed],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(bool, Option<Halt>), Halt> {
        let mut applier = Applier {
            writer: self.store.write(first),
            leases: &mut self.leases,
            facts: &mut self.facts,
            options: &self.options,
            compact_revision: &mut self.compact_revision,
            v2: &mut self.v2,
            tokens: &self.reads.shared().tokens,
            tally: &mut self.tally,
            facts_changed: false,
            auth_changed: false,
            turned_away: false,
        };
        let mut position = self.applied;
        let mut halted = None;
        for entry in entries {
            assert!(
                entry.position.index == position.index.next(),
                "entry {} does not follow {position}",
                entry.position
            );
            let revision = applier.writer.revision();
            match applier.entry(entry) {
                Ok(outcome) => outcomes.push(outcome),
                // The entry did nothing before it failed: what came before it holds.
                Err(failure) if applier.writer.revision() == revision => {
                    halted = Some(failure);
                    break;
                }
                Err(failure) => {
                    applier.writer.abandon();
                    return Err(failure);
                }
            }
            position = entry.position;
            if applier.auth_changed {
                break;
            }
        }
        if position != self.applied {
            v2::put_applied(position.index, applier.writer.batch());
            applier.writer.finish(position);
            self.applied = position;
            self.v2_applied = position.index;
        }
        Ok((applier.facts_changed, halted))
    }

    /// Puts a received snapshot in the place of this state, in the database `backend` that it is
    /// over. Handles for readers and watches stay; they see the new state from the return on.
    ///
    /// # Errors
    ///
    /// The database could not be replaced: the member must stop. At its next start the replacement
    /// is finished, or the old state is still there.
    pub fn restore(
        &mut self,
        received: Received,
        backend: &Backend,
    ) -> Result<(), backend::ReplaceError> {
        let Received { incoming, state } = received;
        let Self {
            store, mut leases, facts, applied, compact_revision, v2, v2_applied, reads, ..
        } = state;
        drop(reads);
        base::probe::failpoint("raftBeforeApplySnap");
        // The entries that are jumped over may have taken tokens and permissions away: nobody reads
        // the keys behind them with those from before.
        self.reads.shared().tokens.clear();
        if !base::probe::mutant("former-users-read-a-snapshot") {
            self.reads.shared().show(facts.clone());
        }
        self.store.restore(store, || backend.replace_with(incoming))?;
        base::probe::failpoint("raftAfterApplySnap");
        leases.publish_whole(&self.reads.shared().leases);
        if !base::probe::mutant("v2-tree-stays-over-a-snapshot") {
            self.v2.replace(v2);
        }
        self.v2_applied = v2_applied;
        if !base::probe::mutant("snapshot-without-its-leases") {
            self.leases = leases;
        }
        self.facts = facts;
        self.applied = applied;
        self.compact_revision = compact_revision;
        Ok(())
    }

    /// What all members must agree on beside the log.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Whom the member's own requests are from: `root`, if users are asked who they are.
    #[must_use]
    pub fn own_identity(&self) -> Identity {
        let auth = &self.facts.auth;
        if auth.is_enabled() {
            Identity { user: ROOT.to_owned(), revision: auth.revision() }
        } else {
            Identity::nobody()
        }
    }

    /// Whether this id was removed and may never come back.
    #[must_use]
    pub fn is_removed(&self, id: base::MemberId) -> bool {
        self.facts.members.removed.contains(&id)
    }

    /// A handle for readers.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.reads.clone()
    }

    /// Removes rows of a scheduled compaction, as a bounded piece of work.
    ///
    /// # Errors
    ///
    /// The backend's.
    pub fn compact_step(&mut self) -> Result<mvcc::CompactStep, backend::ReadError> {
        self.store.compact_step()
    }

    /// What compactions removed since the state was opened, or took another's place.
    #[must_use]
    pub fn removed(&self) -> mvcc::Removed {
        self.store.removed()
    }

    /// The members in order of id.
    #[must_use]
    pub fn members(&self) -> Vec<members::MemberObject> {
        self.facts.members.known.values().cloned().collect()
    }

    /// Ids that were removed and never come back, in order.
    #[must_use]
    pub fn removed_members(&self) -> Vec<base::MemberId> {
        self.facts.members.removed.iter().copied().collect()
    }

    /// All leases with the time they have, for the clock of a new leader, in order of id.
    #[must_use]
    pub fn leases_for_promotion(&self) -> Vec<LeaseTerm> {
        self.leases.terms()
    }

    /// Up to where the log is applied to the tree of the v2 generation; 0 if it was never in this
    /// database. It is behind [`State::applied`] after etcd, which keeps the tree elsewhere, worked
    /// on the database: then [`State::take_over_v2`] brings it up to date.
    #[must_use]
    pub fn v2_applied(&self) -> Index {
        self.v2_applied
    }

    /// Makes `tree`, or with `None` the tree as it is, the tree of the v2 generation, brought up to
    /// date by the entries from its position to [`State::applied`]; they are in order.
    pub fn take_over_v2(
        &mut self,
        tree: Option<v2store::Store>,
        entries: &[Payload],
        to: &Backend,
    ) {
        let mut tree = tree.unwrap_or_else(|| self.v2.duplicate());
        for entry in entries {
            v2::replay(&mut tree, entry);
        }
        self.v2_applied = self.applied.index;
        to.apply(v2::replace_rows(&self.v2, &tree, self.v2_applied));
        self.v2.replace(tree);
    }

    /// The tree of the v2 generation.
    #[must_use]
    pub fn v2(&self) -> &v2store::Store {
        &self.v2
    }
}

/// Hangs every live key on the lease its row names, in steps that bound what is held of the rows.
fn attach_keys(reader: &mvcc::Reader, leases: &mut Leases) -> Result<(), backend::ReadError> {
    let revision = reader.revision();
    let mut next = Bytes::new();
    loop {
        let result = reader.range(&RangeQuery {
            keys: KeyRange::From(next),
            at: Some(revision),
            limit: Some(ATTACH_STEP_ROWS),
            want: Want::Rows,
        });
        let result = match result {
            Ok(result) => result,
            Err(mvcc::QueryError::Backend(source)) => return Err(source),
            Err(mvcc::QueryError::Revision(error)) => {
                panic!("the newest revision is readable: {error}")
            }
        };
        let last = result.rows.len() < ATTACH_STEP_ROWS;
        let mut key = Bytes::new();
        for row in &result.rows {
            let row = row.decode();
            leases.attach(&row.key, base::LeaseId(row.lease));
            key = row.key;
        }
        if last {
            return Ok(());
        }
        next = [&key[..], &[0]].concat().into();
    }
}
