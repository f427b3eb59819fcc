//! The database as its users see it: deltas over pages.
//!
//! A reader asks the active delta, the frozen one, then the pages of the root, all three taken
//! together under one short lock, so that a row is never missed while it moves from one to the
//! next. A commit holds that lock only to freeze the active delta and to publish the new root.
//!
//! Lock order: the writer's, then the state's.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::LogPosition;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use vfs::Dir;

use crate::copy::Copy;
use crate::delta::Delta;
use crate::meta::Meta;
use crate::num::to_count;
use crate::page::Page;
use crate::pages::Pages;
use crate::rows::{Change, RowKey};
use crate::sums::Checksums;
use crate::tree::{Cursor, Root, find_leaf};
use crate::walk::inspect;
use crate::writer::{Touch, Writer};
use crate::{Batch, Bucket, CheckError, CommitError, OpenError, ReadError, open};

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the page cache may hold.
    pub cache_bytes_max: usize,
    /// Page size of a new file; an existing file keeps its own.
    pub page_bytes: usize,
    /// How long to wait for another process to release the file; `None` for ever.
    pub lock_timeout: Option<Duration>,
    /// Whether commits sync; `false` only for `--unsafe-no-fsync`.
    pub sync: bool,
    /// Where the file of checksums is kept; `None` for no checksums. Without them a changed byte
    /// may go unnoticed, as with etcd.
    pub aux: Option<Arc<dyn Dir>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes_max: 32 << 20,
            page_bytes: 4096,
            lock_timeout: Some(Duration::from_secs(10)),
            sync: true,
            aux: None,
        }
    }
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commit {
    /// How far the log is applied in the durable file; the log may be released up to the last mark
    /// at or below it.
    pub durable: LogPosition,
    /// Keys changed.
    pub changes: usize,
    /// Pages written.
    pub pages: usize,
    /// How long its steps took.
    pub took: Took,
}

/// The steps of a commit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// From changes to pages; small ones are merged with their neighbours on the way.
    pub building: Duration,
    /// Writing and syncing them, and the meta page.
    pub writing: Duration,
}

/// Sizes in bytes, as status and metrics report them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Allocated: high-water mark times page size; the base of the quota.
    pub total: u64,
    /// Allocated and not free.
    pub in_use: u64,
}

/// The database: one writer, any number of readers; clones share it.
#[derive(Clone, Debug)]
pub struct Backend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    home: Home,
    /// Which there were when the file was opened.
    checksums: Checksums,
    state: RwLock<State>,
    writer: Mutex<Writer>,
}

/// Where the file is and how it was opened.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) name: String,
    pub(crate) options: Options,
}

#[derive(Debug)]
struct State {
    /// The file; another one once the database was replaced.
    pages: Arc<Pages>,
    active: Delta,
    /// What a commit is writing now.
    frozen: Option<Arc<Delta>>,
    root: Arc<Root>,
    applied: LogPosition,
    durable: LogPosition,
    sizes: Sizes,
}

impl State {
    fn new(opened: open::Opened) -> (Self, Writer) {
        let open::Opened { pages, writer, root, applied, checksums: _ } = opened;
        let sizes = sizes(&pages, &writer, &root);
        let state = Self {
            pages: Arc::new(pages),
            active: Delta::default(),
            frozen: None,
            root,
            applied,
            durable: applied,
            sizes,
        };
        (state, writer)
    }

    /// The committed state, which stays readable while both are held.
    fn pin(&self) -> (Arc<Pages>, Arc<Root>) {
        (Arc::clone(&self.pages), Arc::clone(&self.root))
    }

    /// What the deltas say of a key.
    fn changed(&self, bucket: Bucket, key: &[u8]) -> Option<&Change> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(bucket, key));
        self.active.get(bucket, key).or_else(frozen)
    }

    /// Changes from `from` on, below `to`, at most `count_max`; the frozen ones are hidden by the
    /// active ones. `true` if there may be more.
    fn changes(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: Option<&[u8]>,
        count_max: usize,
    ) -> (Vec<(RowKey, Change)>, bool) {
        let below = |(key, _): &(&RowKey, &Change)| to.is_none_or(|to| key.bytes() < to);
        let mut active = self.active.rows(bucket).from(from).take_while(below).peekable();
        let frozen = self.frozen.as_ref().map(|frozen| frozen.rows(bucket).from(from));
        let mut frozen = frozen.into_iter().flatten().take_while(below).peekable();
        let mut changes = Vec::new();
        while changes.len() < count_max {
            let next = match (active.peek(), frozen.peek()) {
                (None, None) => return (changes, false),
                (Some(_), None) => active.next(),
                (None, Some(_)) => frozen.next(),
                (Some((a, _)), Some((f, _))) if a < f => active.next(),
                (Some((a, _)), Some((f, _))) if a > f => frozen.next(),
                (Some(_), Some(_)) => {
                    frozen.next();
                    active.next()
                }
            };
            let (key, change) = next.expect("it was just looked at");
            changes.push((key.clone(), change.clone()));
        }
        (changes, true)
    }
}

impl Backend {
    /// Opens `name` in `dir`, or makes it with its ten empty buckets.
    ///
    /// # Errors
    ///
    /// The file is locked, damaged, or cannot be read or made.
    ///
    /// # Panics
    ///
    /// If a new file is asked for with a page size that is no power of two from 1,024 to 65,536.
    pub fn open(dir: &Arc<dyn Dir>, name: &str, options: &Options) -> Result<Self, OpenError> {
        let page_bytes = options.page_bytes;
        let known = page_bytes.is_power_of_two() && (1024..=65_536).contains(&page_bytes);
        assert!(known, "a page size of {page_bytes}");
        let opened = open::open(dir, name, options)?;
        let home = Home { dir: Arc::clone(dir), name: name.to_owned(), options: options.clone() };
        Ok(Self::of(home, opened))
    }

    pub(crate) fn of(home: Home, opened: open::Opened) -> Self {
        let checksums = opened.checksums;
        let (state, writer) = State::new(opened);
        let (state, writer) = (RwLock::new(state), Mutex::new(writer));
        Self { inner: Arc::new(Inner { home, checksums, state, writer }) }
    }

    /// Which checksums there were when the file was opened; [`Checksums::Missing`] without
    /// [`Options::aux`].
    #[must_use]
    pub fn checksums(&self) -> Checksums {
        self.inner.checksums
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let Home { dir, name, .. } = self.home();
        dir.path().join(name)
    }

    pub(crate) fn home(&self) -> &Home {
        &self.inner.home
    }

    /// What the newest meta page says.
    pub(crate) fn meta(&self) -> Meta {
        let (pages, root) = self.inner.state.read().pin();
        let page_bytes = u32::try_from(pages.page_bytes).expect("page sizes have 32 bits");
        Meta { page_bytes, ..root.meta() }
    }

    /// Puts another file's state in the place of this one, whose uncommitted changes are dropped;
    /// `place` gives that file the name of this one.
    pub(crate) fn supersede<E>(
        &self,
        other: Self,
        place: impl FnOnce(&Self) -> Result<(), E>,
    ) -> Result<(), E> {
        // A commit that runs ends first: it is still one of the old file.
        let mut own_writer = self.inner.writer.lock();
        place(&other)?;
        let Ok(Inner { home: _, checksums: _, state, writer }) = Arc::try_unwrap(other.inner)
        else {
            panic!("a database that comes in has one owner");
        };
        *own_writer = writer.into_inner();
        *self.inner.state.write() = state.into_inner();
        Ok(())
    }

    /// Makes the changes visible to readers, all at once. Durable after the next commit.
    ///
    /// # Panics
    ///
    /// If the applied position goes back.
    pub fn apply(&self, batch: Batch) {
        let mut state = self.inner.state.write();
        if let Some(position) = batch.position() {
            let before = state.applied;
            assert!(before.index <= position.index, "applied goes back: {before} to {position}");
            state.applied = position;
        }
        base::probe::failpoint("beforeWritebackBuf");
        state.active.apply(batch);
        base::probe::failpoint("afterWritebackBuf");
    }

    /// How far the log is applied, as readers see it; zero in a new database.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.inner.state.read().applied
    }

    /// How far the log is applied in the durable file.
    #[must_use]
    pub fn durable(&self) -> LogPosition {
        self.inner.state.read().durable
    }

    /// Number of changes that the next commit will write, or that one is writing now.
    #[must_use]
    pub fn pending(&self) -> usize {
        let state = self.inner.state.read();
        state.active.len() + state.frozen.as_ref().map_or(0, |frozen| frozen.len())
    }

    /// The value of a key, shared with the page it lies in.
    ///
    /// The applied position in bucket `meta` is written by the next commit; ask
    /// [`Backend::applied`] for it.
    ///
    /// # Errors
    ///
    /// The page is damaged or cannot be read.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let (pages, root) = {
            let state = self.inner.state.read();
            if let Some(change) = state.changed(bucket, key) {
                return Ok(change.clone());
            }
            state.pin()
        };
        root.find(&pages, bucket, key)
    }

    /// Values of many keys of one bucket, in the order asked; cheaper than one by one, most of all
    /// when neighbours are asked for one behind the other.
    ///
    /// # Errors
    ///
    /// As [`Backend::get`].
    pub fn get_many(
        &self,
        bucket: Bucket,
        keys: &mut dyn Iterator<Item = [u8; 17]>,
        found: &mut dyn FnMut(Option<Bytes>),
    ) -> Result<(), ReadError> {
        /// Keys that are looked for in the deltas under one lock.
        const TOGETHER: usize = 128;
        let mut asked: Vec<[u8; 17]> = Vec::with_capacity(TOGETHER);
        loop {
            asked.clear();
            asked.extend((&mut *keys).take(TOGETHER));
            if asked.is_empty() {
                return Ok(());
            }
            let (changes, (pages, root)) = {
                let state = self.inner.state.read();
                let changes: Vec<Option<Change>> =
                    asked.iter().map(|key| state.changed(bucket, key).cloned()).collect();
                (changes, state.pin())
            };
            // Another root may have other leaves.
            let mut leaf: Option<Page> = None;
            for (key, change) in asked.iter().zip(changes) {
                if let Some(change) = change {
                    found(change);
                    continue;
                }
                let Some(tree) = root.tree(bucket) else {
                    found(None);
                    continue;
                };
                let near = match leaf.take().filter(|leaf| holds(leaf, key)) {
                    Some(near) => near,
                    None => find_leaf(&pages, root.high_water, tree, key)?,
                };
                found(near.find(key).ok().map(|at| near.shared_value(at)));
                leaf = Some(near);
            }
        }
    }

    /// Visits keys from `from` (inclusive) to `to` (exclusive; `None` to the end) in order, as they
    /// are now, until `visit` breaks. Changes made meanwhile may or may not be seen.
    ///
    /// # Errors
    ///
    /// As [`Backend::get`].
    pub fn scan(
        &self,
        bucket: Bucket,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        /// Changes that are copied under one lock; the visitor runs without it.
        const TOGETHER: usize = 1024;
        let mut start = from.to_vec();
        loop {
            let (changes, more, (pages, root)) = {
                let state = self.inner.state.read();
                let (changes, more) = state.changes(bucket, &start, to, TOGETHER);
                (changes, more, state.pin())
            };
            // Behind the last change there may be others that were not copied.
            let last = changes.last().filter(|_| more).map(|(key, _)| key.bytes().to_vec());
            let mut merge = Merge { pages: &pages, root, changes, visit };
            if merge.run(bucket, &start, to, last.as_deref())?.is_break() {
                return Ok(());
            }
            match last {
                None => return Ok(()),
                Some(last) => {
                    start = last;
                    start.push(0);
                }
            }
        }
    }

    /// Writes all changes applied so far, makes them durable, then makes them the file's state.
    /// Readers and [`Backend::apply`] go on meanwhile. One caller at a time; others wait.
    ///
    /// # Errors
    ///
    /// `NoSpace` may be tried again; after `Io` the backend is done for.
    pub fn commit(&self) -> Result<Commit, CommitError> {
        self.commit_with(&mut self.inner.writer.lock(), &[], false)
    }

    /// Commits even if nothing changes: the state gets a mark that its checksums count.
    pub(crate) fn commit_always(&self) -> Result<Commit, CommitError> {
        self.commit_with(&mut self.inner.writer.lock(), &[], true)
    }

    /// Commits, rewriting the ways to some keys; `always` even if nothing else changes.
    fn commit_with(
        &self,
        writer: &mut Writer,
        touches: &[Touch],
        always: bool,
    ) -> Result<Commit, CommitError> {
        if writer.poisoned {
            let source = std::io::Error::other("an earlier write or sync failed");
            return Err(CommitError::Io(source));
        }
        let (frozen, (pages, root)) = {
            let mut state = self.inner.state.write();
            if state.active.is_empty() && !always {
                return Ok(Commit { durable: state.durable, ..Commit::default() });
            }
            let mut frozen = std::mem::take(&mut state.active);
            base::probe::failpoint("commitBeforePreCommitHook");
            frozen.seal();
            base::probe::failpoint("commitAfterPreCommitHook");
            let frozen = Arc::new(frozen);
            state.frozen = Some(Arc::clone(&frozen));
            (frozen, state.pin())
        };
        base::probe::failpoint("beforeCommit");
        let began = Instant::now();
        let result = writer.commit(&pages, &root, &frozen, touches);
        let whole = began.elapsed();
        base::probe::failpoint("afterCommit");
        base::probe::failpoint("beforeStartDBTxn");
        base::probe::failpoint("afterStartDBTxn");
        let mut state = self.inner.state.write();
        match result {
            Ok((root, written, building)) => {
                let took = Took { building, writing: whole.saturating_sub(building) };
                state.frozen = None;
                state.sizes = sizes(&pages, writer, &root);
                state.root = root;
                state.durable = frozen.applied().unwrap_or(state.durable);
                Ok(Commit { durable: state.durable, changes: frozen.len(), pages: written, took })
            }
            Err(error) => {
                // The changes are still visible, and the next commit takes them.
                state.frozen = None;
                let mut all = Arc::unwrap_or_clone(frozen);
                all.merge(std::mem::take(&mut state.active));
                state.active = all;
                Err(error)
            }
        }
    }

    /// Commits, then pins that state for a consistent copy while writing goes on.
    ///
    /// # Errors
    ///
    /// As [`Backend::commit`].
    pub fn copy(&self) -> Result<Copy, CommitError> {
        let mut writer = self.inner.writer.lock();
        self.commit_with(&mut writer, &[], false)?;
        let (pages, root) = self.inner.state.read().pin();
        let unused = writer.unused(&root);
        Ok(Copy::new(pages, root, unused))
    }

    /// Allocated and used bytes.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.inner.state.read().sizes
    }

    /// Moves the highest pages into free ones lower down and gives the end of the file back, as a
    /// bounded amount of work; `true` if more can be done. Never stops readers or writers.
    ///
    /// # Errors
    ///
    /// As [`Backend::commit`].
    pub fn shrink_step(&self) -> Result<bool, CommitError> {
        base::probe::failpoint("defragBeforeCopy");
        for name in ["defragOpenFileError", "defragdbFail"] {
            if let Some(text) = base::probe::failpoint(name) {
                return Err(CommitError::NoSpace(std::io::Error::other(text)));
            }
        }
        let mut writer = self.inner.writer.lock();
        let (pages, before) = self.inner.state.read().pin();
        let trimmed = writer.trim();
        let touches = writer.highest(&pages, &before)?;
        let moves = trimmed || !touches.is_empty();
        self.commit_with(&mut writer, &touches, moves)?;
        let after = Arc::clone(&self.inner.state.read().root);
        base::probe::failpoint("defragBeforeRename");
        let cut = writer.cut(&pages, (before.high_water, after.high_water))?;
        Ok((moves || cut) && writer.is_shrinking())
    }

    /// Verifies every page, reference, order and checksum of the file.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), CheckError> {
        let (pages, root, unused) = {
            let writer = self.inner.writer.lock();
            let (pages, root) = self.inner.state.read().pin();
            let unused = writer.unused(&root);
            (pages, root, unused)
        };
        let used = inspect(&pages, &root.meta(), &mut |_, _| {})?;
        for page in 0..root.high_water {
            match (used.contains(page), unused.contains(page)) {
                (true, false) | (false, true) => {}
                (true, true) => {
                    return Err(CheckError { page, what: "it is used and free".to_owned() });
                }
                (false, false) => {
                    return Err(CheckError {
                        page,
                        what: "it is neither used nor free".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn sizes(pages: &Pages, writer: &Writer, root: &Root) -> Sizes {
    let page_bytes = to_count(pages.page_bytes);
    let total = root.high_water * page_bytes;
    Sizes { total, in_use: total.saturating_sub(writer.unused_pages(root) * page_bytes) }
}

/// Whether a key can only be in this leaf.
fn holds(leaf: &Page, key: &[u8]) -> bool {
    leaf.count() > 0 && leaf.key(0) <= key && key <= leaf.key(leaf.count() - 1)
}

/// Rows of the pages with changes over them.
struct Merge<'a> {
    pages: &'a Pages,
    root: Arc<Root>,
    changes: Vec<(RowKey, Change)>,
    visit: &'a mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
}

impl Merge<'_> {
    /// Visits from `from` to `to` (exclusive) or `last` (inclusive), whichever is first.
    fn run(
        &mut self,
        bucket: Bucket,
        from: &[u8],
        to: Option<&[u8]>,
        last: Option<&[u8]>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let changes = std::mem::take(&mut self.changes);
        let mut changes = changes.into_iter().peekable();
        if let Some(tree) = self.root.tree(bucket) {
            let mut cursor = Cursor::seek(self.pages, self.root.high_water, tree, from)?;
            while let Some((page, at)) = cursor.here() {
                let key = page.key(at);
                if to.is_some_and(|to| to <= key) || last.is_some_and(|last| last < key) {
                    break;
                }
                while let Some((key, change)) = changes.next_if(|(change, _)| change.bytes() < key)
                {
                    if self.show(&key, change).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                let shown = match changes.next_if(|(change, _)| change.bytes() == key) {
                    Some((key, change)) => self.show(&key, change),
                    None => (self.visit)(&page.shared_key(at), &page.shared_value(at)),
                };
                if shown.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                cursor.advance()?;
            }
        }
        for (key, change) in changes {
            if self.show(&key, change).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn show(&mut self, key: &RowKey, change: Change) -> ControlFlow<()> {
        match change {
            Some(value) => (self.visit)(&key.to_shared(), &value),
            None => ControlFlow::Continue(()),
        }
    }
}
