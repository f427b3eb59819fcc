//! A store on an empty database, short words for what tests do with it, and the plain model.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backend::{Backend, Bucket};
use base::{KeyRange, LeaseId, LogPosition, Term};
use bytes::Bytes;
use proto::mvccpb::KeyValue;
use retcd_mvcc::{
    CompactStep, Filters, Options, QueryError, RangeQuery, RevisionError, Store, Txn, Wake, Want,
    WatchOutput, WatchSpec, WatchStream, Writer,
};

/// A store whose database lives as long as this.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) backend: Backend,
    pub(crate) options: Options,
    folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = vfs::OsDir::open(folder.path()).unwrap();
        let backend = Backend::open(&dir, "db", &backend::Options::default()).unwrap();
        let store = Store::open(&backend, &options).unwrap();
        Self { store, backend, options, folder }
    }

    /// Small pieces of everything, so that little data reaches every border.
    pub(crate) fn small() -> Self {
        Self::new(Options {
            compact_batch_rows: 2,
            event_ring_bytes_max: 1000,
            ..Options::default()
        })
    }

    /// Applies one batch.
    pub(crate) fn apply<T>(&mut self, work: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        let position = LogPosition { index: self.backend.applied().index.next(), term: Term(1) };
        let mut writer = self.store.write(position);
        let result = work(&mut writer);
        writer.finish(position);
        result
    }

    /// Applies one transaction.
    pub(crate) fn txn<T>(&mut self, work: impl FnOnce(&mut Txn<'_, '_>) -> T) -> T {
        self.apply(|writer| work(&mut writer.txn()))
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) {
        self.txn(|txn| put(txn, key, value));
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.txn(|txn| txn.delete_range(&one(key), false, &mut |_, _| {}).unwrap());
    }

    pub(crate) fn schedule(&mut self, at: i64) -> Result<(), RevisionError> {
        self.apply(|writer| writer.compact(at))
    }

    /// Compacts to the end.
    pub(crate) fn compact(&mut self, at: i64) {
        self.schedule(at).unwrap();
        self.finish_compactions();
    }

    pub(crate) fn finish_compactions(&mut self) {
        while self.store.compact_step().unwrap() != CompactStep::Idle {}
    }

    /// Takes over the state of another store as a member takes over a snapshot.
    pub(crate) fn restore_from(&mut self, other: &Self) {
        let mut copy = other.backend.copy().unwrap();
        let bytes = copy.read(usize::try_from(copy.len()).unwrap()).unwrap();
        std::fs::write(self.folder.path().join("in.snap.db"), bytes).unwrap();
        let incoming = self.backend.open_incoming("in.snap.db").unwrap();
        let next = Store::open(incoming.backend(), &self.options).unwrap();
        let backend = self.backend.clone();
        self.store.restore(next, || backend.replace_with(incoming)).unwrap();
    }

    /// Opens the store anew from what the backend has.
    pub(crate) fn reopen(&mut self) {
        self.store = Store::open(&self.backend, &self.options).unwrap();
    }

    pub(crate) fn range(
        &self,
        keys: KeyRange,
        at: Option<i64>,
    ) -> Result<Vec<KeyValue>, QueryError> {
        let query = RangeQuery { keys, at, limit: None, want: Want::Rows };
        let found = self.store.reader().range(&query)?;
        assert_eq!(found.count, found.rows.len());
        Ok(found.rows.iter().map(retcd_mvcc::Row::decode).collect())
    }

    /// The rows as `key@main.sub` and, for deletions, `t`.
    pub(crate) fn stored_rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        let scanned = self.backend.scan(Bucket::Key, &[], None, &mut |key, value| {
            let row: KeyValue = prost::Message::decode(value.clone()).unwrap();
            let main = i64::from_be_bytes(key[..8].try_into().unwrap());
            let sub = i64::from_be_bytes(key[9..17].try_into().unwrap());
            let mark = if key.len() == 18 { "t" } else { "" };
            rows.push(format!("{}@{main}.{sub}{mark}", String::from_utf8_lossy(&row.key)));
            std::ops::ControlFlow::Continue(())
        });
        scanned.unwrap();
        rows
    }
}

pub(crate) fn put(txn: &mut Txn<'_, '_>, key: &str, value: &str) {
    let value = Bytes::copy_from_slice(value.as_bytes());
    txn.put(Bytes::copy_from_slice(key.as_bytes()), &value, LeaseId::NONE, false).unwrap();
}

pub(crate) fn one(key: &str) -> KeyRange {
    KeyRange::One(Bytes::copy_from_slice(key.as_bytes()))
}

pub(crate) fn all() -> KeyRange {
    KeyRange::From(Bytes::from_static(b"\0"))
}

/// Counts calls.
#[derive(Debug, Default)]
pub(crate) struct Bell(pub(crate) AtomicUsize);

impl Wake for Bell {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) fn stream(store: &Store) -> (WatchStream, Arc<Bell>) {
    let bell = Arc::new(Bell::default());
    let wake: Arc<dyn Wake> = Arc::<Bell>::clone(&bell);
    (store.watch().stream(wake), bell)
}

pub(crate) fn watch(keys: KeyRange, start: i64) -> WatchSpec {
    WatchSpec {
        keys,
        start,
        filters: Filters::default(),
        want_previous: false,
        id: 0,
        fragment: false,
    }
}

/// Pulls until there is no more.
pub(crate) fn drain(stream: &mut WatchStream) -> Vec<WatchOutput> {
    let mut out = Vec::new();
    while stream.pull(1 << 20, &mut out).unwrap() {}
    out
}

/// One change as the model remembers it, for ever.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) main: i64,
    pub(crate) sub: i64,
    pub(crate) key: Bytes,
    /// The row; `None` is a deletion.
    pub(crate) row: Option<KeyValue>,
    /// The row before.
    pub(crate) previous: Option<KeyValue>,
}

/// Everything that ever happened.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) changes: Vec<Change>,
    pub(crate) live: BTreeMap<Bytes, KeyValue>,
    pub(crate) revision: i64,
    pub(crate) compact: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self { changes: Vec::new(), live: BTreeMap::new(), revision: 1, compact: -1 }
    }
}

impl Model {
    pub(crate) fn put(&mut self, main: i64, sub: i64, key: &Bytes, value: &Bytes, lease: i64) {
        let previous = self.live.get(key).cloned();
        let row = KeyValue {
            key: key.clone(),
            create_revision: previous.as_ref().map_or(main, |row| row.create_revision),
            mod_revision: main,
            version: previous.as_ref().map_or(1, |row| row.version + 1),
            value: value.clone(),
            lease,
        };
        self.live.insert(key.clone(), row.clone());
        self.changes.push(Change { main, sub, key: key.clone(), row: Some(row), previous });
        self.revision = main;
    }

    /// Deletes what is live in the range and gives the rows.
    pub(crate) fn delete(&mut self, main: i64, sub: i64, keys: &KeyRange) -> Vec<KeyValue> {
        let rows: Vec<_> =
            self.live.values().filter(|row| keys.contains(&row.key)).cloned().collect();
        for (row, sub) in rows.iter().zip(sub..) {
            self.live.remove(&row.key);
            let (key, previous) = (row.key.clone(), Some(row.clone()));
            self.changes.push(Change { main, sub, key, row: None, previous });
            self.revision = main;
        }
        rows
    }

    /// The rows of a range as of a revision.
    pub(crate) fn range(&self, keys: &KeyRange, at: i64) -> Vec<KeyValue> {
        let mut rows = BTreeMap::new();
        for change in self.changes.iter().filter(|c| c.main <= at && keys.contains(&c.key)) {
            rows.insert(change.key.clone(), change.row.clone());
        }
        rows.into_values().flatten().collect()
    }

    /// Interop 6.5, rule by rule over all rows that ever were. Equal to the store's only where no
    /// quirk of an emptied store matters.
    pub(crate) fn hash(&self, at: i64) -> u32 {
        let kept = |change: &Change| {
            let later = |other: &&Change| {
                other.key == change.key
                    && other.main <= at
                    && (change.main, change.sub) < (other.main, other.sub)
            };
            change.row.is_some() && !self.changes.iter().any(|other| later(&other))
        };
        let mut crc = crc32c::crc32c(b"key");
        for change in self.changes.iter().filter(|change| change.main <= at) {
            let superseded = change.main <= self.compact && !kept(change);
            if superseded || (change.main == self.compact && change.row.is_none()) {
                continue;
            }
            let mut name = change.main.to_be_bytes().to_vec();
            name.push(b'_');
            name.extend(change.sub.to_be_bytes());
            let deleted = KeyValue { key: change.key.clone(), ..KeyValue::default() };
            if change.row.is_none() {
                name.push(b't');
            }
            let row = change.row.as_ref().unwrap_or(&deleted);
            crc = crc32c::crc32c_append(crc, &name);
            crc = crc32c::crc32c_append(crc, &prost::Message::encode_to_vec(row));
        }
        crc
    }

    /// Whether a compaction at `at` would keep any row: the precondition of [`Model::hash`].
    pub(crate) fn any_live(&self, at: i64) -> bool {
        !self.range(&all(), at).is_empty()
    }
}
