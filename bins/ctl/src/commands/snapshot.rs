//! `snapshot save`: copies a member's backend to a file.
//!
//! The file appears under its name only when it is whole and on disk.
//!
//! etcd: `etcdctl/ctlv3/command/snapshot_command.go`, `client/v3/snapshot/v3_snapshot.go`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cli::exit::{ExitCode, Failure};
use client::Client;

use super::{Command, MAINTENANCE};
use crate::call::Call;
use crate::terminal::{progress_bar, say};

const EXAMPLE: &str = "  # Save snapshot to a given file
  etcdctl snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address and save it to file
  etcdctl snapshot save --endpoints=127.0.0.1:3000 /backup/etcd-snapshot.db
  
  # Get snapshot from given address with certificates
  etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/ca.crt --cert=/etc/etcd/etcd.crt \
--key=/etc/etcd/etcd.key snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot with certain user and password
  etcdctl --user=root --password=password123 snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address with timeout
  etcdctl --endpoints=https://127.0.0.1:2379 --dial-timeout=20s snapshot save \
/backup/etcd-snapshot.db
  
  # Save snapshot with desirable time format
  etcdctl snapshot save /mnt/backup/etcd/backup_$(date +%Y%m%d_%H%M%S).db";

const PROGRESS: &str = "{bytes}/{total_bytes} {bar:40} {bytes_per_sec}";

/// A backend is a whole number of sectors; behind it comes its SHA-256.
const SECTOR_BYTES: u64 = 512;
const SHA256_BYTES: u64 = 32;

/// A backup holds everything: nobody else may read it.
const MODE: u32 = 0o600;

pub(crate) fn command() -> Command {
    let mut snapshot = Command::new("snapshot <subcommand>", "Manages etcd node snapshots")
        .group(MAINTENANCE)
        .subcommands([save_command()])
        .elsewhere(&[
            ("restore", "`etcdutl snapshot restore`"),
            ("status", "`etcdutl snapshot status`"),
        ]);
    snapshot.example = EXAMPLE;
    snapshot
}

fn save_command() -> Command {
    let short = "Stores an etcd node backend snapshot to a given file";
    let mut save = Command::new("save <filename>", short).run(|call| Box::pin(save(call)));
    save.example = EXAMPLE;
    save
}

async fn save(mut call: Call) -> Result<(), Failure> {
    if call.arguments.len() != 1 {
        return Err(Failure::bad_arguments("snapshot save expects one argument <filename>"));
    }
    let path = PathBuf::from(call.text(0));
    let globals = call.globals().await?;
    // Unless told otherwise a snapshot may take as long as it takes.
    let timeout = globals.is_command_timeout_given.then_some(globals.command_timeout);
    let options = globals.client.with_command_timeout(timeout);
    let saved = save_to(options, &path).await;
    let version = saved.map_err(|message| Failure::new(ExitCode::Interrupted, message))?;
    say!("Snapshot saved at {}", path.display());
    if !version.is_empty() {
        say!("Server version {version}");
    }
    Ok(())
}

/// Returns the server's version, or what went wrong.
async fn save_to(options: client::Options, path: &Path) -> Result<String, String> {
    if options.endpoints.len() != 1 {
        let endpoints = options.endpoints.join(" ");
        let message = "snapshot must be requested to one selected node, not multiple";
        return Err(format!("{message} [{endpoints}]"));
    }
    let timeout = options.command_timeout;
    let client = Client::connect(options).await.map_err(|error| error.to_string())?;
    let mut part_name = path.as_os_str().to_owned();
    part_name.push(".part");
    let part = PathBuf::from(part_name);
    let fetch = fetch(&client, &part);
    let result = match timeout {
        None => fetch.await,
        Some(timeout) => tokio::time::timeout(timeout, fetch)
            .await
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned())),
    };
    let result = result.and_then(|version| {
        std::fs::rename(&part, path).map_err(|error| {
            format!("could not rename {} to {} ({error})", part.display(), path.display())
        })?;
        Ok(version)
    });
    if result.is_err() {
        // Nothing to do if it is not there.
        std::fs::remove_file(&part).ok();
    }
    result
}

async fn fetch(client: &Client, part: &Path) -> Result<String, String> {
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(MODE).open(part).map_err(|error| {
            let why = cli::os::path_error("open", part, &error);
            format!("could not open {} ({why})", part.display())
        })?;
    let mut stream = client.snapshot().await.map_err(|error| error.to_string())?;
    let mut size = 0_u64;
    let progress = progress_bar(0, PROGRESS);
    while let Some(piece) = stream.next().await.map_err(|error| {
        if size == 0 { error.to_string() } else { format!("could not write snapshot: {error}") }
    })? {
        write(&mut file, part, &piece)?;
        size += piece.len() as u64;
        progress.set_length(size + stream.remaining_bytes());
        progress.set_position(size);
    }
    progress.finish_and_clear();
    if size % SECTOR_BYTES != SHA256_BYTES {
        return Err(format!("sha256 checksum not found [bytes: {size}]"));
    }
    file.sync_all().map_err(|error| format!("could not fsync snapshot: {error}"))?;
    Ok(stream.version().to_owned())
}

fn write(file: &mut File, path: &Path, piece: &[u8]) -> Result<(), String> {
    file.write_all(piece).map_err(|error| {
        let why = cli::os::path_error("write", path, &error);
        format!("could not write snapshot: {why}")
    })
}
