//! `snapshot restore`: reads the flags for [`Restore`].
//!
//! etcd: `etcdutl/etcdutl/snapshot_command.go`.

use cli::exit::Failure;
use cli::flag::{Flag, Kind};

use super::Command;
use crate::call::Call;
use crate::cluster::{Founders, FoundersError};
use crate::database;
use crate::restore::Restore;

pub(crate) fn command() -> Command {
    let use_line = "restore <filename> --data-dir {output dir} [options]";
    Command::new(use_line, "Restores an etcd member snapshot to an etcd directory")
        .flags(flags())
        .run(run)
}

fn flags() -> [Flag; 10] {
    [
        Flag::text("data-dir", "Path to the output data directory"),
        Flag::text("wal-dir", "Path to the WAL directory (use --data-dir if none given)"),
        Flag::text("initial-cluster", "Initial cluster configuration for restore bootstrap")
            .or("default=http://localhost:2380"),
        Flag::text(
            "initial-cluster-token",
            "Initial cluster token for the etcd cluster during restore bootstrap",
        )
        .or("etcd-cluster"),
        Flag::text(
            "initial-advertise-peer-urls",
            "List of this member's peer URLs to advertise to the rest of the cluster",
        )
        .or("http://localhost:2380"),
        Flag::text("name", "Human-readable name for this member").or("default"),
        Flag::bool(
            "skip-hash-check",
            "Ignore snapshot integrity hash value (required if copied from data directory)",
        ),
        Flag::new(
            "initial-memory-map-size",
            Kind::Uint,
            "10737418240",
            "Initial memory map size of the database in bytes. It uses the default value if not \
             defined or defined to 0",
        ),
        Flag::new(
            "bump-revision",
            Kind::Uint,
            "0",
            "How much to increase the latest revision after restore",
        ),
        Flag::bool(
            "mark-compacted",
            "Mark the latest revision after restore as the point of scheduled compaction (required \
             if --bump-revision > 0, disallowed otherwise)",
        ),
    ]
}

fn run(call: &Call) -> Result<(), Failure> {
    let snapshot = call.file("snapshot restore requires exactly one argument")?;
    let flags = &call.flags;
    let bump_revision = Some(flags.uint("bump-revision")).filter(|amount| 0 < *amount);
    if bump_revision.is_some() != flags.bool("mark-compacted") {
        return Err(Failure::bad_arguments("--mark-compacted required if --revision-bump > 0"));
    }
    let name = flags.text("name");
    let data_dir = match flags.text("data-dir") {
        "" => format!("{name}.etcd").into(),
        _ => call.folder("data-dir"),
    };
    let wal_dir = match flags.text("wal-dir") {
        "" => data_dir.join("member").join("wal"),
        _ => call.folder("wal-dir"),
    };
    let founders = Founders::read(
        name,
        flags.text("initial-advertise-peer-urls"),
        flags.text("initial-cluster"),
        flags.text("initial-cluster-token"),
    );
    let founders = founders.map_err(|error| {
        let hint = hint(call).filter(|_| matches!(error, FoundersError::Cluster(_)));
        let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        Failure::error(format!("{error}{hint}"))
    })?;
    let restore = Restore {
        snapshot,
        data_dir,
        wal_dir,
        founders,
        skip_hash_check: flags.bool("skip-hash-check"),
        bump_revision,
        lock_timeout: call.lock_timeout(),
        memory_map_bytes: flags.uint("initial-memory-map-size"),
    };
    restore.run().map_err(|error| database::failure(&error))?;
    if let Some(hint) = hint(call) {
        eprintln!("hint: {hint}");
    }
    Ok(())
}

/// What people stumble over who do not say whose member they restore (SEEDX-04). Those who set
/// `ETCDCTL_API` want exactly what the original prints.
fn hint(call: &Call) -> Option<String> {
    let is_exact = std::env::var_os("ETCDCTL_API").is_some_and(|api| !api.is_empty());
    let name = call.flags.text("name");
    if is_exact || call.flags.is_changed("initial-cluster") {
        return None;
    }
    Some(if call.flags.is_changed("name") {
        format!(
            "--name {name} alone leaves the cluster \"default=http://localhost:2380\"; give \
             --initial-cluster {name}=URL and --initial-advertise-peer-urls URL as well, with the \
             URL that the other members reach it at"
        )
    } else {
        "restored as the only member of a new cluster, \"default\" at http://localhost:2380, \
         because --name, --initial-cluster and --initial-advertise-peer-urls were not given; a \
         member that is started with other ones does not know this directory"
            .to_owned()
    })
}
