//! Content of one file: what programs see, what would survive, and which sectors differ.
//!
//! Invariant: outside the dirty and the lost sectors both images are equal (or behind the end of one
//! of them), and no page has both.
//! Pages that were never written are not kept; they are zeros.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::random::Random;

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;
/// Granularity of sharing between the two images.
const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;

/// One image of a file. Behind `len` every page is zero or absent.
#[derive(Clone, Debug, Default)]
struct Pages {
    pages: BTreeMap<u64, Arc<[u8; PAGE_LEN]>>,
    len: u64,
}

/// One page's share of a range: its number, where in the page it starts, how many bytes.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = offset;
    let end = offset + len as u64;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let within = at % PAGE;
            let count = (PAGE - within).min(end - at);
            let part = (at / PAGE, to_len(within), to_len(count));
            at += count;
            part
        })
    })
}

fn to_len(count: u64) -> usize {
    usize::try_from(count).expect("at most one page")
}

impl Pages {
    fn read(&self, buffer: &mut [u8], offset: u64) {
        let mut done = 0;
        for (page, within, count) in parts(offset, buffer.len()) {
            let target = &mut buffer[done..done + count];
            match self.pages.get(&page) {
                Some(bytes) => target.copy_from_slice(&bytes[within..within + count]),
                None => target.fill(0),
            }
            done += count;
        }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        for (page, within, count) in parts(offset, bytes.len()) {
            let source = &bytes[done..done + count];
            done += count;
            if !self.pages.contains_key(&page) && source.iter().all(|byte| *byte == 0) {
                continue;
            }
            let target = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_LEN]));
            Arc::make_mut(target)[within..within + count].copy_from_slice(source);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            drop(self.pages.split_off(&len.div_ceil(PAGE)));
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                Arc::make_mut(page)[to_len(len % PAGE)..].fill(0);
            }
        }
        self.len = len;
    }

    /// Replaces one sector, without touching the length.
    fn put_sector(&mut self, sector: u64, bytes: &[u8; 512]) {
        let len = self.len;
        self.write(bytes, sector * SECTOR);
        self.len = len;
    }
}

/// A file of the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    live: Pages,
    durable: Pages,
    dirty: BTreeSet<u64>,
    /// What dirty sectors held before their newest write, oldest first: the kernel may have written
    /// that back, and then not the newest.
    between: BTreeMap<u64, Vec<[u8; 512]>>,
    /// Sectors that a failed sync did not write, and that no other will.
    lost: BTreeSet<u64>,
}

/// How many contents of one sector between the synced one and the newest are remembered.
const BETWEEN_MAX: usize = 3;

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.live.len
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let left = usize::try_from(self.live.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        self.live.read(&mut buffer[..count], offset);
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        self.soil(offset, offset + bytes.len() as u64);
        self.live.write(bytes, offset);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.live.len {
            self.soil(len, self.live.len);
        }
        self.live.set_len(len);
    }

    /// Called before these bytes change.
    fn soil(&mut self, from: u64, to: u64) {
        // Kernels write back whole pages.
        let (first, end) = (from / PAGE * PAGE / SECTOR, to.div_ceil(PAGE) * PAGE / SECTOR);
        let again: Vec<u64> = self.lost.range(first..end).copied().collect();
        for sector in again {
            self.lost.remove(&sector);
            self.dirty.insert(sector);
        }
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            if self.dirty.insert(sector) {
                continue;
            }
            let mut bytes = [0; 512];
            self.live.read(&mut bytes, sector * SECTOR);
            let between = self.between.entry(sector).or_default();
            if between.len() == BETWEEN_MAX {
                between.remove(0);
            }
            between.push(bytes);
        }
    }

    pub(super) fn sync(&mut self) {
        for page in self.dirty.iter().map(|sector| sector * SECTOR / PAGE) {
            match self.live.pages.get(&page) {
                Some(bytes) => drop(self.durable.pages.insert(page, Arc::clone(bytes))),
                None => drop(self.durable.pages.remove(&page)),
            }
        }
        self.dirty.clear();
        self.between.clear();
        self.durable.len = self.live.len;
    }

    /// A sync failed: programs see what they saw, but what was not written is taken for written. What
    /// had reached the disk is `random`'s choice. Zeros are what changes of length left, which file
    /// systems have in their journals.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.durable.set_len(self.live.len);
        for sector in std::mem::take(&mut self.dirty) {
            let mut newest = [0; 512];
            self.live.read(&mut newest, sector * SECTOR);
            if newest == [0; 512] || random.coin() {
                self.durable.put_sector(sector, &newest);
            } else {
                self.lost.insert(sector);
            }
        }
        self.between.clear();
    }

    /// Changes bits of one byte in both images, each if it is that long.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        for image in [&mut self.live, &mut self.durable] {
            if offset < image.len {
                let mut byte = [0];
                image.read(&mut byte, offset);
                image.write(&[byte[0] ^ mask], offset);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The content that survived, as a file with nothing unsynced.
    pub(super) fn after_crash(&self, random: &mut Random) -> Self {
        let mut survived = self.durable.clone();
        let keep = Keep::choose(random, self.dirty.len());
        let mut last = (u64::MAX, false);
        for (nth, sector) in self.dirty.iter().enumerate() {
            let unit = sector * SECTOR / keep.unit;
            if unit != last.0 {
                last = (unit, keep.keeps(nth, random));
            }
            if last.1 {
                survived.put_sector(*sector, &self.kept(*sector, keep.newest, random));
            }
        }
        let len = match random.below(3) {
            0 => self.durable.len,
            1 => self.live.len,
            _ if self.live.len > self.durable.len => {
                let grown = self.live.len - self.durable.len;
                self.durable.len + random.below(grown + 1) / SECTOR * SECTOR
            }
            _ => self.live.len,
        };
        // What survived behind the chosen end was never part of the file.
        survived.len = u64::MAX;
        survived.set_len(len);
        Self { durable: survived.clone(), live: survived, ..Self::default() }
    }

    /// What was written back of a sector: its newest content or one before.
    fn kept(&self, sector: u64, newest: bool, random: &mut Random) -> [u8; 512] {
        let mut bytes = [0; 512];
        self.live.read(&mut bytes, sector * SECTOR);
        match self.between.get(&sector) {
            Some(between) if !newest => {
                let nth = random.below(between.len() as u64 + 1);
                let older = usize::try_from(nth).ok().and_then(|nth| between.get(nth));
                *older.unwrap_or(&bytes)
            }
            Some(_) | None => bytes,
        }
    }

    pub(super) fn after_losing_all(&self) -> Self {
        Self { live: self.durable.clone(), durable: self.durable.clone(), ..Self::default() }
    }
}

/// Which unsynced sectors of a file a crash keeps.
struct Keep {
    /// Sectors of one unit share their fate: disks write 512 or 4,096 bytes whole.
    unit: u64,
    choice: Choice,
    /// Whether every kept sector has its newest content.
    newest: bool,
}

enum Choice {
    All,
    None,
    Each,
    First(usize),
    AllBut(usize),
}

impl Keep {
    fn choose(random: &mut Random, dirty: usize) -> Self {
        let unit = if random.coin() { SECTOR } else { PAGE };
        let mut some = || usize::try_from(random.below(dirty as u64 + 1)).unwrap_or(dirty);
        let position = some();
        let choice = match random.below(6) {
            0 => Choice::All,
            1 => Choice::None,
            2 => Choice::First(position),
            3 => Choice::AllBut(position),
            _ => Choice::Each,
        };
        Self { unit, choice, newest: random.coin() }
    }

    fn keeps(&self, nth: usize, random: &mut Random) -> bool {
        match self.choice {
            Choice::All => true,
            Choice::None => false,
            Choice::Each => random.coin(),
            Choice::First(count) => nth < count,
            Choice::AllBut(lost) => nth != lost,
        }
    }
}
