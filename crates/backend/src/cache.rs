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
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::num::to_len;
use crate::page::{Page, PageId};

const SHARDS: u64 = 32;

/// Kept pages; shared by all readers.
pub(crate) struct Cache {
    shards: Vec<RwLock<Shard>>,
    shard_bytes_max: usize,
}

#[derive(Default)]
struct Shard {
    slots: HashMap<PageId, Slot, BuildHasherDefault<Spread>>,
    /// The ids of all slots, in the order the hand passes them.
    ring: Vec<PageId>,
    hand: usize,
    bytes: usize,
}

struct Slot {
    page: Page,
    used: AtomicBool,
}

impl Cache {
    /// An empty cache that keeps at most `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, shard_bytes_max: bytes_max / to_len(SHARDS) }
    }

    fn shard(&self, id: PageId) -> &RwLock<Shard> {
        // Neighbours lie in different shards, so that a scan by one reader does not hold one lock.
        &self.shards[to_len(id % SHARDS)]
    }

    /// A kept page, which then counts as used.
    pub(crate) fn find(&self, id: PageId) -> Option<Page> {
        self.look(id, Page::clone)
    }

    /// Looks into a kept page, which then counts as used, without taking a share of it.
    pub(crate) fn look<R>(&self, id: PageId, look: impl FnOnce(&Page) -> R) -> Option<R> {
        let shard = self.shard(id).read();
        let slot = shard.slots.get(&id)?;
        // Readers share the line as long as nobody writes it.
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        Some(look(&slot.page))
    }

    /// Keeps a page in place of what was kept for this id.
    pub(crate) fn insert(&self, id: PageId, page: Page) {
        let mut shard = self.shard(id).write();
        let len = page.bytes().len();
        if len > self.shard_bytes_max {
            shard.remove(id);
            return;
        }
        let slot = Slot { page, used: AtomicBool::new(false) };
        shard.bytes += len;
        match shard.slots.insert(id, slot) {
            // Its id is in the ring already.
            Some(before) => shard.bytes -= before.page.bytes().len(),
            None => shard.ring.push(id),
        }
        shard.make_room(self.shard_bytes_max);
    }

    /// Bytes kept now.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().bytes).sum()
    }
}

impl Shard {
    /// Drops a page. Walks over the ring: this is for the rare page that is too large to keep.
    fn remove(&mut self, id: PageId) {
        if let Some(slot) = self.slots.remove(&id) {
            self.bytes -= slot.page.bytes().len();
            self.ring.retain(|kept| *kept != id);
        }
    }

    /// Drops pages that were not used lately until at most `bytes_max` are kept.
    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            if self.hand >= self.ring.len() {
                self.hand = 0;
            }
            let id = self.ring[self.hand];
            let slot = self.slots.get_mut(&id).expect("the ring holds the ids of slots");
            if std::mem::take(slot.used.get_mut()) {
                self.hand += 1;
                continue;
            }
            let slot = self.slots.remove(&id).expect("it was just found");
            self.bytes -= slot.page.bytes().len();
            // The last one takes its place: it came later, but no order is promised.
            self.ring.swap_remove(self.hand);
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
            assert!(cache.find(0).is_some(), "page 0 is gone after {id}");
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
