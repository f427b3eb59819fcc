//! `defrag`: writes a stopped member's database anew, without free pages.
//!
//! The new file is made beside the old one and renamed over it; a crash leaves one of them, whole,
//! with its checksums.
//!
//! etcd: `etcdutl/etcdutl/defrag_command.go`, `server/storage/backend/backend.go`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::{Checksums, ReadError, ReadOnly, Sizes};
use cli::exit::Failure;
use cli::flag::Flag;
use cli::size;
use serde_json::Value;
use vfs::{Dir, Lock, Open};

use super::Command;
use crate::call::Call;
use crate::database::{self, Damage, DatabaseError, FileError};
use crate::log;
use crate::rewrite::{Edits, RewriteError, rewrite};

/// Members remove what begins so at their start.
const STAGED: &str = "db.tmp.defrag";

pub(crate) fn command() -> Command {
    let usage = "Required. Defragments a data directory not in use by etcd.";
    Command::new("defrag", "Defragments the storage of the etcd")
        .flags([Flag::text("data-dir", usage).required()])
        .run(run)
}

/// Why the database is as it was.
#[derive(Debug, thiserror::Error)]
enum DefragError {
    /// The database, or the new one.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database is in use, or is none.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A page of the database.
    #[error("the database is damaged")]
    Check(#[from] Damage),
    /// Its sizes.
    #[error("reading the database")]
    Read(#[from] ReadError),
    /// The new one.
    #[error("making {}", path.display())]
    Rewrite {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: RewriteError,
    },
}

fn run(call: &Call) -> Result<(), Failure> {
    let data_dir = call.flags.text("data-dir");
    let path = database::path_in(&call.folder("data-dir"));
    defragment(&path, call.lock_timeout()).map_err(|error| {
        let why = database::chain(&error);
        // A hint is a line of its own.
        let (why, hint) = why.split_at(why.find("\nhint: ").unwrap_or(why.len()));
        Failure::error(format!("Failed to defragment etcd data[{data_dir}] ({why}){hint}"))
    })
}

fn defragment(path: &Path, lock_timeout: Option<Duration>) -> Result<(), DefragError> {
    let start = Instant::now();
    database::stat(path)?;
    let (folder, name) = database::place(path)?;
    let file = folder.open(&name, Open::Write).map_err(FileError::of("open", path))?;
    database::lock(&*file, path, Lock::WholeFile, lock_timeout)?;
    // From here on the lock is a shared one, which keeps members out as well.
    let source = database::read(Arc::clone(&file), path, lock_timeout)?;
    database::check(&source)?;
    let before = source.sizes()?;
    let mut fields = vec![("path", Value::from(path.display().to_string()))];
    fields.extend(size_fields(before, None));
    log::info("defragmenting", &fields);
    let after = replace(&*folder, &name, path, &source)?;
    // Members of ours that waited for the lock of the old file look at its name again and go on with
    // the new one. Other programs must not go on with what it held.
    drop(file.set_len(0));
    fields.truncate(1);
    fields.extend(size_fields(after, Some(before)));
    fields.push(("took", cli::duration::format(start.elapsed()).into()));
    log::info("finished defragmenting directory", &fields);
    Ok(())
}

fn replace(
    folder: &dyn Dir,
    name: &str,
    path: &Path,
    source: &ReadOnly,
) -> Result<Sizes, DefragError> {
    // What a crash left of an earlier run, checksums that nobody would look for.
    if let Some((aux, _)) = backend::sums_beside(path) {
        drop(folder.remove(STAGED));
        drop(backend::remove_orphaned_sums(folder, &*aux));
    }
    let staged_path = folder.path().join(STAGED);
    let failed = FileError::of("write", &staged_path);
    let staged = folder.open(STAGED, Open::CreateOrWrite).map_err(&failed)?;
    staged.set_len(0).map_err(&failed)?;
    // Those that speak of another state are left as they are: the member then says so.
    let is_known = source.checksums() == Checksums::Matching;
    let aux = backend::sums_beside(path).filter(|_| is_known).map(|(aux, _)| aux);
    let sums = aux.clone().map(|aux| (aux, STAGED));
    let written = rewrite(source, &Edits::default(), Arc::clone(&staged), sums);
    if written.is_err() {
        drop(folder.remove(STAGED));
    }
    written.map_err(|source| DefragError::Rewrite { path: staged_path.clone(), source })?;
    let sizes = database::read(staged, &staged_path, None)?.sizes()?;
    let renamed = backend::rename_with_sums(folder, aux.as_deref(), STAGED, name);
    renamed.map_err(FileError::of("rename", path))?;
    Ok(sizes)
}

/// The sizes, each for programs and for people, and by how much it changed.
fn size_fields(now: Sizes, before: Option<Sizes>) -> Vec<(&'static str, Value)> {
    let difference = |now: u64, before: u64| i128::from(now) - i128::from(before);
    let number = |number: i128| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
    let mut fields = Vec::new();
    if let Some(before) = before {
        let diff = number(difference(now.total, before.total));
        fields.push(("current-db-size-bytes-diff", diff));
    }
    fields.push(("current-db-size-bytes", now.total.into()));
    fields.push(("current-db-size", size::bytes(now.total).into()));
    if let Some(before) = before {
        let diff = number(difference(now.in_use, before.in_use));
        fields.push(("current-db-size-in-use-bytes-diff", diff));
    }
    fields.push(("current-db-size-in-use-bytes", now.in_use.into()));
    fields.push(("current-db-size-in-use", size::bytes(now.in_use).into()));
    fields
}
