//! The operating system's files.

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, fcntl_lock, flock};

use crate::{Dir, File, Lock, Open};

/// A folder of the operating system.
#[derive(Debug)]
pub struct OsDir {
    path: PathBuf,
}

impl OsDir {
    /// The folder at `path`, made with its parents if it does not exist.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Arc<dyn Dir>> {
        let path = path.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Arc::new(Self { path }))
    }

    fn at(&self, name: &str) -> PathBuf {
        assert!(!name.is_empty() && !name.contains('/'), "{name:?} is not a name in a folder");
        self.path.join(name)
    }
}

fn sync_path(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

impl Dir for OsDir {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(0o600);
        match how {
            Open::Read => {}
            Open::Write => {
                options.write(true);
            }
            Open::Create => {
                options.write(true).create_new(true);
            }
            Open::CreateOrWrite => {
                options.write(true).create(true);
            }
        }
        Ok(Arc::new(OsFile { file: options.open(self.at(name))? }))
    }

    fn subdir(&self, name: &str) -> io::Result<Arc<dyn Dir>> {
        let path = self.at(name);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(error),
        }
        Ok(Arc::new(Self { path }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.at(name).try_exists()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn remove_dir_all(&self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(self.at(name))
    }

    fn sync(&self) -> io::Result<()> {
        sync_path(&self.path)
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        /// What one call may carry (`IOV_MAX` of Linux).
        const BUFFERS_MAX: usize = 1024;
        let mut at = offset;
        for part in buffers.chunks(BUFFERS_MAX) {
            let mut part: Vec<IoSlice<'_>> = part.to_vec();
            let mut left = &mut part[..];
            while !left.is_empty() {
                match rustix::io::pwritev(&self.file, left, at) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        at += written as u64;
                        IoSlice::advance_slices(&mut left, written);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn try_lock(&self, kind: Lock) -> io::Result<bool> {
        let taken = match kind {
            Lock::WholeFile => flock(&self.file, FlockOperation::NonBlockingLockExclusive),
            Lock::WholeFileShared => flock(&self.file, FlockOperation::NonBlockingLockShared),
            // rustix offers the process-wide kind; see `Lock::Record`.
            Lock::Record => fcntl_lock(&self.file, FlockOperation::NonBlockingLockExclusive),
        };
        match taken {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
