//! Pages in memory, within a budget of bytes.
//!
//! Shards by page id, each with its own lock and its own clock hand: a page that was used since the
//! hand passed it stays for another round. A page larger than its shard's share is not kept.
//!
//! What is kept is never stale: a page id is written again only after no reader can ask for its old
//! content, and the writer replaces the kept page then.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use parking_lot::Mutex;

use crate::num::to_len;
use crate::page::{Page, PageId};

const SHARDS: u64 = 32;

/// Kept pages; shared by all readers.
pub(crate) struct Cache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: usize,
}

#[derive(Default)]
struct Shard {
    places: HashMap<PageId, usize, BuildHasherDefault<Spread>>,
    slots: Vec<Slot>,
    vacant: Vec<usize>,
    hand: usize,
    bytes: usize,
}

struct Slot {
    id: PageId,
    used: bool,
    page: Option<Page>,
}

impl Cache {
    /// An empty cache that keeps at most `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, shard_bytes_max: bytes_max / to_len(SHARDS) }
    }

    fn shard(&self, id: PageId) -> &Mutex<Shard> {
        // Neighbours lie in different shards, so that a scan by one reader does not hold one lock.
        &self.shards[to_len(id % SHARDS)]
    }

    /// A kept page, which then counts as used.
    pub(crate) fn find(&self, id: PageId) -> Option<Page> {
        let mut shard = self.shard(id).lock();
        let place = *shard.places.get(&id)?;
        let slot = &mut shard.slots[place];
        slot.used = true;
        slot.page.clone()
    }

    /// Keeps a page in place of what was kept for this id.
    pub(crate) fn insert(&self, id: PageId, page: Page) {
        let mut shard = self.shard(id).lock();
        shard.remove(id);
        let len = page.bytes().len();
        if len > self.shard_bytes_max {
            return;
        }
        shard.make_room(self.shard_bytes_max - len);
        shard.bytes += len;
        let slot = Slot { id, used: false, page: Some(page) };
        let place = match shard.vacant.pop() {
            Some(place) => {
                shard.slots[place] = slot;
                place
            }
            None => {
                shard.slots.push(slot);
                shard.slots.len() - 1
            }
        };
        shard.places.insert(id, place);
    }

    /// Bytes kept now.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }
}

impl Shard {
    fn remove(&mut self, id: PageId) {
        if let Some(place) = self.places.remove(&id) {
            self.vacate(place);
        }
    }

    fn vacate(&mut self, place: usize) {
        let page = self.slots[place].page.take().expect("a place in use holds a page");
        self.bytes -= page.bytes().len();
        self.vacant.push(place);
    }

    /// Drops pages that were not used lately until at most `bytes_max` are kept.
    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[self.hand];
            if slot.page.is_none() {
                continue;
            }
            if std::mem::take(&mut slot.used) {
                continue;
            }
            let id = slot.id;
            self.remove(id);
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("shard_bytes_max", &self.shard_bytes_max)
            .finish_non_exhaustive()
    }
}

/// Spreads page ids: they are dense, and within a shard all equal in their lowest bits.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::page::Kind;

    fn page(len: usize) -> Page {
        Page::trusted(Bytes::from(vec![0; len]), Kind::Leaf, 0)
    }

    #[test]
    fn budget_holds_and_used_pages_stay() {
        let cache = Cache::new(32 * 10_000);
        for id in 0..1000 {
            cache.insert(id * SHARDS, page(1000));
            assert!(cache.find(0).is_some() || id > 0 && id < 1);
        }
        assert!(cache.bytes() <= 10_000, "{} bytes are kept", cache.bytes());
        assert!(cache.find(999 * SHARDS).is_some());
        assert!(cache.find(500 * SHARDS).is_none());
    }

    #[test]
    fn oversized_page_is_not_kept_and_drops_the_old_one() {
        let cache = Cache::new(32 * 10_000);
        cache.insert(7, page(100));
        cache.insert(7, page(20_000));
        assert!(cache.find(7).is_none());
        assert_eq!(cache.bytes(), 0);
    }
}
