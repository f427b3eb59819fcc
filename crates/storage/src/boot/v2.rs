//! The v2 tree of a directory that etcd left: it is in a snapshot file and in the log behind it, not
//! in the database (interop 2.3, 2.5).

use std::io;

use base::LogPosition;
use raft::{Entry, EntryKind};
use state::Payload;
use state::snapshot_file::SnapshotFile;
use v2store::Store;
use vfs::{Dir, Open};

use super::Opened;

/// Brings the tree up to date, if the database's is not. `start` is the mark that the log begins at,
/// of which there is a file unless it is the very beginning, and `entries` what follows it.
pub(super) fn take_over(opened: &mut Opened, start: LogPosition, entries: &[Entry]) {
    let (applied, known) = (opened.state.applied().index, opened.state.v2_applied());
    if known == applied {
        return;
    }
    let goes_on = known.0 > 0 && start.index <= known;
    let (tree, from) = if goes_on {
        (None, known)
    } else if start.index.0 == 0 {
        (Some(Store::new()), start.index)
    } else {
        let name = format!("{:016x}-{:016x}.snap", start.term.0, start.index.0);
        // Releases without the v2 API may leave no file; their members have no such keys.
        let Some(tree) = read(opened.snap_dir.as_ref(), &name) else {
            tracing::warn!("snapshot-index" = start.index.0, "found no v2 keys to take over");
            return;
        };
        (Some(tree), start.index)
    };
    let behind = entries.iter().filter(|entry| from < entry.index && entry.index <= applied);
    let payloads: Vec<Payload> = behind.map(payload).collect();
    opened.state.take_over_v2(tree, &payloads, &opened.backend);
    if opened.state.v2().is_used() {
        let index = opened.state.v2().reader().index();
        tracing::info!("etcd-index" = index, "took over the v2 keys of this directory");
    }
}

fn read(dir: &dyn Dir, name: &str) -> Option<Store> {
    let bytes = || -> io::Result<Vec<u8>> {
        let file = dir.open(name, Open::Read)?;
        let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    match bytes() {
        Ok(bytes) => SnapshotFile::tree(&bytes),
        Err(error) => {
            tracing::debug!(name, error = %error, "cannot read a snapshot file");
            None
        }
    }
}

fn payload(entry: &Entry) -> Payload {
    match entry.kind {
        EntryKind::Normal if entry.data.is_empty() => Payload::Nothing,
        EntryKind::Normal => Payload::Request(entry.data.clone()),
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => {
            Payload::MemberChange(entry.data.clone())
        }
    }
}
