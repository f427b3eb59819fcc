//! A small disk for one member: a `tmpfs`, where one may be mounted.
//!
//! Not here: a slow disk, which needs a loop device and the kernel's limits of writing
//! (`bins/server/tests/slow_disk.rs`).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// A mounted `tmpfs`.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

/// What is written at once.
const PIECE_BYTES: usize = 64 << 10;

impl Disk {
    /// Mounts one of `mebibytes` at `folder`; `None`, with a note, where that is not allowed.
    ///
    /// # Errors
    ///
    /// The folder cannot be made.
    pub(crate) fn mount(folder: PathBuf, mebibytes: u32) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(&folder)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700"), "tmpfs"])
            .arg(&folder)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: a tmpfs cannot be mounted here");
            return Ok(None);
        }
        Ok(Some(Self(folder)))
    }

    /// Writes until nothing fits any more.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.ballast())?;
        for piece in [PIECE_BYTES, 512] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        Ok(())
    }

    /// Makes the room again that [`Self::fill`] took.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since a member that a failed test leaves behind may still hold it.
        let told = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !told.is_ok_and(|status| status.success()) {
            println!("{} stays mounted", self.0.display());
        }
    }
}
