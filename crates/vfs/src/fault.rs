//! Files that fail on purpose: a wrapper over any folder that follows a plan.
//!
//! A [`FaultPlan`] counts the operations of each [`Kind`] over all files and folders below one
//! [`FaultDir`], from 1, and fails those it was told to. A test runs once to learn the counts, then
//! once for each ordinal. From the same plan and the same calls the same faults follow.
//!
//! A disk may also lie: [`FaultPlan::lie`] has one write go nowhere, or to another place of its file,
//! and says that all went well.
//!
//! Stopped means that the machine is off: from then on every operation fails and nothing is done.
//! Together with [`crate::memory::MemoryDir::crash`] that is a power cut at a chosen point.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::memory::MemoryDir;
use crate::random::Random;
use crate::{Dir, File, FileIdentity, Lock, Open};

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// What is counted and can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Reading bytes of a file.
    Read,
    /// Writing bytes or changing the length of a file.
    Write,
    /// Syncing a file or a folder.
    Sync,
    /// Making, renaming or removing a name.
    Name,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The disk is full (`ENOSPC`).
    NoSpace,
    /// The device failed (`EIO`).
    InputOutput,
    /// Another error.
    Other(io::ErrorKind),
}

impl Failure {
    fn error(self) -> io::Error {
        match self {
            Self::NoSpace => io::Error::from_raw_os_error(libc::ENOSPC),
            Self::InputOutput => io::Error::from_raw_os_error(libc::EIO),
            Self::Other(kind) => kind.into(),
        }
    }
}

/// What a disk does with a write that it says it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing: what was there before stays.
    Lost,
    /// It goes to another sector of the file, chosen by this number.
    Misdirected(u64),
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    Once(Failure),
    From(Failure),
    Stop,
}

/// What goes wrong when; shared by every file and folder of one [`FaultDir`].
#[derive(Debug, Default)]
pub struct FaultPlan {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<Kind, u64>,
    rules: BTreeMap<(Kind, u64), Effect>,
    stopped: bool,
    /// Lies to come: about files with such an ending of their names, after how many writes.
    lies: Vec<(&'static str, u64, Lie)>,
    spares_log: bool,
    /// A failing write leaves a part of its bytes, a read may be short.
    partial: Option<Random>,
    /// The disk on which syncs of files fail as on Linux.
    forgetful: Option<(MemoryDir, Random)>,
}

/// What a wrapper does with one operation.
enum Verdict {
    Do,
    /// Only this many bytes, then fail if there is an error.
    Part(usize, Option<io::Error>),
}

impl FaultPlan {
    /// A plan in which nothing fails.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// How many operations of this kind were tried.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.state.lock().counts.get(&kind).copied().unwrap_or(0)
    }

    /// Fails the `nth` operation of this kind, counted from 1 since the plan was made.
    pub fn fail_at(&self, kind: Kind, nth: u64, failure: Failure) {
        self.state.lock().rules.insert((kind, nth), Effect::Once(failure));
    }

    /// Fails the `nth` operation of this kind and every later one, until [`FaultPlan::clear`].
    pub fn fail_from(&self, kind: Kind, nth: u64, failure: Failure) {
        self.state.lock().rules.insert((kind, nth), Effect::From(failure));
    }

    /// Stops the machine at the `nth` operation of this kind, which is not done.
    pub fn stop_at(&self, kind: Kind, nth: u64) {
        self.state.lock().rules.insert((kind, nth), Effect::Stop);
    }

    /// Stops the machine now.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
    }

    /// Lies about the `nth` write from now on, counted from 1, to files whose name ends like this.
    pub fn lie(&self, name_end: &'static str, nth: u64, lie: Lie) {
        self.state.lock().lies.push((name_end, nth, lie));
    }

    /// As [`FaultPlan::lie`], but never about a log: files whose name ends in `.wal` or `.tmp`.
    pub fn lie_outside_log(&self, name_end: &'static str, nth: u64, lie: Lie) {
        let mut state = self.state.lock();
        state.lies.push((name_end, nth, lie));
        state.spares_log = true;
    }

    /// The lie about a write to this file, if one is due.
    fn lie_about(&self, name: &str) -> Option<Lie> {
        let mut state = self.state.lock();
        if state.spares_log && (name.ends_with(".wal") || name.ends_with(".tmp")) {
            return None;
        }
        let mut due = None;
        state.lies.retain_mut(|(name_end, left, lie)| {
            if name.ends_with(*name_end) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    due = Some(*lie);
                }
            }
            0 < *left
        });
        due
    }

    /// From now on a write that fails leaves the first part of its bytes behind, up to a sector's
    /// end in the file, since kernels copy whole pages; and a read may return fewer bytes than
    /// were asked for. `seed` chooses how many.
    pub fn tear(&self, seed: u64) {
        self.state.lock().partial = Some(Random::new(seed));
    }

    /// From now on a sync of a file that fails has [`MemoryDir::fail_sync`] done to it, on the disk
    /// below the wrapper; `seed` chooses what had been written.
    pub fn forget_at_failed_syncs(&self, disk: &MemoryDir, seed: u64) {
        self.state.lock().forgetful = Some((disk.clone(), Random::new(seed)));
    }

    fn on_failed_sync(&self, file: FileIdentity) {
        let mut state = self.state.lock();
        if !state.stopped
            && let Some((disk, random)) = &mut state.forgetful
        {
            disk.fail_sync(file, random.next());
        }
    }

    /// Forgets every rule and starts a stopped machine; counting goes on.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.rules.clear();
        state.lies.clear();
        state.stopped = false;
        state.partial = None;
    }

    /// Whether the machine was stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    fn judge(&self, kind: Kind, len: usize) -> Verdict {
        let mut state = self.state.lock();
        if state.stopped {
            return Verdict::Part(0, Some(stopped()));
        }
        let count = state.counts.entry(kind).or_insert(0);
        *count += 1;
        let nth = *count;
        let rule =
            state.rules.range((kind, 0)..=(kind, nth)).rev().find_map(|((_, at), effect)| {
                match effect {
                    Effect::Once(_) | Effect::Stop if *at != nth => None,
                    Effect::Once(_) | Effect::From(_) | Effect::Stop => Some(*effect),
                }
            });
        let part = state
            .partial
            .as_mut()
            .map(|random| usize::try_from(random.below(len as u64 + 1)).unwrap_or(len));
        match rule {
            None => match part {
                // A read of nothing would be the end of the file.
                Some(part) if kind == Kind::Read && part > 0 => Verdict::Part(part, None),
                _ => Verdict::Do,
            },
            Some(Effect::Once(failure) | Effect::From(failure)) => {
                Verdict::Part(part.unwrap_or(0), Some(failure.error()))
            }
            Some(Effect::Stop) => {
                state.stopped = true;
                Verdict::Part(part.unwrap_or(0), Some(stopped()))
            }
        }
    }

    /// For operations that are done whole or not at all.
    fn admit(&self, kind: Kind) -> io::Result<()> {
        match self.judge(kind, 0) {
            Verdict::Do | Verdict::Part(_, None) => Ok(()),
            Verdict::Part(_, Some(error)) => Err(error),
        }
    }

    fn refuse_if_stopped(&self) -> io::Result<()> {
        if self.is_stopped() { Err(stopped()) } else { Ok(()) }
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the machine is stopped")
}

/// A folder whose operations follow a plan.
#[derive(Debug)]
pub struct FaultDir {
    inner: Arc<dyn Dir>,
    plan: Arc<FaultPlan>,
}

impl FaultDir {
    /// Wraps a folder and everything that is opened through it.
    #[must_use]
    pub fn wrap(inner: Arc<dyn Dir>, plan: &Arc<FaultPlan>) -> Arc<dyn Dir> {
        Arc::new(Self { inner, plan: Arc::clone(plan) })
    }
}

impl Dir for FaultDir {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        match how {
            Open::Read | Open::Write => self.plan.refuse_if_stopped()?,
            Open::Create | Open::CreateOrWrite => self.plan.admit(Kind::Name)?,
        }
        let inner = self.inner.open(name, how)?;
        Ok(Arc::new(FaultFile { inner, plan: Arc::clone(&self.plan), name: name.to_owned() }))
    }

    fn subdir(&self, name: &str) -> io::Result<Arc<dyn Dir>> {
        self.plan.admit(Kind::Name)?;
        Ok(Self::wrap(self.inner.subdir(name)?, &self.plan))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.plan.refuse_if_stopped()?;
        self.inner.exists(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.plan.refuse_if_stopped()?;
        self.inner.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.plan.admit(Kind::Name)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.plan.admit(Kind::Name)?;
        self.inner.remove(name)
    }

    fn remove_dir_all(&self, name: &str) -> io::Result<()> {
        self.plan.admit(Kind::Name)?;
        self.inner.remove_dir_all(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.plan.admit(Kind::Sync)?;
        self.inner.sync()
    }

    fn path(&self) -> PathBuf {
        self.inner.path()
    }
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn File>,
    plan: Arc<FaultPlan>,
    name: String,
}

impl FaultFile {
    /// Writes, or says so.
    fn write_or_lie(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.plan.lie_about(&self.name) {
            None => self.inner.write_at(bytes, offset),
            Some(Lie::Lost) => {
                // The length is kept by the file system, which does not lie.
                let end = offset + bytes.len() as u64;
                if self.inner.len()? < end { self.inner.set_len(end) } else { Ok(()) }
            }
            Some(Lie::Misdirected(seed)) => {
                let sectors = (self.inner.len()? / SECTOR).max(1);
                self.inner.write_at(bytes, seed % sectors * SECTOR + offset % SECTOR)
            }
        }
    }
}

impl File for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.plan.judge(Kind::Read, buffer.len()) {
            Verdict::Do => self.inner.read_at(buffer, offset),
            Verdict::Part(part, None) => self.inner.read_at(&mut buffer[..part], offset),
            Verdict::Part(_, Some(error)) => Err(error),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.plan.judge(Kind::Write, bytes.len()) {
            Verdict::Do | Verdict::Part(_, None) => self.write_or_lie(bytes, offset),
            Verdict::Part(part, Some(error)) => {
                let end = (offset + part as u64) / SECTOR * SECTOR;
                let part = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
                if part > 0 {
                    self.inner.write_at(&bytes[..part], offset)?;
                }
                Err(error)
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Err(error) = self.plan.admit(Kind::Sync) {
            self.plan.on_failed_sync(self.inner.identity()?);
            return Err(error);
        }
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.plan.refuse_if_stopped()?;
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plan.admit(Kind::Write)?;
        self.inner.set_len(len)
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.plan.refuse_if_stopped()?;
        self.inner.identity()
    }

    fn try_lock(&self, kind: Lock) -> io::Result<bool> {
        self.plan.refuse_if_stopped()?;
        self.inner.try_lock(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D11.
    #[test]
    fn chosen_write_fails_once_and_the_next_succeeds() {
        let plan = FaultPlan::new();
        let dir = FaultDir::wrap(MemoryDir::new().shared(), &plan);
        plan.fail_at(Kind::Write, 2, Failure::NoSpace);
        let file = dir.open("a", Open::Create).unwrap();
        file.write_at(b"one", 0).unwrap();
        let error = file.write_at(b"two", 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 3);
        file.write_at(b"two", 3).unwrap();
        assert_eq!(plan.count(Kind::Write), 3);
    }

    /// D8.
    #[test]
    fn stopped_machine_does_nothing_more() {
        let plan = FaultPlan::new();
        let disk = MemoryDir::new();
        let dir = FaultDir::wrap(disk.shared(), &plan);
        plan.stop_at(Kind::Sync, 1);
        let file = dir.open("a", Open::Create).unwrap();
        file.sync_data().unwrap_err();
        assert!(plan.is_stopped());
        file.write_at(b"x", 0).unwrap_err();
        dir.rename("a", "b").unwrap_err();
        assert_eq!((disk.syncs(), disk.writes()), (0, 0));
        plan.clear();
        file.write_at(b"x", 0).unwrap();
    }

    /// D16, D31.
    #[test]
    fn disk_that_lies_loses_or_misdirects_one_write() {
        let plan = FaultPlan::new();
        let dir = FaultDir::wrap(MemoryDir::new().shared(), &plan);
        let file = dir.open("a.db", Open::Create).unwrap();
        file.write_at(&[1; 2048], 0).unwrap();
        plan.lie("db", 2, Lie::Lost);
        plan.lie("db", 3, Lie::Misdirected(2));
        plan.lie(".wal", 1, Lie::Lost);
        for value in [2, 3, 4, 5] {
            file.write_at(&[value; 512], 512 * u64::from(value - 2)).unwrap();
        }
        let mut found = [0; 2048];
        file.read_exact_at(&mut found, 0).unwrap();
        let sectors: Vec<u8> = found.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!(sectors, [2, 1, 4, 5]);
    }

    #[test]
    fn failures_go_on_until_the_plan_is_cleared() {
        let plan = FaultPlan::new();
        let dir = FaultDir::wrap(MemoryDir::new().shared(), &plan);
        let file = dir.open("a", Open::Create).unwrap();
        plan.fail_from(Kind::Write, 1, Failure::InputOutput);
        for _ in 0..3 {
            assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(libc::EIO));
        }
        plan.clear();
        file.write_at(b"x", 0).unwrap();
    }

    #[test]
    fn torn_plan_gives_short_reads_and_partial_writes() {
        let plan = FaultPlan::new();
        let dir = FaultDir::wrap(MemoryDir::new().shared(), &plan);
        let file = dir.open("a", Open::Create).unwrap();
        plan.tear(1);
        plan.fail_at(Kind::Write, 1, Failure::NoSpace);
        file.write_at(&[1; 10_000], 100).unwrap_err();
        let left = file.len().unwrap();
        assert!(0 < left && left < 10_000 && left.is_multiple_of(SECTOR), "{left}");
        file.write_at(&[1; 10_000], 0).unwrap();
        let mut buffer = [0; 10_000];
        file.read_exact_at(&mut buffer, 0).unwrap();
        assert_eq!(buffer, [1; 10_000]);
    }
}
