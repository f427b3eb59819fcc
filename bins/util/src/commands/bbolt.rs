//! `bbolt check`: a check of every page of a database file.
//!
//! Of bbolt's own tool only this; the file format is bbolt's whoever wrote it.
//!
//! etcd: `etcdutl/ctl.go` after 3.7, `bbolt/cmd/bbolt/command/command_check.go`.

use cli::exit::Failure;
use vfs::Open;

use super::{Command, taking};
use crate::call::Call;
use crate::database;

pub(crate) fn command() -> Command {
    let check = Command::new("check <bbolt-file>", "verify integrity of bbolt database data");
    Command::new("bbolt", "bbolt is a simple command line tool for inspecting bbolt databases")
        .elsewhere(ELSEWHERE)
        .subcommands([taking(1, check.run(run))])
}

/// The other commands of bbolt's tool.
const ELSEWHERE: &[(&str, &str)] = &[
    ("compact", "`etcdutl defrag`"),
    ("info", "`etcdutl snapshot status`"),
    ("bench", "bbolt's own tool"),
    ("buckets", "bbolt's own tool"),
    ("dump", "bbolt's own tool"),
    ("get", "bbolt's own tool"),
    ("inspect", "bbolt's own tool"),
    ("keys", "bbolt's own tool"),
    ("page", "bbolt's own tool"),
    ("page-item", "bbolt's own tool"),
    ("pages", "bbolt's own tool"),
    ("stats", "bbolt's own tool"),
    ("surgery", "bbolt's own tool"),
];

fn run(call: &Call) -> Result<(), Failure> {
    let path = call.file("check requires exactly one argument")?;
    database::require(&path)?;
    let file = database::open_file(&path, Open::Read).map_err(Failure::error)?;
    let database = database::read(file, &path, call.lock_timeout());
    let database = database.map_err(|error| database::failure(&error))?;
    if let Err(damage) = database::check(&database) {
        println!("{}\n1 errors found", damage.page);
        return Err(Failure::error(format!("invalid value{}", damage.hint())));
    }
    println!("OK");
    Ok(())
}
