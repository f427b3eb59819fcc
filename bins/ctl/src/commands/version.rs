//! `version`: which etcd this behaves like, and which release of its own it is.
//!
//! etcd: `etcdctl/ctlv3/command/version_command.go`.

use cli::exit::Failure;

use super::{Command, UTILITY};
use crate::call::Call;
use crate::terminal::say;

pub(crate) fn command() -> Command {
    Command::new("version", "Prints the version of etcdctl")
        .group(UTILITY)
        .run(|call| Box::pin(run(call)))
}

#[allow(clippy::unused_async, reason = "every command is run the same way")]
async fn run(_: Call) -> Result<(), Failure> {
    say!("etcdctl version: {}", base::version::COMPATIBLE);
    say!("API version: {}", base::version::API);
    say!("retcd version: {}", base::version::PRODUCT);
    Ok(())
}
