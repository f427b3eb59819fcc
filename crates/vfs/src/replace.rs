//! Atomic replacement of a small file.

use std::io;

use crate::{Dir, Open};

/// Replaces `name` by a file with these bytes; a crash leaves the old or the new content, whole.
/// Durable on return.
///
/// # Errors
///
/// The operating system's; the old file is then still in place unless only the last sync failed.
pub fn replace(dir: &dyn Dir, name: &str, bytes: &[u8]) -> io::Result<()> {
    let staged = format!("{name}.tmp");
    if dir.exists(&staged)? {
        dir.remove(&staged)?;
    }
    let file = dir.open(&staged, Open::Create)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    dir.rename(&staged, name)?;
    dir.sync()
}
