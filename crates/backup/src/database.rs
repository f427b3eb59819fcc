//! The database: copied or begun anew, and given to its new member.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use backend::{Backend, Batch, Bucket, CheckError, Checksums, OpenError, Options, ReadOnly};
use base::LogPosition;
use serde_json::json;
use vfs::{File, Lock, Open, OsDir};

use crate::{BackupError, Owner, Told, file_name, parent_of};

/// After which time somebody is told that a lock is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a locked file is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Copies the file once no member has it open.
pub(crate) fn copy(
    source: &Path,
    target: &Path,
    tell: &mut dyn FnMut(&Told),
) -> Result<(), BackupError> {
    let failed = BackupError::path("open", source);
    fs::metadata(source).map_err(&failed)?;
    let dir = OsDir::open(parent_of(source)).map_err(&failed)?;
    let file = dir.open(&file_name(source), Open::Read).map_err(&failed)?;
    let began = Instant::now();
    let mut is_told = false;
    while !file.try_lock(Lock::WholeFileShared).map_err(&failed)? {
        if !is_told && PATIENCE < began.elapsed() {
            is_told = true;
            tell(&Told::Waiting { path: source.to_owned() });
        }
        thread::sleep(LOCK_POLL);
    }
    check(&file, source)?;
    let copy = || -> io::Result<()> {
        fs::copy(source, target)?;
        fs::File::open(target)?.sync_all()
    };
    let copied = copy().map_err(BackupError::path("write", target));
    drop(file);
    copied
}

/// Compares every page with the checksums that the member keeps of its database, if it keeps some.
fn check(file: &Arc<dyn File>, path: &Path) -> Result<(), BackupError> {
    let Some((aux, name)) = backend::sums_beside(path) else { return Ok(()) };
    let damaged = |page, what| BackupError::Damaged { path: path.to_owned(), page, what };
    let opened = ReadOnly::open_with(
        Arc::clone(file),
        &path.display().to_string(),
        Some((&*aux, name.as_str())),
    );
    let database = opened.map_err(|error| match error {
        OpenError::Damaged { page, what, .. } => damaged(page, what),
        OpenError::Locked { .. } | OpenError::Io { .. } => BackupError::Database(error),
    })?;
    if database.checksums() != Checksums::Matching {
        return Ok(());
    }
    database.check().map_err(|CheckError { page, what }| damaged(page, what))
}

/// Leaves out the old members of the database `folder/db` and enters the new one. `applied` is how
/// far it is, for one that begins empty.
pub(crate) fn make_own(
    folder: &Path,
    owner: &Owner,
    applied: Option<LogPosition>,
) -> Result<(), BackupError> {
    let dir = OsDir::open(folder).map_err(BackupError::path("open", folder))?;
    let backend = Backend::open(&dir, "db", &Options::default())?;
    let mut batch = match applied {
        Some(position) => Batch::applied(position),
        None => Batch::upkeep(),
    };
    for bucket in [Bucket::Members, Bucket::MembersRemoved, Bucket::Cluster] {
        let mut keys = Vec::new();
        backend.scan(bucket, b"", None, &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        for key in keys {
            batch.delete(bucket, &key);
        }
    }
    let member = &owner.member;
    batch.put(Bucket::Members, member.id.to_string().as_bytes(), member.to_json());
    let conf_state = json!({ "voters": [member.id.0], "auto_leave": false });
    batch.put(Bucket::Meta, b"confState", conf_state.to_string().into());
    backend.apply(batch);
    backend.commit()?;
    Ok(())
}
