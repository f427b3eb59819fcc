//! A database written anew in one pass, with some rows changed on the way.
//!
//! The result has no free pages. The source must have been checked: rows that do not ascend are not
//! expected here.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::io;
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::sync::Arc;

use backend::bulk::Bulk;
use backend::{Bucket, ReadError, ReadOnly};
use vfs::{Dir, File};

/// What is to differ from the source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edits {
    emptied: BTreeSet<&'static str>,
    rows: BTreeMap<&'static str, Rows>,
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Why no database was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    /// The source.
    #[error("reading the database")]
    Read(#[from] ReadError),
    /// The target.
    #[error("writing the database")]
    Write(#[from] io::Error),
}

impl Edits {
    /// Leaves out all of the source's rows of a bucket.
    pub(crate) fn empty(&mut self, bucket: Bucket) {
        self.emptied.insert(bucket.name());
    }

    /// Sets a row.
    pub(crate) fn set(&mut self, bucket: Bucket, key: &[u8], value: impl Into<Vec<u8>>) {
        let rows = self.rows.entry(bucket.name()).or_default();
        rows.insert(key.to_vec(), value.into());
    }
}

/// Writes all buckets of `source`, and those of etcd that it lacks, with the edits, to an empty file,
/// and makes it durable. Returns its length. `sums` is the folder for its checksums and its name there.
pub(crate) fn rewrite(
    source: &ReadOnly,
    edits: &Edits,
    file: Arc<dyn File>,
    sums: Option<(Arc<dyn Dir>, &str)>,
) -> Result<u64, RewriteError> {
    let known = Bucket::ALL.iter().map(|bucket| bucket.name().to_owned());
    let names: BTreeSet<String> = source.buckets().into_iter().chain(known).collect();
    let bulk = Bulk::new(file, source.page_bytes());
    let mut rewriter = Rewriter {
        bulk: match sums {
            Some((aux, name)) => bulk.with_sums(aux, name),
            None => bulk,
        },
        names: names.into_iter().collect::<Vec<_>>().into_iter(),
        edits,
        bucket: String::new(),
        due: None,
    };
    let mut failed = None;
    source.scan_all(&mut |bucket, key, value| match rewriter.row(bucket, key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(rewriter.finish()?),
    }
}

struct Rewriter<'a> {
    bulk: Bulk,
    /// Buckets that are not begun yet.
    names: std::vec::IntoIter<String>,
    edits: &'a Edits,
    bucket: String,
    /// Rows to be set in the bucket that are not written yet.
    due: Option<Peekable<btree_map::Iter<'a, Vec<u8>, Vec<u8>>>>,
}

impl Rewriter<'_> {
    fn row(&mut self, bucket: &str, key: &[u8], value: &[u8]) -> io::Result<()> {
        while self.bucket != bucket {
            assert!(self.next_bucket()?, "bucket {bucket} is none of those of the file");
        }
        if self.edits.emptied.contains(bucket) {
            return Ok(());
        }
        if let Some(due) = &mut self.due {
            while let Some((key, value)) = due.next_if(|(edited, _)| edited.as_slice() < key) {
                self.bulk.put(key, value)?;
            }
            if let Some((key, value)) = due.next_if(|(edited, _)| edited.as_slice() == key) {
                return self.bulk.put(key, value);
            }
        }
        self.bulk.put(key, value)
    }

    /// Ends the bucket and begins the next; `false` if there is none.
    fn next_bucket(&mut self) -> io::Result<bool> {
        for (key, value) in self.due.take().into_iter().flatten() {
            self.bulk.put(key, value)?;
        }
        let Some(name) = self.names.next() else { return Ok(false) };
        self.bulk.bucket(&name)?;
        self.due = self.edits.rows.get(name.as_str()).map(|rows| rows.iter().peekable());
        self.bucket = name;
        Ok(true)
    }

    fn finish(mut self) -> io::Result<u64> {
        while self.next_bucket()? {}
        self.bulk.finish()
    }
}

#[cfg(test)]
mod tests;
