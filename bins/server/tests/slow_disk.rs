//! One member's disk is a hundred times slower than the others': the cluster goes on, and nothing is
//! lost.
//!
//! The disk is a file behind a loop device with a file system of its own, so that nobody else waits
//! for it, and the kernel lets the member's process write to it only so many times a second. Where
//! the machine does not allow that, the tests say so and pass.

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use retcd_conformance::cluster::{Cluster, ClusterOptions, Load, LoadOptions};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// A sync is two or three of these.
const WRITES_PER_SECOND: u32 = 30;

const DISK_BYTES: &str = "768M";

/// Answers under the fault that show that the cluster serves.
const ANSWERS: usize = 100;

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A mounted disk of one member's.
struct Disk {
    folder: PathBuf,
    _image: tempfile::TempDir,
}

impl Disk {
    /// Puts a new disk under the folder of a member that is down, with what the folder holds. `None`
    /// where that is not allowed.
    fn under(folder: &Path) -> anyhow::Result<Option<Self>> {
        let place = tempfile::tempdir()?;
        let image = place.path().join("image");
        let (image, to) = (image.to_str().context("a name")?, folder.to_str().context("a name")?);
        let mount = place.path().join("mount");
        fs::create_dir(&mount)?;
        let from = mount.to_str().context("a name")?;
        let made = succeeds("truncate", &["-s", DISK_BYTES, image])
            && succeeds("mkfs.ext4", &["-q", "-F", image])
            && succeeds("mount", &["-o", "loop", image, from]);
        if !made {
            return Ok(None);
        }
        let moved = succeeds("cp", &["-a", &format!("{to}/."), from])
            && succeeds("mount", &["--bind", from, to]);
        ensure!(succeeds("umount", &["--lazy", from]), "cannot unmount {from}");
        Ok(moved.then(|| Self { folder: folder.to_owned(), _image: place }))
    }

    /// Major and minor number of the device.
    fn device(&self) -> anyhow::Result<String> {
        let number = fs::metadata(&self.folder)?.dev();
        let major = ((number >> 8) & 0xfff) | ((number >> 32) & !0xfff);
        let minor = (number & 0xff) | ((number >> 12) & !0xff);
        Ok(format!("{major}:{minor}"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since the member still runs.
        let folder = self.folder.display().to_string();
        if !succeeds("umount", &["--lazy", &folder]) {
            println!("{folder} stays mounted");
        }
    }
}

/// A group of processes that may write only so often.
struct Throttle {
    group: PathBuf,
    /// Where processes are put back.
    root: PathBuf,
    limit: PathBuf,
    /// What takes the limit away.
    none: String,
}

impl Throttle {
    /// `None` where no such group can be made, by either of the kernel's two interfaces.
    fn of(device: &str) -> Option<Self> {
        let name = format!("retcd-{}-{}", std::process::id(), device.replace(':', "-"));
        let older = Path::new("/sys/fs/cgroup/blkio");
        let newer = Path::new("/sys/fs/cgroup");
        let ways = [
            (older, "blkio.throttle.write_iops_device", "", "0"),
            (newer, "io.max", "wiops=", "wiops=max"),
        ];
        ways.into_iter().find_map(|(root, file, prefix, none)| {
            if root == newer {
                // Who may not is told by the missing file.
                let _told = fs::write(root.join("cgroup.subtree_control"), "+io");
            }
            let group = root.join(&name);
            fs::create_dir(&group).ok()?;
            let limit = group.join(file);
            let none = format!("{device} {none}");
            let throttle = Self { group, root: root.to_owned(), limit, none };
            let limit = format!("{device} {prefix}{WRITES_PER_SECOND}");
            fs::write(&throttle.limit, limit).ok()?;
            Some(throttle)
        })
    }

    fn slow_down(&self, process: u32) -> std::io::Result<()> {
        fs::write(self.group.join("cgroup.procs"), process.to_string())
    }

    fn end(&self) -> std::io::Result<()> {
        fs::write(&self.limit, &self.none)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        let processes = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for process in processes.lines() {
            // One that ended meanwhile is in no group.
            let _put = fs::write(self.root.join("cgroup.procs"), process);
        }
        if let Err(error) = fs::remove_dir(&self.group) {
            println!("{} stays: {error}", self.group.display());
        }
    }
}

/// Mean time of a sync of the log so far, by the member's own measure.
async fn sync_time(cluster: &Cluster, number: usize) -> anyhow::Result<(f64, f64)> {
    let metrics = cluster.metrics(number).await?;
    let value = |suffix: &str| {
        let name = format!("etcd_disk_wal_fsync_duration_seconds_{suffix} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or_default()
    };
    Ok((value("sum"), value("count")))
}

/// Writes, reads and watches while one member's disk is slow; `is_leader` says whose.
async fn with_a_slow_disk(is_leader: bool) -> anyhow::Result<()> {
    let flags = vec!["--snapshot-count=1000".to_owned()];
    let options = ClusterOptions { flags, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(&[Path::new(OURS); 3], options).await?;
    let slow = (cluster.await_leader(&[]).await? + 1) % 3;
    cluster.stop(slow).await?;
    let folder = cluster.member(slow).data_dir();
    let folder = folder.parent().context("a folder around it")?;
    let Some(disk) = Disk::under(folder)? else {
        println!("skipped: no loop device can be mounted here");
        return Ok(());
    };
    let Some(throttle) = Throttle::of(&disk.device()?) else {
        println!("skipped: the kernel's limits of writing cannot be set here");
        return Ok(());
    };
    cluster.restart(slow)?;
    cluster.await_serving(slow).await?;
    if is_leader {
        cluster.move_leader(slow).await?;
    }
    let load = Load::start(&cluster, LoadOptions::default()).await?;
    load.await_answers(&cluster, ANSWERS).await?;
    let (sum_before, count_before) = sync_time(&cluster, slow).await?;
    throttle.slow_down(cluster.member(slow).pid())?;
    for _ in 0..5 {
        load.await_answers(&cluster, ANSWERS).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (sum, count) = sync_time(&cluster, slow).await?;
    println!(
        "a sync took {:.4} s before, {:.4} s then",
        sum_before / count_before.max(1.0),
        (sum - sum_before) / (count - count_before).max(1.0)
    );
    throttle.end()?;
    load.await_answers(&cluster, ANSWERS).await?;
    let verdict = cluster.finish(load).await?;
    println!("{:?}", verdict.report);
    drop((throttle, disk));
    Ok(())
}

/// D25, G15.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_slow_disk_holds_nobody_up() -> anyhow::Result<()> {
    with_a_slow_disk(false).await
}

/// D25, G15: the followers' syncs are enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_slow_disk_loses_nothing() -> anyhow::Result<()> {
    with_a_slow_disk(true).await
}
