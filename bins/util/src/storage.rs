//! The bucket `meta` as tools see it, and the version of the layout of a database.
//!
//! etcd: `server/storage/schema`.

use std::fmt;

use backend::Bucket;
use bytes::Bytes;
use cli::number::NumberError;

/// The applied index, big-endian.
pub(crate) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
/// The term of that entry, big-endian.
pub(crate) const TERM: &[u8] = b"term";
/// Who votes, as JSON.
pub(crate) const CONF_STATE: &[u8] = b"confState";
/// Up to where a compaction is to go.
pub(crate) const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
/// The version of the layout as text, from 3.6 on.
pub(crate) const STORAGE_VERSION: &[u8] = b"storageVersion";

/// The version of a layout; only major and minor mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: i64,
    pub(crate) minor: i64,
}

/// The oldest version that can be migrated to.
pub(crate) const V3_5: Version = Version { major: 3, minor: 5 };
/// The first version that writes its number.
pub(crate) const V3_6: Version = Version { major: 3, minor: 6 };
/// The newest that is known.
pub(crate) const V3_7: Version = Version { major: 3, minor: 7 };

impl Version {
    /// Reads `3.7` or `3.7.0`; what comes behind the second point does not matter.
    pub(crate) fn parse(text: &str) -> Result<Self, NumberError> {
        let mut numbers = text.split('.').map(|number| cli::number::parse_int(number, 10));
        let mut next = || numbers.next().unwrap_or(Ok(0));
        Ok(Self { major: next()?, minor: next()? })
    }

    /// `3.7`.
    pub(crate) fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// `3.7.0`, as it is stored.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// Why the version of a database is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DetectError {
    /// A database of 3.4, or one of 3.5 that was not used since.
    #[error("missing term information")]
    NoTerm,
    /// The text is no version.
    #[error("the storage version {text:?} is no version")]
    NoVersion {
        /// As stored.
        text: String,
    },
    /// The database cannot be read.
    #[error(transparent)]
    Read(#[from] backend::ReadError),
}

/// The version of a database: its own word, or 3.5 if it has a term, which older ones lack.
pub(crate) fn detect(
    get: impl Fn(Bucket, &[u8]) -> Result<Option<Bytes>, backend::ReadError>,
) -> Result<Version, DetectError> {
    if let Some(text) = get(Bucket::Meta, STORAGE_VERSION)? {
        let text = String::from_utf8_lossy(&text).into_owned();
        return Version::parse(&text).map_err(|_| DetectError::NoVersion { text });
    }
    let term = get(Bucket::Meta, TERM)?;
    let is_known = term.is_some_and(|term| term.iter().any(|byte| *byte != 0));
    is_known.then_some(V3_5).ok_or(DetectError::NoTerm)
}
