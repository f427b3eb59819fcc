//! Room on the log's disk that is kept for the time when there is no other.
//!
//! A full disk must not keep anybody from deleting, and the alarm that says so is an entry of the
//! log itself. So a file of zeros lies beside the segments; when an append finds no room the file
//! is given up, the append is repeated, and what is left is taken again at once, before the
//! database or a stranger takes it. etcd of any version ignores the file, as its name ends in
//! `.tmp`.
//!
//! A file that is not whole also tells the next process that this one was short of room.
//!
//! Not here: what a member does about a full disk (`node`).

use std::io;
use std::sync::Arc;

use vfs::{Dir, File, Open};

/// The file beside the segments.
const NAME: &str = "reserve.tmp";

/// Room for some ten thousand deletions, or for the largest batch of puts under way.
const LEN_MAX: u64 = 8 << 20;

/// Written at once: far below a millisecond.
const SLICE: usize = 256 << 10;

/// Slices that are added in passing while the server serves.
const SLICES_IN_PASSING: u64 = 4;

/// Room that must be there beside the reserve before puts are taken again, or the next one would
/// find the disk full.
const MARGIN: u64 = 4 << 20;

/// Whether there was only no room, as opposed to a broken device.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file of zeros.
#[derive(Debug)]
pub struct Reserve {
    dir: Arc<dyn Dir>,
    file: Option<Arc<dyn File>>,
    len: u64,
    /// The most it has been since the start: what a small disk can give.
    most: u64,
}

impl Reserve {
    /// What an earlier process left, or nothing yet. `dir` is the log's folder.
    pub fn open(dir: Arc<dyn Dir>) -> Self {
        let file = dir.open(NAME, Open::Write).ok();
        // A file that cannot be asked counts as empty and is written anew.
        let len = file.as_ref().and_then(|file| file.len().ok()).unwrap_or(0).min(LEN_MAX);
        Self { dir, file, len, most: len }
    }

    /// Takes a little more of what is still missing. A disk that is too small for all of it is no
    /// trouble until it is full.
    pub fn grow_in_passing(&mut self) {
        self.grow_to(LEN_MAX.min(self.len + SLICES_IN_PASSING * SLICE as u64));
        self.most = self.most.max(self.len);
    }

    /// Takes back what was given up, as far as there is room.
    pub fn take_back(&mut self) {
        self.grow_to(self.whole());
    }

    /// Takes back what was given up; whether that is all of it and there is some room beside it.
    pub fn regain(&mut self) -> bool {
        let whole = self.whole();
        let has_margin = self.grow_to(whole + MARGIN);
        self.cut(whole);
        has_margin
    }

    /// What counts as whole: what this disk has let it be, at least a slice.
    fn whole(&self) -> u64 {
        self.most.max(SLICE as u64)
    }

    fn grow_to(&mut self, len: u64) -> bool {
        while self.len < len {
            if self.grow().is_err() {
                return false;
            }
        }
        true
    }

    /// Takes one slice more.
    fn grow(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.dir.open(NAME, Open::CreateOrWrite)?),
        };
        if let Err(error) = file.write_at(&[0; SLICE], self.len) {
            // What was written of the slice is of no use; if cutting fails it is written again.
            let _cut = file.set_len(self.len);
            return Err(error);
        }
        self.len += SLICE as u64;
        Ok(())
    }

    /// Gives everything up; whether there was anything.
    pub fn release(&mut self) -> bool {
        self.cut(0)
    }

    /// Gives a slice up if it is whole, as a sign for the next process.
    pub fn leave_sign(&mut self) {
        if 0 < self.len && self.most <= self.len {
            self.cut(self.len - SLICE as u64);
        }
    }

    fn cut(&mut self, len: u64) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| len < self.len) else { return false };
        let done = file.set_len(len).is_ok();
        if done {
            self.len = len;
        }
        done
    }

    /// Whether an earlier process was short of room when it ended, or ended before it had made all
    /// of the reserve.
    pub fn has_sign(&self) -> bool {
        self.file.is_some() && self.len < LEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use vfs::OsDir;

    use super::*;

    /// G14.
    #[test]
    fn a_reserve_is_given_up_and_regained() {
        let folder = tempfile::tempdir().unwrap();
        let len_or_none = || folder.path().join(NAME).metadata().ok().map(|found| found.len());
        let mut reserve = Reserve::open(OsDir::open(folder.path()).unwrap());
        assert!(!reserve.release() && !reserve.has_sign());
        for _ in 0..8 {
            assert!(len_or_none().is_none_or(|len| len < LEN_MAX));
            reserve.grow_in_passing();
        }
        assert_eq!(len_or_none(), Some(LEN_MAX));
        assert!(!reserve.has_sign());

        reserve.leave_sign();
        let mut again = Reserve::open(OsDir::open(folder.path()).unwrap());
        assert!(again.has_sign() && again.release());
        assert_eq!(len_or_none(), Some(0));
        assert!(again.regain() && again.has_sign());
        again.grow_in_passing();
        assert!(!again.has_sign());
    }

    /// A reserve that the disk never let grow counts as whole at that size.
    #[test]
    fn a_small_reserve_is_regained_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(OsDir::open(folder.path()).unwrap());
        reserve.grow_in_passing();
        let most = reserve.len;
        assert!(reserve.release() && reserve.regain());
        assert_eq!(reserve.len, most);
    }
}
