//! Compression of log files that were put aside.
//!
//! A thread of its own, since a file of 100 MB takes seconds and whoever logs holds a lock. One
//! wake-up is remembered while it works, and each time it looks at the whole folder: files that an
//! earlier process left, or that were half compressed when it died, are taken up too. A file that
//! cannot be compressed stays as it is.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::rotate::aside;

/// What a compressed file's name ends with.
pub(super) const EXTENSION: &str = ".gz";

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Compressor {
    wake: SyncSender<()>,
}

impl Compressor {
    /// Starts the thread for the files put aside for `log`.
    pub(super) fn start(log: &Path) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let log = log.to_owned();
        let thread = thread::Builder::new().name("log-compress".to_owned());
        thread.spawn(move || run(&log, &woken))?;
        let compressor = Self { wake };
        compressor.wake();
        Ok(compressor)
    }

    /// Says that there may be something to compress.
    pub(super) fn wake(&self) {
        // Full: it will look again anyway.
        let _told = self.wake.try_send(());
    }
}

fn run(log: &Path, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        let Ok(files) = aside(log) else { continue };
        for file in files {
            let done = file.path.extension().is_some_and(|extension| extension == &EXTENSION[1..]);
            // The log cannot say that compressing the log failed: that would be more of the log.
            if !done && let Err(_reason) = compress(&file.path) {
                let _removed = fs::remove_file(compressed(&file.path));
            }
        }
    }
}

/// Replaces a file by its compressed form, which has the same permissions.
fn compress(path: &Path) -> io::Result<()> {
    let mut plain = File::open(path)?;
    let target = compressed(path);
    let file = File::create(&target)?;
    file.set_permissions(plain.metadata()?.permissions())?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    io::copy(&mut plain, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(path)
}

fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(EXTENSION);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    /// SRV-117.
    #[test]
    fn a_file_is_replaced_by_its_compressed_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcd-2026-01-02T03-04-05.678.log");
        fs::write(&path, "a line\n".repeat(1000)).unwrap();
        compress(&path).unwrap();
        assert!(!path.exists());
        let mut text = String::new();
        let file = File::open(compressed(&path)).unwrap();
        assert!(file.metadata().unwrap().len() < 1000);
        GzDecoder::new(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "a line\n".repeat(1000));
        assert_eq!(aside(&folder.path().join("etcd.log")).unwrap().len(), 1);
    }

    /// What an earlier process left is found at the start.
    #[test]
    fn the_thread_takes_up_what_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("etcd-2026-01-02T03-04-05.678.log");
        let other = folder.path().join("other.log");
        fs::write(&left, "left\n").unwrap();
        fs::write(&other, "other\n").unwrap();
        let (wake, woken) = sync_channel(1);
        wake.send(()).unwrap();
        drop(wake);
        run(&folder.path().join("etcd.log"), &woken);
        assert!(!left.exists() && compressed(&left).exists() && other.exists());
    }
}
