//! `completion`: scripts that complete command lines in a shell.
//!
//! etcd: `etcdutl/etcdutl/completion_commmand.go`.

use std::io::Write as _;

use cli::exit::{ExitCode, Failure};

use super::Command;
use crate::call::Call;

pub(crate) fn command() -> Command {
    let use_line = "completion [bash|zsh|fish|powershell]";
    let mut completion = Command::new(use_line, "Generate completion script").run(run);
    completion.words = &["bash", "zsh", "fish", "powershell"];
    completion.flags_in_use_line = false;
    completion
}

fn run(call: &Call) -> Result<(), Failure> {
    let shell = String::from_utf8_lossy(&call.arguments[0]);
    let script = cli::completion::script(&super::app(&[]).root, &shell);
    let written = std::io::stdout().lock().write_all(&script);
    written.map_err(|error| Failure::new(ExitCode::Io, error))
}
