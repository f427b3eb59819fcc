//! The Debian package, laid out here and packed by `dpkg-deb`.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::Release;
use super::pieces::{Content, Piece, read};

/// Run by dpkg when the package is installed, removed, purged.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Writes it and returns its path.
pub(super) fn write(out: &Path, release: &Release, pieces: &[Piece]) -> anyhow::Result<PathBuf> {
    let Release { version, architecture, .. } = release;
    let path = out.join(format!("retcd_{version}_{architecture}.deb"));
    let stage = out.join("stage");
    clear(&stage)?;
    let mut len = 0;
    let mut libc_minor = 0;
    for piece in pieces {
        let Some(system) = &piece.system else { continue };
        let target = stage.join(system);
        match &piece.content {
            Content::Bytes(bytes) => put(&target, bytes, piece.mode)?,
            Content::File(program) => {
                libc_minor = libc_minor.max(libc_minor_of(program)?);
                make_folder_of(&target)?;
                fs::copy(program, &target)?;
                fs::set_permissions(&target, Permissions::from_mode(piece.mode))?;
            }
        }
        len += fs::metadata(&target)?.len();
    }
    let control = String::from_utf8(read("packaging/debian/control.in")?)?
        .replace("@version@", version)
        .replace("@architecture@", architecture)
        .replace("@compatible@", &release.compatible)
        .replace("@libc@", &format!("2.{libc_minor}"))
        .replace("@installed_kib@", &len.div_ceil(1024).to_string());
    let about = stage.join("DEBIAN");
    put(&about.join("control"), control.as_bytes(), 0o644)?;
    put(&about.join("conffiles"), b"/etc/default/etcd\n", 0o644)?;
    for script in SCRIPTS {
        put(&about.join(script), &read(&format!("packaging/debian/{script}"))?, 0o755)?;
    }
    open_folders(&stage)?;
    pack(&stage, &path, release)?;
    clear(&stage)?;
    Ok(path)
}

fn pack(stage: &Path, path: &Path, release: &Release) -> anyhow::Result<()> {
    // gzip, since what the newer compressors write depends on the number of processors.
    let packed = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zgzip", "-z6", "--build"])
        .args([stage, path])
        .env("SOURCE_DATE_EPOCH", release.time_seconds.to_string())
        .output();
    let output = match packed {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no dpkg-deb on this machine; install the package dpkg")
        }
        other => other.context("running dpkg-deb")?,
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "dpkg-deb ended with {}: {complaint}", output.status);
    Ok(())
}

/// The newest `GLIBC_2.N` that a program asks for.
fn libc_minor_of(program: &Path) -> anyhow::Result<u32> {
    let mut newest = 0;
    for text in BufReader::new(File::open(program)?).split(0) {
        let text = text?;
        let minor = text.strip_prefix(b"GLIBC_2.").map(|rest| {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
            digits.fold(0_u32, |sum, byte| sum.saturating_mul(10) + u32::from(byte - b'0'))
        });
        newest = newest.max(minor.unwrap_or(0));
    }
    Ok(newest)
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    make_folder_of(path)?;
    fs::write(path, bytes)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn make_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Whatever this user's mask says, everybody may enter and list the package's folders.
fn open_folders(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            open_folders(&path)?;
        }
    }
    Ok(())
}

fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
