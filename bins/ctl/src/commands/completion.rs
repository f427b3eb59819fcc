//! `completion`: scripts that complete command lines in a shell.
//!
//! etcd: `etcdctl/ctlv3/command/completion_command.go`.

use cli::exit::{ExitCode, Failure};

use super::{Command, UTILITY};
use crate::call::Call;

const LONG: &str = r#"To load completions:

Bash:

  $ source <(etcdctl completion bash)

  # To load completions for each session, execute once:
  # Linux:
  $ etcdctl completion bash > /etc/bash_completion.d/etcdctl
  # macOS:
  $ etcdctl completion bash > /usr/local/etc/bash_completion.d/etcdctl

Zsh:

  # If shell completion is not already enabled in your environment,
  # you will need to enable it.  You can execute the following once:

  $ echo "autoload -U compinit; compinit" >> ~/.zshrc

  # To load completions for each session, execute once:
  $ etcdctl completion zsh > "${fpath[1]}/_etcdctl"

  # You will need to start a new shell for this setup to take effect.

fish:

  $ etcdctl completion fish | source

  # To load completions for each session, execute once:
  $ etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish

PowerShell:

  PS> etcdctl completion powershell | Out-String | Invoke-Expression

  # To load completions for every new session, run:
  PS> etcdctl completion powershell > etcdctl.ps1
  # and source this file from your PowerShell profile.
"#;

pub(crate) fn command() -> Command {
    let use_line = "completion [bash|zsh|fish|powershell]";
    let mut completion = Command::new(use_line, "Generate completion script")
        .long(LONG)
        .group(UTILITY)
        .run(|call| Box::pin(run(call)));
    completion.words = &["bash", "zsh", "fish", "powershell"];
    completion.flags_in_use_line = false;
    completion
}

#[allow(clippy::unused_async, reason = "every command is run the same way")]
async fn run(call: Call) -> Result<(), Failure> {
    let script = cli::completion::script(&super::app().root, &call.text(0));
    let written = std::io::Write::write_all(&mut std::io::stdout().lock(), &script);
    written.map_err(|error| {
        let stdout = std::path::Path::new("/dev/stdout");
        Failure::new(ExitCode::Io, cli::os::path_error("write", stdout, &error))
    })
}
