//! The operating system's files.

use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use crate::{Dir, File, FileIdentity, Lock, Open};

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

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
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

    fn identity(&self) -> io::Result<FileIdentity> {
        let metadata = self.file.metadata()?;
        Ok(FileIdentity { device: metadata.dev(), number: metadata.ino() })
    }

    fn try_lock(&self, kind: Lock) -> io::Result<bool> {
        let taken = match kind {
            Lock::WholeFile => flock(&self.file, FlockOperation::NonBlockingLockExclusive),
            Lock::WholeFileShared => flock(&self.file, FlockOperation::NonBlockingLockShared),
            Lock::Record => lock_record(&self.file),
        };
        match taken {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes a write lock over the whole file that belongs to the open file, not to the process: two
/// opens in one process exclude each other too, and closing another handle keeps the lock. rustix
/// offers only the process-wide kind.
fn lock_record(file: &fs::File) -> Result<(), rustix::io::Errno> {
    const WRITE_LOCK: libc::c_short = 1;
    const FROM_START: libc::c_short = 0;
    const _: () = assert!(libc::F_WRLCK == 1 && libc::SEEK_SET == 0);
    // SAFETY: `flock` is a plain C struct of integers, for which all zeros is a valid value.
    #[allow(unsafe_code, reason = "the struct has private padding on some targets")]
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = WRITE_LOCK;
    request.l_whence = FROM_START;
    // SAFETY: the descriptor is open for the whole call, since `file` is borrowed, and `request`
    // is a valid `flock` that the call only reads. The kernel wants `l_pid` to be 0, which it is.
    #[allow(unsafe_code, reason = "no safe wrapper for F_OFD_SETLK among our dependencies")]
    let result =
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, std::ptr::from_ref(&request)) };
    if result == 0 {
        return Ok(());
    }
    Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error())
        .unwrap_or(rustix::io::Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_tells_its_room() {
        let folder = tempfile::tempdir().unwrap();
        let free = OsDir::open(folder.path()).unwrap().free_bytes().unwrap();
        assert!(0 < free && free < u64::MAX, "{free}");
    }

    /// etcd: client/pkg/fileutil/lock_linux.go.
    #[test]
    fn record_lock_belongs_to_the_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let dir = OsDir::open(folder.path()).unwrap();
        let first = dir.open("a", Open::Create).unwrap();
        let second = dir.open("a", Open::Write).unwrap();
        assert!(first.try_lock(Lock::Record).unwrap());
        assert!(!second.try_lock(Lock::Record).unwrap());
        drop(second);
        let third = dir.open("a", Open::Write).unwrap();
        assert!(!third.try_lock(Lock::Record).unwrap(), "closing another handle keeps the lock");
        drop(first);
        assert!(third.try_lock(Lock::Record).unwrap());
    }
}
