//! Content of files, read again when they change, and kept when they break. A1, A2, A3.
//!
//! etcd reads its files in every handshake. Here each is looked at in every handshake and read when
//! it may have changed: another file, length or time, or a time so young that a second change could
//! not be told from the first.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::error::FileError;

/// A file changed longer ago than this has a time that no later change can have: clocks of file
/// systems are that coarse at most.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// `None` if there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// Whether a change after `now` would show.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let young = now.saturating_sub(SETTLED_AFTER).as_secs();
        u64::try_from(self.changed.0).is_ok_and(|changed| changed < young)
    }
}

type Load<T> = dyn Fn() -> Result<T, FileError> + Send + Sync;

/// What can be reloaded.
pub(crate) trait Content: PartialEq {
    /// Warns of what can be used but will not serve well; called for each new content.
    fn warn(&self);
}

/// The content of some files that make sense together.
pub(crate) struct Reloaded<T> {
    paths: Vec<PathBuf>,
    load: Box<Load<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    content: Arc<T>,
    seen: Vec<Option<Fingerprint>>,
    settled: bool,
    /// What is wrong with the newest files, so that it is told once.
    problem: Option<String>,
}

impl<T: Content> Reloaded<T> {
    /// Reads the files for the first time.
    pub(crate) fn new(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        let (seen, settled) = look(&paths);
        let content = Arc::new(load()?);
        content.warn();
        let state = State { content, seen, settled, problem: None };
        Ok(Self { paths, load: Box::new(load), state: Mutex::new(state) })
    }

    /// The newest content that could be used. The same pointer as long as it is the same.
    pub(crate) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock();
        let (seen, settled) = look(&self.paths);
        if seen == state.seen && state.settled {
            return state.content.clone();
        }
        // Looked at before it is read: a change while reading shows the next time.
        state.seen = seen;
        state.settled = settled;
        match (self.load)() {
            Ok(content) => {
                let had_problem = state.problem.take().is_some();
                if content != *state.content {
                    tracing::info!(files = %self.names(), "read changed TLS files");
                    content.warn();
                    state.content = Arc::new(content);
                } else if had_problem {
                    tracing::info!(files = %self.names(), "TLS files can be used again");
                }
            }
            Err(error) => {
                let problem = chain(&error);
                if state.problem.as_ref() != Some(&problem) {
                    tracing::warn!(
                        files = %self.names(),
                        error = problem,
                        "cannot use changed TLS files; keeping what was read before"
                    );
                    state.problem = Some(problem);
                }
            }
        }
        state.content.clone()
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        names.join(",")
    }
}

fn look(paths: &[PathBuf]) -> (Vec<Option<Fingerprint>>, bool) {
    let now = SystemTime::now();
    let seen: Vec<_> = paths.iter().map(|path| Fingerprint::of(path)).collect();
    let settled = seen.iter().flatten().all(|seen| seen.is_settled(now));
    (seen, settled)
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

impl<T: fmt::Debug> fmt::Debug for Reloaded<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reloaded").field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FileKind;

    impl Content for Vec<u8> {
        fn warn(&self) {}
    }

    fn text(path: PathBuf) -> Reloaded<Vec<u8>> {
        let load = {
            let path = path.clone();
            move || crate::pem::read(&path, FileKind::Revocations)
        };
        Reloaded::new(vec![path], load).unwrap()
    }

    #[test]
    fn a_change_is_seen_at_once_and_a_loss_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let content = text(path.clone());
        let first = content.current();
        assert!(Arc::ptr_eq(&first, &content.current()));
        // In place, of the same length, and at once.
        for round in 0..100 {
            let written = format!("{round:03}");
            std::fs::write(&path, &written).unwrap();
            assert_eq!(*content.current(), written.as_bytes());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*content.current(), b"099");
        std::fs::write(&path, "new").unwrap();
        assert_eq!(*content.current(), b"new");
    }
}
