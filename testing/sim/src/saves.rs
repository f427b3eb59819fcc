//! Snapshots that an operator saves while the cluster goes on: each is the state of one moment.

use std::sync::Arc;

use backend::Backend;
use base::LogPosition;
use base::probe::reached;
use bytes::Bytes;
use proto::etcdserverpb as pb;
use state::auth::gate::Authorized;
use state::{SnapshotFacts, State};
use vfs::Open;
use vfs::memory::MemoryDir;

use crate::judge::Verdict;
use crate::machine::{Stop, backend_options};
use crate::world::{Event, World};

/// What the saved file is called where it is looked at.
const NAME: &str = "saved";

impl World {
    /// Pins the database of a member; it is read later, while the member goes on.
    pub(crate) fn save(&mut self, at: usize) -> Verdict {
        if !self.machines[at].is_running() {
            return Ok(());
        }
        match self.process(at).backend.copy() {
            Ok(copy) => {
                self.process(at).saving = Some(copy);
                let (epoch, pause) = (self.machines[at].epoch, self.random.below(3000));
                self.after(pause, Event::ReadSaved { at, epoch });
                Ok(())
            }
            Err(backend::CommitError::NoSpace(_)) => Ok(()),
            Err(error) => self.stop(at, Stop::Disk(error.to_string())),
        }
    }

    pub(crate) fn on_read_saved(&mut self, at: usize, epoch: u64) -> Verdict {
        if !self.is_current(at, epoch) || self.put_off(at, Event::ReadSaved { at, epoch }).is_none()
        {
            return Ok(());
        }
        // Another one may have taken its place.
        let Some(mut copy) = self.process(at).saving.take() else { return Ok(()) };
        let len = usize::try_from(copy.len()).expect("a simulated database is small");
        let database =
            SnapshotFacts::read(&copy).map_err(|error| Stop::of(&error)).and_then(|facts| {
                Ok((facts.position, copy.read(len).map_err(|error| Stop::of(&error))?))
            });
        match database {
            Ok((position, database)) => {
                reached("sim: a snapshot is saved");
                let options = self.process(at).member.state().options().clone();
                let judged = self.judge_saved(position, &database, options);
                judged.map_err(|what| format!("the snapshot that was saved of {at}: {what}"))
            }
            Err(stop) => self.stop(at, stop),
        }
    }

    /// It is whole, and holds what the committed entries up to its own make.
    fn judge_saved(
        &self,
        position: LogPosition,
        database: &Bytes,
        options: state::Options,
    ) -> Verdict {
        let dir = MemoryDir::new().shared();
        let file = dir.open(NAME, Open::Create).map_err(|error| error.to_string())?;
        file.write_at(database, 0).map_err(|error| error.to_string())?;
        drop(file);
        let backend = Backend::open(&Arc::clone(&dir), NAME, &backend_options());
        let backend = backend.map_err(|error| error.to_string())?;
        backend.check().map_err(|error| error.to_string())?;
        let state = State::open(&backend, &options).map_err(|error| error.to_string())?;
        if state.applied() != position || self.judge.decided() < position.index.0 {
            return Err(format!("it is of {}, and says {position}", state.applied()));
        }
        let all = pb::RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..Default::default()
        };
        let found = state.reads().range(Authorized::own(&all));
        let found = found.map_err(|error| format!("{error:?}"))?;
        // What was compacted since, the model may have forgotten.
        if found.revision < self.judge.model.compacted {
            return Ok(());
        }
        let expected = self.judge.model.pairs_at(found.revision);
        let found: Vec<_> = found.rows.iter().map(mvcc::Row::decode).collect();
        if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}")) }
    }
}
