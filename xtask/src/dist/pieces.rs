//! What the packages hold, and where each of them has it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use flate2::{Compression, GzBuilder};

use super::{PROGRAMS, ask, notice};

/// A file of a package.
#[derive(Debug)]
pub(super) struct Piece {
    /// Its path in the archive, below the archive's one folder.
    pub(super) archive: Option<String>,
    /// Its path in a system, without the first slash.
    pub(super) system: Option<String>,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// A program; too big to hold.
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// Files of the sources that go into packages as they are: source, in the archive, in a system.
const FILES: [(&str, &str, &str); 7] = [
    ("packaging/etcd.service", "etcd.service", "usr/lib/systemd/system/etcd.service"),
    ("packaging/etcd.default", "etcd.default", "etc/default/etcd"),
    ("packaging/README.md", "README.md", "usr/share/doc/retcd/README"),
    ("packaging/copyright", "copyright", "usr/share/doc/retcd/copyright"),
    ("LICENSE", "LICENSE", "usr/share/doc/retcd/LICENSE"),
    (
        "monitoring/dashboard.json",
        "monitoring/dashboard.json",
        "usr/share/doc/retcd/dashboard.json",
    ),
    ("monitoring/alerts.yaml", "monitoring/alerts.yaml", "usr/share/doc/retcd/alerts.yaml"),
];

/// Collects everything; programs are asked for their pages and completions.
pub(super) fn gather(programs: &Path) -> anyhow::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for program in PROGRAMS {
        let path = programs.join(program);
        let page = compress(&ask(&path, &["__man"])?)?;
        let page_name = format!("man/man1/{program}.1.gz");
        pieces.push(Piece {
            archive: Some(program.to_owned()),
            system: Some(format!("usr/bin/{program}")),
            mode: 0o755,
            content: Content::File(path),
        });
        let system = format!("usr/share/{page_name}");
        pieces.push(text(Some(page_name), Some(system), page));
    }
    for tool in ["etcdctl", "etcdutl"] {
        let places = [
            ("bash", tool.to_owned(), "usr/share/bash-completion/completions"),
            ("zsh", format!("_{tool}"), "usr/share/zsh/vendor-completions"),
            ("fish", format!("{tool}.fish"), "usr/share/fish/vendor_completions.d"),
        ];
        for (shell, name, folder) in places {
            let script = ask(&programs.join(tool), &["completion", shell])?;
            let archive = format!("completions/{shell}/{name}");
            pieces.push(text(Some(archive), Some(format!("{folder}/{name}")), script));
        }
    }
    for (source, archive, system) in FILES {
        pieces.push(text(Some(archive.to_owned()), Some(system.to_owned()), read(source)?));
    }
    let notice = notice::text().context("telling whose the libraries are")?;
    let (archive, system) = ("LIBRARIES.txt", "usr/share/doc/retcd/LIBRARIES");
    pieces.push(text(Some(archive.to_owned()), Some(system.to_owned()), notice));
    let changes = read("CHANGELOG.md")?;
    let compressed = compress(&changes)?;
    let system = "usr/share/doc/retcd/changelog.gz".to_owned();
    pieces.push(text(None, Some(system), compressed));
    pieces.push(text(Some("CHANGELOG.md".to_owned()), None, changes));
    Ok(pieces)
}

fn text(archive: Option<String>, system: Option<String>, bytes: Vec<u8>) -> Piece {
    Piece { archive, system, mode: 0o644, content: Content::Bytes(bytes) }
}

/// A file of the sources.
pub(super) fn read(source: &str) -> anyhow::Result<Vec<u8>> {
    fs::read(crate::root().join(source)).with_context(|| format!("reading {source}"))
}

/// As `gzip -9n`: no name and no time in it.
fn compress(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}
