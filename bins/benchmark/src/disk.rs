//! The disk's own latency, which no durable put can be below.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::measurement::{Latency, latency_histogram, record};

/// As much as a put of the suite appends to a log.
const WRITE_BYTES: usize = 256;
/// Zero-filled ahead like a log segment, so that a sync has no file size to record.
const FILE_BYTES: usize = 4 << 20;

/// Measures `pwrite` of 256 bytes and `fdatasync`, one after the other through a zero-filled file
/// in `folder`, for at most `duration`. The file is removed.
///
/// # Errors
/// If the folder is not writable.
pub(crate) fn sync_latency(folder: &Path, duration: Duration) -> io::Result<Latency> {
    let path = folder.join("sync-latency");
    let measured = measure(&path, duration);
    fs::remove_file(&path)?;
    measured
}

fn measure(path: &Path, duration: Duration) -> io::Result<Latency> {
    fs::write(path, vec![0u8; FILE_BYTES])?;
    let file = File::options().write(true).open(path)?;
    file.sync_all()?;
    let mut histogram = latency_histogram();
    let begin = Instant::now();
    for chunk in (0..FILE_BYTES / WRITE_BYTES).cycle() {
        let started = Instant::now();
        file.write_all_at(&[0x5a; WRITE_BYTES], (chunk * WRITE_BYTES) as u64)?;
        file.sync_data()?;
        record(&mut histogram, started.elapsed());
        if begin.elapsed() >= duration {
            break;
        }
    }
    Ok(Latency::of(&histogram).expect("at least one write is measured"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sync_latency_is_measured_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let latency = sync_latency(folder.path(), Duration::from_millis(20)).unwrap();
        assert!(latency.p50_micros > 0.0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
