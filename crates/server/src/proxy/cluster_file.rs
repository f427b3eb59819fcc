//! The members' peer URLs as a proxy knew them last: `proxy/cluster`, JSON as etcd writes it
//! (SRV-172).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    #[serde(rename = "PeerURLs", default)]
    peer_urls: Option<Vec<String>>,
}

/// The file.
#[derive(Debug)]
pub(super) struct ClusterFile {
    path: PathBuf,
}

impl ClusterFile {
    /// Makes the folder if it is not there; the error is with its path.
    pub(super) fn open(folder: PathBuf) -> Result<Self, (String, io::Error)> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| (folder.display().to_string(), error))?;
        Ok(Self { path: folder.join("cluster") })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, if there is one.
    pub(super) fn read(&self) -> io::Result<Option<Vec<String>>> {
        match fs::read(&self.path) {
            Ok(text) => {
                let content: Content = serde_json::from_slice(&text)?;
                Ok(Some(content.peer_urls.unwrap_or_default()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts other URLs in its place, durably.
    pub(super) fn write(&self, peer_urls: &[String]) -> io::Result<()> {
        let content = Content { peer_urls: Some(peer_urls.to_vec()) };
        let staged = self.path.with_extension("bak");
        let options = File::options().write(true).create(true).truncate(true).mode(0o600).clone();
        let mut file = options.open(&staged)?;
        file.write_all(&serde_json::to_vec(&content)?)?;
        file.sync_all()?;
        fs::rename(&staged, &self.path)?;
        let folder = self.path.parent().expect("the file is in the proxy's folder");
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-172.
    #[test]
    fn urls_are_kept_as_etcd_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = ClusterFile::open(folder.path().join("data/proxy")).unwrap();
        assert_eq!(file.read().unwrap(), None);
        let urls = ["http://a:1".to_owned(), "http://b:2".to_owned()];
        file.write(&urls).unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "{\"PeerURLs\":[\"http://a:1\",\"http://b:2\"]}");
        file.write(&urls[1..]).unwrap();
        assert_eq!(file.read().unwrap().unwrap(), urls[1..]);
        fs::write(file.path(), "{").unwrap();
        assert!(file.read().is_err());
    }
}
