//! The data folder before anything is opened in it: is it ours, and can it be written?
//!
//! Source: etcd server/etcdmain/etcd.go (what a folder holds), client/pkg/fileutil (the probe).

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::notice::Notice;
use super::refusal::Refusal;

/// What a data folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDir {
    /// Nothing yet.
    Empty,
    /// A member's files.
    Member,
    /// A proxy's file.
    Proxy,
}

/// Makes the folder if need be (mode 0700) and looks into it.
///
/// # Errors
///
/// [`Refusal::DataDir`] if it cannot be made, listed or written, [`Refusal::MemberAndProxy`] if both
/// used it.
pub fn open_data_dir(path: &Path) -> Result<(DataDir, Vec<Notice>), Refusal> {
    let refuse = |source| Refusal::DataDir {
        path: path.to_owned(),
        uid: fs::metadata("/proc/self").ok().map(|process| process.uid()),
        source,
    };
    let existed = path.is_dir();
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refuse)?;
    for made in missing {
        sync_name(made).map_err(refuse)?;
    }
    probe(path).map_err(refuse)?;
    let mut notices = Vec::new();
    let (mut member, mut proxy) = (false, false);
    for entry in fs::read_dir(path).map_err(refuse)? {
        let name = entry.map_err(refuse)?.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            "member" => member = true,
            "proxy" => proxy = true,
            _ => notices.push(
                Notice::warn("found invalid file under data directory")
                    .with("filename", name)
                    .with("data-dir", path.display().to_string()),
            ),
        }
    }
    if member && proxy {
        return Err(Refusal::MemberAndProxy(path.to_owned()));
    }
    if existed {
        notices.extend(permission_notice(path));
    }
    let found = match (member, proxy) {
        (true, _) => DataDir::Member,
        (false, true) => DataDir::Proxy,
        (false, false) => DataDir::Empty,
    };
    Ok((found, notices))
}

/// Makes the name of a new folder durable: a power cut must not take it with all that is in it.
/// Who may make a folder somewhere but not read there has to do without.
fn sync_name(made: &Path) -> io::Result<()> {
    let around = made.parent().filter(|around| !around.as_os_str().is_empty());
    match fs::File::open(around.unwrap_or_else(|| Path::new("."))) {
        Ok(around) => around.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes and removes an empty file.
fn probe(path: &Path) -> io::Result<()> {
    let file = path.join(".touch");
    fs::write(&file, [])?;
    fs::remove_file(&file)
}

fn permission_notice(path: &Path) -> Option<Notice> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        Notice::warn("check file permission").with(
            "error",
            format!(
                "directory \"{}\" exist, but the permission is \"{}\". The recommended permission is \"-rwx------\" to prevent possible unprivileged access to the data",
                path.display(),
                mode_text(mode)
            ),
        )
    })
}

/// `drwxr-xr-x` of 0o755.
fn mode_text(mode: u32) -> String {
    let letters = (0..9).map(|bit| {
        let set = mode & (0o400 >> bit) != 0;
        if set { ['r', 'w', 'x'][bit % 3] } else { '-' }
    });
    std::iter::once('d').chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_is_made_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/default.etcd");
        assert_eq!(open_data_dir(&path).unwrap(), (DataDir::Empty, Vec::new()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir(path.join("member")).unwrap();
        assert_eq!(open_data_dir(&path).unwrap(), (DataDir::Member, Vec::new()));
    }

    /// SRV-035.
    #[test]
    fn a_folder_is_a_members_or_a_proxys() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("proxy")).unwrap();
        assert_eq!(open_data_dir(folder.path()).unwrap().0, DataDir::Proxy);
        fs::create_dir(folder.path().join("member")).unwrap();
        let both = open_data_dir(folder.path()).unwrap_err();
        assert_eq!(both.to_string(), "invalid datadir; both member and proxy directories exist");
    }

    /// SRV-035, B16.
    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, []).unwrap();
        let refused = open_data_dir(&file.join("data")).unwrap_err();
        assert!(refused.to_string().starts_with("cannot access data directory: "), "{refused}");
        assert!(refused.remedy().contains("mode 0700"), "{}", refused.remedy());
    }

    #[test]
    fn an_open_folder_is_told_about() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (_, notices) = open_data_dir(folder.path()).unwrap();
        assert!(notices[0].fields[0].1.to_string().contains("drwxr-xr-x"), "{notices:?}");
    }
}
