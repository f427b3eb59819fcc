//! The one door to files.
//!
//! Everything that is stored goes through [`Dir`] and [`File`]: in production [`OsDir`], in crash
//! tests and in the simulator a memory image that can lose what was not synced. Nothing above this
//! crate opens a path by itself, so that every byte that may be lost is lost in a test first.
//!
//! Rules that hold for every implementation:
//! - bytes are durable once `sync_data` on their file returned `Ok`;
//! - a created, renamed or removed name is durable once `Dir::sync` returned `Ok`;
//! - a failed sync says nothing about what is durable, and is never repeated.

pub mod fault;
pub mod memory;
mod os;
mod random;
mod replace;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

pub use os::OsDir;
pub use random::Random;
pub use replace::replace;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Existing, for reading.
    Read,
    /// Existing, for reading and writing.
    Write,
    /// For reading and writing; must not exist.
    Create,
    /// For reading and writing; made if it does not exist.
    CreateOrWrite,
}

/// A folder, made with mode 0700.
pub trait Dir: Debug + Send + Sync {
    /// Opens a file of this folder; new files get mode 0600.
    ///
    /// # Errors
    ///
    /// The operating system's, `NotFound` and `AlreadyExists` among them.
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>>;

    /// The folder below this one, made if it does not exist.
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn subdir(&self, name: &str) -> io::Result<Arc<dyn Dir>>;

    /// Whether the folder holds a file or folder of this name.
    ///
    /// # Errors
    ///
    /// The operating system's, other than `NotFound`.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// The names in the folder, sorted.
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Renames a file or folder over whatever had the new name. Durable after [`Dir::sync`].
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after [`Dir::sync`].
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Removes a folder and all that is in it. Durable after [`Dir::sync`].
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn remove_dir_all(&self, name: &str) -> io::Result<()>;

    /// Makes the names of this folder durable.
    ///
    /// # Errors
    ///
    /// The operating system's; never repeat it.
    fn sync(&self) -> io::Result<()>;

    /// Bytes that may still be written to the folder's disk; without a limit in a memory image.
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// Where the folder is, for messages.
    fn path(&self) -> PathBuf;
}

/// Names a file while it is open, see [`File::identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The file system.
    pub device: u64,
    /// The file's number on it.
    pub number: u64,
}

/// An open file. Positions are bytes from its start.
pub trait File: Debug + Send + Sync {
    /// Reads up to `buffer.len()` bytes; 0 at the end of the file.
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all the bytes.
    ///
    /// # Errors
    ///
    /// The operating system's, `StorageFull` among them; part of the bytes may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all the buffers one behind the other.
    ///
    /// # Errors
    ///
    /// As [`File::write_at`].
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for buffer in buffers {
            self.write_at(buffer, at)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    /// Makes content and length durable.
    ///
    /// # Errors
    ///
    /// The operating system's. The file must not be used for writing again: what the kernel
    /// dropped will not come back.
    fn sync_data(&self) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Takes the exclusive lock that Go etcd takes on the same file; it is held until the file is
    /// dropped. `false` if another process holds it.
    ///
    /// # Errors
    ///
    /// The operating system's, other than "would block".
    fn try_lock(&self, kind: Lock) -> io::Result<bool>;

    /// Which file this is, whatever its name is by now: two open files are the same one exactly if
    /// this is the same. Numbers come back once the last of a file's handles is closed.
    ///
    /// # Errors
    ///
    /// The operating system's.
    fn identity(&self) -> io::Result<FileIdentity>;

    /// Reads exactly `buffer.len()` bytes.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file ends before, or the operating system's.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The two kinds of lock that etcd's files are guarded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// `flock`, exclusive: the database file.
    WholeFile,
    /// `flock`, shared: a reader of a database file that no server has open.
    WholeFileShared,
    /// Open-file-description record lock over the whole file: log segments.
    Record,
}
