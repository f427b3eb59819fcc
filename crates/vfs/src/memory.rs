//! A disk in memory that can lose what was not synced.
//!
//! It keeps, for every file, what programs see and what would survive a power cut, and for every
//! folder the changes of names since its last sync. [`MemoryDir::crash`] makes the disk that a
//! machine might find after the cut; the seed chooses which one.
//!
//! What a crash may do:
//! - any subset of the 512-byte sectors written since the last sync of their file is kept, each with
//!   its newest content or one that it had before;
//! - a length that was not synced is the old one, the new one or one between;
//! - of the unsynced changes of names in a folder a prefix is kept, each folder by itself, a
//!   rename whole or not at all. A synced file whose name was not synced is gone.
//!
//! After a failed sync ([`MemoryDir::fail_sync`]) programs still see what they wrote, and later syncs
//! say that all is well, but do not write what that one did not, unless its page is written again: as
//! Linux does (Rebello et al., "Can Applications Recover from fsync Failures?").
//!
//! [`MemoryDir::flip`] changes a bit of what lies on the disk, as media do that decay.
//!
//! Not modelled: a sync does what it says (a disk that lies is [`crate::fault`]'s), and of a sector that is rewritten very often only the
//! newest contents are remembered. Folders are found by path as the operating system does, so a handle of a
//! renamed folder finds nothing. Locks belong to open files and end with them.

mod disk;
mod pages;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::random::Random;
use crate::{Dir, File, FileIdentity, Lock, Open};
use disk::{Disk, HandleId, NodeId};

/// A folder of a disk in memory; clones are the same folder.
#[derive(Clone)]
pub struct MemoryDir {
    disk: Arc<Mutex<Disk>>,
    path: Vec<String>,
}

impl MemoryDir {
    /// The root of a new, empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Disk::new())
    }

    fn of(disk: Disk) -> Self {
        Self { disk: Arc::new(Mutex::new(disk)), path: Vec::new() }
    }

    /// The same folder as the trait object that storage takes.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Dir> {
        Arc::new(self.clone())
    }

    /// The root of the disk as a power cut now might leave it; `seed` chooses what was lost. This
    /// disk goes on unchanged.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        Self::of(self.disk.lock().after_crash(&mut Random::new(seed)))
    }

    /// The root of the disk as a power cut now leaves it if everything unsynced is lost.
    #[must_use]
    pub fn crash_losing_all(&self) -> Self {
        Self::of(self.disk.lock().after_losing_all())
    }

    /// A copy of the whole disk that keeps everything and holds no locks, as after the end of a
    /// process.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::of(self.disk.lock().copy())
    }

    /// The files of the disk that have any bytes, by path from the root, and how many.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = self.disk.lock().files();
        files.into_iter().map(|(path, len)| (path.iter().collect(), len)).collect()
    }

    /// Changes bits of the byte at `offset` of a file, given by its path from the root: those that
    /// are set in `mask`. What was written and not synced is changed too.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) {
        let names: Vec<String> = path.iter().map(|name| name.to_string_lossy().into()).collect();
        let mut disk = self.disk.lock();
        let node = disk.find(&names).expect("the path was told by `files`");
        disk.file_mut(node).flip(offset, mask);
    }

    /// Does what a sync of an open file does that fails; `seed` chooses what had been written.
    ///
    /// # Panics
    ///
    /// If the file is of another disk.
    pub fn fail_sync(&self, file: FileIdentity, seed: u64) {
        let node = NodeId::try_from(file.number).expect("a file of this disk");
        self.disk.lock().file_mut(node).fail_sync(&mut Random::new(seed));
    }

    /// How many syncs, of files and of folders, the disk has done.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.disk.lock().syncs
    }

    /// How many writes and changes of length the disk has done.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.disk.lock().writes
    }

    fn at(&self, name: &str) -> Vec<String> {
        assert!(!name.is_empty() && !name.contains('/'), "{name:?} is not a name in a folder");
        let mut path = self.path.clone();
        path.push(name.to_owned());
        path
    }
}

impl Default for MemoryDir {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDir").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Dir for MemoryDir {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        let path = self.at(name);
        let (node, handle) = self.disk.lock().open(&path, how)?;
        let writable = how != Open::Read;
        Ok(Arc::new(MemoryFile { disk: Arc::clone(&self.disk), node, handle, writable }))
    }

    fn subdir(&self, name: &str) -> io::Result<Arc<dyn Dir>> {
        let path = self.at(name);
        self.disk.lock().make_folder(&path)?;
        Ok(Arc::new(Self { disk: Arc::clone(&self.disk), path }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        let path = self.at(name);
        Ok(self.disk.lock().find(&path).is_ok())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.lock().names(&self.path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.at(from), self.at(to));
        self.disk.lock().rename(&from, &to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.at(name);
        self.disk.lock().remove_file(&path)
    }

    fn remove_dir_all(&self, name: &str) -> io::Result<()> {
        let path = self.at(name);
        self.disk.lock().remove_folder(&path)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.lock().sync_folder(&self.path)
    }

    fn path(&self) -> PathBuf {
        std::iter::once("/memory").chain(self.path.iter().map(String::as_str)).collect()
    }
}

struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    node: NodeId,
    handle: HandleId,
    writable: bool,
}

impl MemoryFile {
    fn refuse_if_read_only(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.disk.lock().close(self.node, self.handle);
    }
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.disk.lock().file(self.node).read(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.refuse_if_read_only()?;
        let mut disk = self.disk.lock();
        disk.writes += 1;
        disk.file_mut(self.node).write(bytes, offset);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.syncs += 1;
        disk.file_mut(self.node).sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().file(self.node).len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.refuse_if_read_only()?;
        let mut disk = self.disk.lock();
        disk.writes += 1;
        disk.file_mut(self.node).set_len(len);
        Ok(())
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity { device: 0, number: self.node as u64 })
    }

    fn try_lock(&self, kind: Lock) -> io::Result<bool> {
        if kind == Lock::Record {
            self.refuse_if_read_only()?;
        }
        Ok(self.disk.lock().lock(self.node, self.handle, kind))
    }
}

#[cfg(test)]
mod tests;
