//! The install script of the first document (SEED0-53 to SEED0-59, SEED1-06, SEED3-14), and what `yum`
//! lays down for the second (SEED1-02): unit file, environment file and user, in a root folder of the
//! test's own, started as systemd would.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use retcd_conformance::service::{self, Service};

use crate::own_network::{Members, enter};
use crate::{OURS, PATIENCE, curl, eventually, is_healthy, json, signal};

/// SEED0-53.
const UNIT: &str = "[Unit]\n\
    Description=etcd - highly-available key value store\n\
    After=network.target\n\
    [Service]\n\
    Environment=DAEMON_ARGS=\n\
    Environment=ETCD_NAME=%H\n\
    Environment=ETCD_DATA_DIR=/var/lib/etcd/default\n\
    EnvironmentFile=-/etc/default/%p\n\
    Type=notify\n\
    User=etcd\n\
    PermissionsStartOnly=true\n\
    ExecStart=/usr/bin/etcd $DAEMON_ARGS\n\
    Restart=on-abnormal\n\
    LimitNOFILE=65536\n\
    [Install]\n\
    WantedBy=multi-user.target\n\
    Alias=etcd3.service\n";

/// SEED0-54, with the empty value of SEED0-55.
const DEFAULTS: &str = "ETCD_NAME=\"ubuntu\"\n\
    ETCD_DATA_DIR=\"/var/lib/etcd/\"\n\
    ETCD_LISTEN_PEER_URLS=\"http://192.168.75.129:2380\"\n\
    ETCD_LISTEN_CLIENT_URLS=\"http://192.168.75.129:2379,http://127.0.0.1:4001\"\n\
    ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://192.168.75.129:2380\"\n\
    ETCD_INITIAL_CLUSTER=\"\"\n\
    ETCD_INITIAL_CLUSTER_STATE=\"new\"\n\
    ETCD_INITIAL_CLUSTER_TOKEN=\"etcd-cluster-sdn\"\n\
    ETCD_ADVERTISE_CLIENT_URLS=\"http://192.168.75.129:2379\"\n";

/// The script's user and group.
const UID: u32 = 217;
const GID: u32 = 111;

/// The unit, below the root.
const UNIT_FILE: &str = "lib/etcd.service";

/// A root folder with the program, what it needs to run, and the script's files.
struct Root {
    path: PathBuf,
    /// Whether the user can be another one here.
    has_users: bool,
}

impl Root {
    fn make(path: &Path) -> anyhow::Result<Self> {
        let make = |folder: &str| fs::create_dir_all(path.join(folder));
        for folder in ["usr/bin", "etc/default", "var/lib/etcd", "run", "tmp", "lib", "dev", "proc"]
        {
            make(folder)?;
        }
        fs::copy(OURS, path.join("usr/bin/etcd"))?;
        service::copy_libraries(Path::new(OURS), path)?;
        fs::write(path.join(UNIT_FILE), UNIT)?;
        fs::write(path.join("etc/default/etcd"), DEFAULTS)?;
        fs::write(
            path.join("etc/passwd"),
            format!("etcd:x:{UID}:{GID}::/var/lib/etcd:/bin/false\n"),
        )?;
        fs::write(path.join("etc/group"), format!("etcd:x:{GID}:\n"))?;
        let owner = format!("{UID}:{GID}");
        let owned = Command::new("chown").arg(owner).arg(path.join("var/lib/etcd")).status()?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, mode.clone())?;
        fs::set_permissions(path.join("run"), mode)?;
        Ok(Self { path: path.to_owned(), has_users: owned.success() })
    }

    /// Starts the unit and waits until it says that it is ready.
    fn start(&self, members: &mut Members) -> anyhow::Result<()> {
        let service = Service::read(&self.path, UNIT_FILE)?;
        let (command, readiness) = service.command(self.has_users)?;
        let log = self.path.join("log");
        members.start(command, &log)?;
        readiness.wait(PATIENCE).with_context(|| fs::read_to_string(log).unwrap_or_default())
    }
}

/// SEED0-53 to SEED0-59, SEED0-48 (the id), SEED1-06, SEED3-14.
#[test]
fn the_install_script_works() -> anyhow::Result<()> {
    let test = "seeds_install::the_install_script_works";
    if !enter(test, &["192.168.75.129"])? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let root = Root::make(&folder.path().join("root"))?;
    let mut members = Members::default();
    root.start(&mut members)?;
    for address in ["192.168.75.129:2379", "127.0.0.1:4001"] {
        ensure!(is_healthy(address), "{address} does not serve");
    }
    // SEED0-57: at the port for other members.
    let version = curl("GET", "192.168.75.129:2380/version", "")?;
    ensure!(json(&version.body)?["etcdcluster"].is_string(), "{version:?}");
    let list = json(&curl("GET", "127.0.0.1:4001/v2/members", "")?.body)?;
    let member = &list["members"][0];
    ensure!(member["id"] == "1d64cbbe0759c8f8" && member["name"] == "ubuntu", "{list}");
    ensure!(member["clientURLs"] == serde_json::json!(["http://192.168.75.129:2379"]), "{list}");
    let data = root.path.join("var/lib/etcd");
    if root.has_users {
        // SEED0-58.
        let files = [data.join("member"), data.join("member/snap/db"), data.join("member/wal")];
        for file in files {
            let found = fs::metadata(&file)?;
            ensure!((found.uid(), found.gid()) == (UID, GID), "{}", file.display());
        }
    } else {
        println!("the unit runs as this user: the machine gives no others here");
    }
    let mode = fs::metadata(data.join("member"))?.permissions().mode() & 0o777;
    ensure!(mode == 0o700, "{mode:o}");

    // SEED0-59: `rm -rf /var/lib/etcd/member/*`, and a restart.
    curl("PUT", "127.0.0.1:4001/v2/keys/a", "value=x")?;
    let child = members.0.last_mut().context("it runs")?;
    signal(child, "TERM")?;
    child.wait()?;
    for entry in fs::read_dir(data.join("member"))? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    root.start(&mut members)?;
    eventually("it is empty", || {
        curl("GET", "127.0.0.1:4001/v2/keys/a", "").is_ok_and(|answer| answer.status == 404)
    })
}

/// SEED1-02: the unit as that distribution has it, and its file of settings.
const YUM_UNIT: &str = "[Unit]\n\
    Description=Etcd Server\n\
    After=network.target\n\
    [Service]\n\
    Type=notify\n\
    WorkingDirectory=/var/lib/etcd/\n\
    EnvironmentFile=-/etc/etcd/etcd.conf\n\
    User=etcd\n\
    ExecStart=/usr/bin/etcd\n\
    Restart=on-failure\n\
    LimitNOFILE=65536\n\
    [Install]\n\
    WantedBy=multi-user.target\n";

/// The document's settings for one of its machines, alone.
const YUM_SETTINGS: &str = "#[Member]\n\
    ETCD_DATA_DIR=\"/var/lib/etcd/etcd-cluster\"\n\
    ETCD_LISTEN_PEER_URLS=\"http://192.168.75.129:2380\"\n\
    ETCD_LISTEN_CLIENT_URLS=\"http://192.168.75.129:2379,http://127.0.0.1:2379\"\n\
    ETCD_NAME=\"master\"\n\
    #[Clustering]\n\
    ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://192.168.75.129:2380\"\n\
    ETCD_ADVERTISE_CLIENT_URLS=\"http://192.168.75.129:2379\"\n\
    ETCD_INITIAL_CLUSTER=\"master=http://192.168.75.129:2380\"\n\
    ETCD_INITIAL_CLUSTER_TOKEN=\"etcd-cluster\"\n\
    ETCD_INITIAL_CLUSTER_STATE=\"new\"\n";

/// SEED1-02: our program in the place of the one that `yum install etcd` lays down.
#[test]
fn the_program_serves_in_the_place_of_yums() -> anyhow::Result<()> {
    let test = "seeds_install::the_program_serves_in_the_place_of_yums";
    if !enter(test, &["192.168.75.129"])? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let root = Root::make(&folder.path().join("root"))?;
    fs::write(root.path.join(UNIT_FILE), YUM_UNIT)?;
    fs::create_dir_all(root.path.join("etc/etcd"))?;
    fs::write(root.path.join("etc/etcd/etcd.conf"), YUM_SETTINGS)?;
    let mut members = Members::default();
    root.start(&mut members)?;
    ensure!(is_healthy("192.168.75.129:2379") && is_healthy("127.0.0.1:2379"));
    let list = json(&curl("GET", "127.0.0.1:2379/v2/members", "")?.body)?;
    ensure!(list["members"][0]["name"] == "master", "{list}");
    ensure!(root.path.join("var/lib/etcd/etcd-cluster/member").is_dir());
    Ok(())
}
