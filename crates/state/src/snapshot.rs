//! Snapshots between members: what one says of itself, and one that was received.
//!
//! A snapshot is the whole database at one applied position. What must be known beside it, who the
//! members are and where it stands in the log, is read from the copy itself, so that the two always
//! agree. A received one is opened and read to the end before it may become the state: installing
//! it is then quick and finds nothing wrong.
//!
//! Not here: how it travels (`transport`), and what the log remembers of it (`server`).

use std::io;
use std::sync::Arc;

use backend::{Copy, Incoming};
use base::{Index, LogPosition, MemberId};
use proto::raftpb;

use crate::members::MemberObject;
use crate::snapshot_file::SnapshotFile;
use crate::{OpenError, Options, State, schema, v2};

/// What a copy of the database says of itself.
#[derive(Clone, Debug)]
pub struct SnapshotFacts {
    /// The last entry whose effect it has.
    pub position: LogPosition,
    /// The members there, in order of id.
    pub members: Vec<MemberObject>,
    /// Ids that were removed, in order.
    pub removed: Vec<MemberId>,
    /// The cluster version, if it was decided.
    pub cluster_version: Option<String>,
    /// The tree of the v2 generation.
    pub v2: Arc<v2store::Store>,
}

impl SnapshotFacts {
    /// Reads them; a few rows and the v2 tree, however large the database is.
    ///
    /// # Errors
    ///
    /// The backend's, or bytes that are no state.
    pub fn read(copy: &Copy) -> Result<Self, OpenError> {
        let members = schema::load_members(copy)?;
        Ok(Self {
            position: copy.applied().map_err(OpenError::Backend)?,
            members: members.known.into_values().collect(),
            removed: members.removed.into_iter().collect(),
            cluster_version: schema::load_versions(copy)?.cluster.map(|it| it.to_string()),
            v2: Arc::new(v2::load(copy)?.0),
        })
    }

    /// Who votes and who listens, in order of id.
    #[must_use]
    pub fn conf_state(&self) -> raftpb::ConfState {
        let ids = |learners: bool| {
            let members = self.members.iter().filter(|member| member.is_learner == learners);
            members.map(|member| member.id.0).collect()
        };
        raftpb::ConfState {
            voters: ids(false),
            learners: ids(true),
            auto_leave: Some(false),
            ..raftpb::ConfState::default()
        }
    }

    /// The `.snap` file of this position; its `store_json` is what travels inside `MsgSnap`.
    #[must_use]
    pub fn file(&self) -> SnapshotFile<'_> {
        SnapshotFile {
            position: self.position,
            conf_state: self.conf_state(),
            members: &self.members,
            removed: &self.removed,
            cluster_version: self.cluster_version.as_deref(),
            v2: Some(&self.v2),
        }
    }
}

/// A received snapshot, read to the end and ready to take the place of the state.
#[derive(Debug)]
pub struct Received {
    pub(crate) incoming: Incoming,
    pub(crate) state: State,
}

/// Why a received snapshot is refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The database is of another moment than the message that came with it.
    #[error("the received database is applied up to {found}, but its message says {expected}")]
    Position {
        /// What the database says.
        found: LogPosition,
        /// What the message says.
        expected: LogPosition,
    },
    /// Its bytes are no state.
    #[error("reading the received database")]
    State(#[source] OpenError),
}

impl Received {
    /// Reads all of a received database; `position` is what its message says. Takes as long as
    /// opening a database of that size.
    ///
    /// # Errors
    ///
    /// See [`ReceiveError`]; the files are left to the caller.
    pub fn prepare(
        incoming: Incoming,
        position: LogPosition,
        options: &Options,
    ) -> Result<Self, ReceiveError> {
        let found = incoming.applied();
        // etcd 3.4 stores no term.
        if found.index != position.index || (found.term.0 != 0 && found.term != position.term) {
            return Err(ReceiveError::Position { found, expected: position });
        }
        base::probe::failpoint("applyBeforeOpenSnapshot");
        let state = State::open(incoming.backend(), options).map_err(ReceiveError::State)?;
        base::probe::failpoint("applyAfterOpenSnapshot");
        Ok(Self { incoming, state })
    }

    /// Puts the v2 tree of the message into a database that lacks it, as those of etcd do.
    ///
    /// # Errors
    ///
    /// It cannot be stored.
    pub fn take_v2(&mut self, store_json: &[u8]) -> Result<(), backend::CommitError> {
        if self.state.v2_applied() != self.index()
            && let Ok(tree) = v2store::Store::from_json(store_json)
            && tree.reader().index() > 0
        {
            self.state.take_over_v2(Some(tree), &[], self.incoming.backend());
            self.incoming.backend().commit()?;
        }
        Ok(())
    }

    /// Up to where it is applied.
    #[must_use]
    pub fn index(&self) -> Index {
        self.incoming.applied().index
    }

    /// Who is in the cluster there.
    #[must_use]
    pub fn members(&self) -> Vec<MemberObject> {
        self.state.members()
    }

    /// Removes the files: it is not wanted.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn discard(self) -> io::Result<()> {
        drop(self.state);
        self.incoming.discard()
    }
}
