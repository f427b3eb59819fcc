//! `hashkv`: the hash over the history of keys that members compare, from a file.
//!
//! etcd: `etcdutl/etcdutl/hashkv_command.go`.

use cli::exit::Failure;
use cli::flag::Flag;
use cli::json::Object;
use mvcc::{Hash, QueryError, RevisionError, Store};

use super::{Command, taking};
use crate::call::Call;
use crate::database;
use crate::report::{Column, Report};

pub(crate) fn command() -> Command {
    let hashkv = Command::new("hashkv <filename>", "Prints the KV history hash of a given file")
        .flags([Flag::int("rev", "maximum revision to hash (default: latest revision)")])
        .run(run);
    taking(1, hashkv)
}

fn run(call: &Call) -> Result<(), Failure> {
    let format = call.format()?;
    let path = call.file("hashkv requires exactly one argument")?;
    database::require(&path)?;
    let backend = database::write(&path, call.lock_timeout());
    let backend = backend.map_err(|error| database::failure(&error))?;
    let store = Store::open(&backend, &mvcc::Options::default());
    let store = store.map_err(|error| database::failure(&error))?;
    let hash = store.reader().hash(call.flags.int("rev")).map_err(|error| refusal(&error))?;
    report(&hash).print(format)
}

/// The texts of the API for what a caller got wrong.
fn refusal(error: &QueryError) -> Failure {
    match error {
        QueryError::Revision(RevisionError::Compacted { .. }) => {
            Failure::error("mvcc: required revision has been compacted")
        }
        QueryError::Revision(RevisionError::Future { .. }) => {
            Failure::error("mvcc: required revision is a future revision")
        }
        QueryError::Backend(_) => database::failure(error),
    }
}

fn report(hash: &Hash) -> Report {
    let mut json = String::new();
    Object::new(&mut json)
        .always("hash", &hash.hash)
        .always("hashRevision", &hash.revision)
        .always("compactRevision", &hash.compact_revision)
        .end();
    let column = |title, name, value: String| Column { title, cell: value.clone(), name, value };
    Report {
        columns: vec![
            column("hash", "Hash", hash.hash.to_string()),
            column("hash revision", "Hash revision", hash.revision.to_string()),
            column("compact revision", "Compact revision", hash.compact_revision.to_string()),
        ],
        json,
    }
}
