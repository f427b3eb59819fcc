//! `version`: which etcd this behaves like, and which release of its own it is.
//!
//! etcd: `etcdutl/etcdutl/version_command.go`.

use cli::exit::Failure;

use super::Command;
use crate::call::Call;

pub(crate) fn command() -> Command {
    Command::new("version", "Prints the version of etcdutl").run(run)
}

#[allow(clippy::unnecessary_wraps, reason = "every command is run the same way")]
fn run(_: &Call) -> Result<(), Failure> {
    println!("etcdutl version: {}", base::version::COMPATIBLE);
    println!("API version: {}", base::version::API);
    println!("retcd version: {}", base::version::PRODUCT);
    Ok(())
}
