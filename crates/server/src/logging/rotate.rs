//! A log file that is put aside when it is full.
//!
//! The full file is renamed to `name-2006-01-02T15-04-05.000.ext` beside the new one; the oldest
//! ones are removed. Settings and names are those of the Go library etcd uses, so that tools
//! that collect such files find them. Files put aside are compressed on a thread of their own
//! ([`super::compress`]).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;

use super::compress::{self, Compressor};
use super::format::timestamp;
use super::output::append;

const MEGABYTE: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// When a file is full, and what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file is full before it would exceed this.
    pub file_bytes_max: u64,
    /// Older files are removed; `None` keeps them.
    pub age_max: Option<Duration>,
    /// More files are removed, oldest first; `None` keeps them.
    pub files_max: Option<usize>,
    /// Whether files put aside are compressed.
    pub compress: bool,
    /// Whether their names are in the time of this machine's zone rather than in UTC.
    pub local_time: bool,
}

/// Why the settings of a rotation cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// They are no JSON.
    #[error("improperly formatted log rotation config")]
    Syntax(#[source] serde_json::Error),
    /// A value is of the wrong type.
    #[error("invalid log rotation config")]
    Type(#[source] serde_json::Error),
}

impl Rotation {
    /// Reads `--log-rotation-config-json`.
    ///
    /// # Errors
    ///
    /// [`RotationError`]; its source says what is wrong.
    pub fn parse(json: &str) -> Result<Self, RotationError> {
        #[derive(serde::Deserialize, Default)]
        #[serde(default)]
        struct Json {
            maxsize: u64,
            maxage: u64,
            maxbackups: usize,
            compress: bool,
            localtime: bool,
        }
        let json: Json = serde_json::from_str(json).map_err(|source| {
            if source.is_data() {
                RotationError::Type(source)
            } else {
                RotationError::Syntax(source)
            }
        })?;
        let megabytes = if json.maxsize == 0 { 100 } else { json.maxsize };
        Ok(Self {
            file_bytes_max: megabytes.saturating_mul(MEGABYTE),
            age_max: (json.maxage > 0)
                .then(|| DAY.saturating_mul(u32::try_from(json.maxage).unwrap_or(u32::MAX))),
            files_max: (json.maxbackups > 0).then_some(json.maxbackups),
            compress: json.compress,
            local_time: json.localtime,
        })
    }
}

/// The present file.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    len: u64,
    compressor: Option<Compressor>,
}

impl Rotating {
    pub(super) fn open(path: &Path, rotation: &Rotation) -> io::Result<Self> {
        let file = append(path)?;
        let len = file.metadata()?.len();
        let compressor = match rotation.compress {
            true => Some(Compressor::start(path)?),
            false => None,
        };
        Ok(Self { path: path.to_owned(), rotation: rotation.clone(), file, len, compressor })
    }

    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let len = u64::try_from(line.len()).expect("a line's length fits in 64 bits");
        if self.len > 0 && self.len + len > self.rotation.file_bytes_max {
            self.rotate(SystemTime::now())?;
        }
        self.len += len;
        self.file.write_all(line.as_bytes())
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        fs::rename(&self.path, put_aside(&self.path, now, self.rotation.local_time))?;
        self.file = append(&self.path)?;
        self.len = 0;
        self.remove_old(now)?;
        if let Some(compressor) = &self.compressor {
            compressor.wake();
        }
        Ok(())
    }

    fn remove_old(&self, now: SystemTime) -> io::Result<()> {
        let aside = aside(&self.path)?;
        let surplus = self.rotation.files_max.map_or(0, |max| aside.len().saturating_sub(max));
        for (position, file) in aside.iter().enumerate() {
            let age = now.duration_since(file.modified).unwrap_or_default();
            if position < surplus || self.rotation.age_max.is_some_and(|max| age > max) {
                remove(&file.path)?;
            }
        }
        Ok(())
    }
}

/// A file that was put aside.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Aside {
    pub(super) path: PathBuf,
    pub(super) modified: SystemTime,
}

/// The files put aside for `path`, oldest first.
pub(super) fn aside(path: &Path) -> io::Result<Vec<Aside>> {
    let (prefix, suffix) = ends(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut aside = Vec::new();
    for entry in fs::read_dir(folder.unwrap_or_else(|| Path::new(".")))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let plain = name.strip_suffix(compress::EXTENSION).unwrap_or(&name);
        let time = plain.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&suffix));
        if time.is_some_and(|time| time.len() == "2006-01-02T15-04-05.000".len()) {
            // The compressor may have replaced it since.
            if let Ok(metadata) = entry.metadata() {
                aside.push(Aside { path: entry.path(), modified: metadata.modified()? });
            }
        }
    }
    // Names sort by time.
    aside.sort();
    Ok(aside)
}

/// Removes a file unless the compressor has done so already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The name under which a full file is kept.
fn put_aside(path: &Path, now: SystemTime, local_time: bool) -> PathBuf {
    let (prefix, suffix) = ends(path);
    let local = local_time.then(|| local(now, TimeZone::system())).flatten();
    let time = local.unwrap_or_else(|| timestamp(now)).replace(':', "-");
    let time = &time[.."2006-01-02T15-04-05.000".len()];
    path.with_file_name(format!("{prefix}{time}{suffix}"))
}

/// A moment by the clocks of a zone, down to milliseconds; `None` outside of what clocks show.
fn local(now: SystemTime, zone: TimeZone) -> Option<String> {
    let now = jiff::Timestamp::try_from(now).ok()?.to_zoned(zone);
    Some(format!("{:.3}", now.datetime()))
}

/// `etcd-` and `.log` of `etcd.log`.
fn ends(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    (format!("{stem}-"), extension.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-117.
    #[test]
    fn settings_are_read_from_json() {
        let default = Rotation::parse(crate::config::DEFAULT_LOG_ROTATION).unwrap();
        assert_eq!(default.file_bytes_max, 100 * MEGABYTE);
        assert_eq!((default.age_max, default.files_max), (None, None));
        assert!(Rotation::parse("{\"maxsize\": \"a\"}").is_err());
        assert!(Rotation::parse("{").is_err());
    }

    /// SRV-117.
    #[test]
    fn names_may_be_in_local_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_500);
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        assert_eq!(local(now, zone).unwrap(), "1970-01-01T19:00:00.500");
        let path = put_aside(Path::new("l/etcd.log"), now, false);
        assert_eq!(path, Path::new("l/etcd-1970-01-02T00-00-00.500.log"));
        let local = put_aside(Path::new("l/etcd.log"), now, true);
        assert_eq!(local.as_os_str().len(), path.as_os_str().len());
    }

    /// SRV-117.
    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcd.log");
        let rotation =
            Rotation { file_bytes_max: 10, files_max: Some(2), ..Rotation::parse("{}").unwrap() };
        let mut log = Rotating::open(&path, &rotation).unwrap();
        for (second, line) in ["first\n", "second\n", "third\n", "fourth\n"].iter().enumerate() {
            if second > 0 {
                let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second as u64);
                log.rotate(now).unwrap();
            }
            log.write(line).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["etcd-1970-01-01T00-00-02.000.log", "etcd-1970-01-01T00-00-03.000.log", "etcd.log"]
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "fourth\n");
    }
}
