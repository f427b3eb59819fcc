//! `migrate`: makes a stopped member's directory one of another version.
//!
//! Layouts differ in one row only, that with the version itself. To go back, nothing in the log behind
//! its newest snapshot may need the newer version.
//!
//! etcd: `etcdutl/etcdutl/migrate_command.go`, `server/storage/schema/{schema,migration}.go`,
//! `server/storage/wal/version.go`.

use std::path::{Path, PathBuf};

use backend::{Backend, Batch, Bucket, CommitError};
use bytes::Bytes;
use cli::exit::Failure;
use cli::flag::Flag;
use cli::quote::quote;
use prost::Message as _;
use proto::etcdserverpb::InternalRaftRequest;
use proto::v2pb;
use raft::{Entry, EntryKind};
use vfs::OsDir;

use super::Command;
use crate::call::Call;
use crate::storage::{self, DetectError, V3_5, V3_6, V3_7, Version};
use crate::{database, log};

pub(crate) fn command() -> Command {
    let short = "Migrates schema of etcd data dir files to make them compatible with different \
                 etcd version";
    let target = "Target etcd version to migrate contents of data dir. Minimal value 3.5. Format \
                  \"X.Y\" for example 3.6.";
    let force =
        "Ignore migration failure and forcefully override storage version. Not recommended.";
    Command::new("migrate", short)
        .flags([
            Flag::text("data-dir", "Path to the etcd data dir").required(),
            Flag::text("target-version", target).required(),
            Flag::bool("force", force),
        ])
        .run(run)
}

/// Why the version is as it was.
#[derive(Debug, thiserror::Error)]
enum MigrateError {
    /// The database's version is not known.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The log.
    #[error("failed to open wal")]
    Wal(#[from] wal::OpenError),
    /// An entry of the log.
    #[error("failed to read wal: entry {index} is no request")]
    Entry {
        /// Which.
        index: base::Index,
    },
    /// No way leads from one version to the other.
    #[error("cannot create migration plan: {0}")]
    Plan(String),
    /// The log holds what the target does not know.
    #[error(
        "cannot downgrade storage, WAL contains newer entries, as the target version ({target}) is \
         lower than the version ({needed}) detected from WAL logs"
    )]
    NewerEntries {
        /// Where to go.
        target: Version,
        /// What the log needs.
        needed: String,
    },
    /// The database.
    #[error("committing the new version to {}", path.display())]
    Commit {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: CommitError,
    },
}

fn run(call: &Call) -> Result<(), Failure> {
    let target = parse_target(call.flags.text("target-version"))?;
    let data_dir = call.folder("data-dir");
    let path = database::path_in(&data_dir);
    database::require(&path)?;
    let backend = database::write(&path, call.lock_timeout());
    let backend = backend.map_err(|error| database::failure(&error))?;
    let force = call.flags.bool("force");
    migrate(&backend, &data_dir, target, force).map_err(|error| database::failure(&error))
}

fn parse_target(text: &str) -> Result<Version, Failure> {
    if text.matches('.').count() != 1 {
        let text = quote(text.as_bytes());
        let message = format!("wrong target version format, expected \"X.Y\", got {text}");
        return Err(Failure::bad_arguments(message));
    }
    let version = Version::parse(text).map_err(|error| {
        Failure::bad_arguments(format!("failed to parse target version: {error}"))
    })?;
    if version < V3_5 {
        let message =
            format!("target version \"{}\" not supported. Minimal \"3.5\"", version.short());
        return Err(Failure::bad_arguments(message));
    }
    Ok(version)
}

fn migrate(
    backend: &Backend,
    data_dir: &Path,
    target: Version,
    force: bool,
) -> Result<(), MigrateError> {
    let current = storage::detect(|bucket, key| backend.get(bucket, key)).inspect_err(|_| {
        log::error(
            "failed to detect storage version. Please make sure you are using data dir from etcd \
             v3.5 and older",
            &[],
        );
    })?;
    if current == target {
        let fields = [("storage-version", current.short().into())];
        log::info("storage version up-to-date", &fields);
        return Ok(());
    }
    let needed = needed_version(data_dir).inspect_err(|error| {
        let fields = [("error", database::chain(error).into())];
        log::error("Failed to finalize config", &fields);
    })?;
    let failed = |source| MigrateError::Commit { path: database::path_in(data_dir), source };
    match plan(current, target, needed.as_deref()) {
        Ok(steps) => {
            set_version(backend, target).map_err(failed)?;
            for step in steps {
                let fields = [("new-storage-version", step.to_string().into())];
                log::info("updated storage version", &fields);
            }
            Ok(())
        }
        Err(error) if force => {
            let fields = [("error", error.to_string().into())];
            log::info("normal migrate failed, trying with force", &fields);
            set_version(backend, target).map_err(failed)?;
            if target < V3_6 {
                log::warn("forcefully cleared storage version", &[]);
            } else {
                let fields = [("storage-version", target.short().into())];
                log::warn("forcefully set storage version", &fields);
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Versions on the way, the target included.
fn plan(
    current: Version,
    target: Version,
    needed: Option<&str>,
) -> Result<Vec<Version>, MigrateError> {
    if current.major != target.major {
        let text = "changing major storage version is not supported";
        return Err(MigrateError::Plan(text.to_owned()));
    }
    if V3_7 < current.max(target) {
        // The first step that nobody knows.
        let next = Version { minor: current.minor.max(V3_7.minor) + 1, ..current };
        let unknown = if current < target { next } else { current };
        return Err(MigrateError::Plan(format!("version \"{unknown}\" is not supported")));
    }
    let at = |minor| Version { major: current.major, minor };
    if current < target {
        return Ok((current.minor + 1..=target.minor).map(at).collect());
    }
    if let Some(needed) = needed.filter(|needed| Version::parse(needed).is_ok_and(|v| target < v)) {
        return Err(MigrateError::NewerEntries { target, needed: needed.to_owned() });
    }
    Ok((target.minor..current.minor).rev().map(at).collect())
}

fn set_version(backend: &Backend, target: Version) -> Result<(), CommitError> {
    let mut batch = Batch::upkeep();
    if target < V3_6 {
        batch.delete(Bucket::Meta, storage::STORAGE_VERSION);
    } else {
        let text = Bytes::from(target.to_string());
        batch.put(Bucket::Meta, storage::STORAGE_VERSION, text);
    }
    backend.apply(batch);
    backend.commit().map(drop)
}

/// The version, from 3.6 on, that a reader of the log behind its newest snapshot must have; all
/// that can ask for one is a message that tests of downgrades write.
fn needed_version(data_dir: &Path) -> Result<Option<String>, MigrateError> {
    let member = data_dir.join("member");
    let parent = OsDir::open(&member)
        .map_err(|source| wal::OpenError::Folder { folder: member.clone(), source })?;
    let replay = wal::read(&*parent, "wal", |marks| marks.last().cloned())?;
    let mut needed = None;
    for entry in &replay.entries {
        needed = needed.max(needed_by(entry)?);
    }
    Ok(needed.map(|(_, text)| text))
}

fn needed_by(entry: &Entry) -> Result<Option<(Version, String)>, MigrateError> {
    let wrong = || MigrateError::Entry { index: entry.index };
    if entry.kind != EntryKind::Normal {
        return Ok(None);
    }
    let request = match InternalRaftRequest::decode(&entry.data[..]) {
        Ok(request) => request,
        // Up to 3.5 what members say of themselves and the cluster version were requests of the v2
        // store; every version reads them.
        Err(_) if v2pb::Request::decode(&entry.data[..]).is_ok() => return Ok(None),
        Err(_) => return Err(wrong()),
    };
    let Some(test) = request.downgrade_version_test else { return Ok(None) };
    let version = Version::parse(&test.ver).map_err(|_| wrong())?;
    // The message itself is known from 3.6 on.
    let own = (V3_6, V3_6.to_string());
    Ok(Some(own.max((version, test.ver))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(current: Version, target: Version, needed: Option<&str>) -> Result<String, String> {
        let steps = plan(current, target, needed).map_err(|error| error.to_string())?;
        Ok(steps.into_iter().map(Version::short).collect::<Vec<_>>().join(" "))
    }

    const V3_8: Version = Version { major: 3, minor: 8 };

    /// UTL-12.
    #[test]
    fn versions_are_left_one_by_one() {
        assert_eq!(steps(V3_5, V3_7, None).unwrap(), "3.6 3.7");
        assert_eq!(steps(V3_7, V3_5, None).unwrap(), "3.6 3.5");
        let unknown = "cannot create migration plan: version \"3.8.0\" is not supported";
        assert_eq!(steps(V3_7, V3_8, None).unwrap_err(), unknown);
        assert_eq!(steps(V3_8, V3_7, None).unwrap_err(), unknown);
        assert!(steps(V3_7, Version { major: 4, minor: 0 }, None).is_err());
    }

    /// UTL-12.
    #[test]
    fn newer_entries_keep_the_version() {
        assert_eq!(steps(V3_7, V3_6, Some("3.6.0")).unwrap(), "3.6");
        assert_eq!(
            steps(V3_7, V3_6, Some("3.7.0")).unwrap_err(),
            "cannot downgrade storage, WAL contains newer entries, as the target version (3.6.0) is \
             lower than the version (3.7.0) detected from WAL logs"
        );
    }

    /// Process contract, section 5.
    #[test]
    fn target_must_be_two_numbers() {
        let text = |target: &str| parse_target(target).unwrap_err().message.unwrap();
        assert_eq!(text("abc"), "wrong target version format, expected \"X.Y\", got \"abc\"");
        assert_eq!(text("3.6.0"), "wrong target version format, expected \"X.Y\", got \"3.6.0\"");
        assert_eq!(
            text("3.a"),
            "failed to parse target version: strconv.ParseInt: parsing \"a\": invalid syntax"
        );
        assert_eq!(text("3.4"), "target version \"3.4\" not supported. Minimal \"3.5\"");
    }
}
