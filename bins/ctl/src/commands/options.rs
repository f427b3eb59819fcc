//! `options`: shows the global flags, which the other help texts leave out.
//!
//! etcd: `etcdctl/ctlv3/command/options_command.go`.

use cli::exit::Failure;
use cli::{global, usage};

use super::{Command, UTILITY};
use crate::call::Call;
use crate::terminal::say;

pub(crate) fn command() -> Command {
    Command::new("options", "Show the global command-line flags")
        .group(UTILITY)
        .run(|call| Box::pin(run(call)))
}

#[allow(clippy::unused_async, reason = "every command is run the same way")]
async fn run(_: Call) -> Result<(), Failure> {
    say!("The following options can be passed to any command:\n");
    say!("{}", usage::flag_usages(&global::flags()).trim_end());
    Ok(())
}
