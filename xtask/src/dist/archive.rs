//! The archive: one folder with the programs in it, as etcd's own releases have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::Release;
use super::pieces::{Content, Piece};

/// Writes it and returns its path.
pub(super) fn write(out: &Path, release: &Release, pieces: &[Piece]) -> anyhow::Result<PathBuf> {
    let top = format!("retcd-{}-linux-{}", release.version, release.architecture);
    let path = out.join(format!("{top}.tar.gz"));
    let file = BufWriter::new(File::create(&path)?);
    let mut archive = Builder::new(GzBuilder::new().mtime(0).write(file, Compression::default()));
    let named: BTreeMap<String, &Piece> = pieces
        .iter()
        .filter_map(|piece| Some((format!("{top}/{}", piece.archive.as_ref()?), piece)))
        .collect();
    let folders: BTreeSet<&str> = named.keys().flat_map(|path| folders_above(path)).collect();
    for folder in folders {
        let header = header(release, EntryType::Directory, 0o755, 0);
        append(&mut archive, header, &format!("{folder}/"), std::io::empty())?;
    }
    for (path, piece) in named {
        let of = |len| header(release, EntryType::Regular, piece.mode, len);
        match &piece.content {
            Content::Bytes(bytes) => {
                append(&mut archive, of(bytes.len().try_into()?), &path, bytes.as_slice())?;
            }
            Content::File(program) => {
                let program = File::open(program)?;
                append(&mut archive, of(program.metadata()?.len()), &path, program)?;
            }
        }
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(path)
}

/// `a` and `a/b` of `a/b/c`.
fn folders_above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn header(release: &Release, kind: EntryType, mode: u32, len: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(release.time_seconds);
    header.set_size(len);
    header
}

fn append(
    archive: &mut Builder<impl std::io::Write>,
    mut header: Header,
    path: &str,
    content: impl Read,
) -> anyhow::Result<()> {
    header.set_username("root")?;
    header.set_groupname("root")?;
    archive.append_data(&mut header, path, content)?;
    Ok(())
}
