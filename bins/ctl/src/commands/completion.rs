//! `completion`: scripts that complete command lines in a shell.
//!
//! The scripts are made from the tree of commands by `clap_complete`; they are not etcd's, but
//! complete the same names.
//!
//! etcd: `etcdctl/ctlv3/command/completion_command.go`.

use clap_complete::{Shell, generate};
use cli::exit::{ExitCode, Failure};
use cli::flag::{Flag, Kind};

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
    let shell = match call.text(0).as_str() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::PowerShell,
    };
    let root = super::app().root;
    let name = root.name();
    let mut script = Vec::new();
    generate(shell, &mut translate(&root, true), name, &mut script);
    let written = std::io::Write::write_all(&mut std::io::stdout().lock(), &script);
    written.map_err(|error| Failure::new(ExitCode::Io, error))
}

/// The command as `clap` knows commands; it is only asked for names.
fn translate(command: &Command, is_root: bool) -> clap::Command {
    let flags = command.flags.iter().map(|flag| argument(flag, false));
    let persistent = command.persistent_flags.iter().map(|flag| argument(flag, true));
    let words = (!command.words.is_empty())
        .then(|| clap::Arg::new("word").value_parser(command.words.to_vec()));
    clap::Command::new(command.name())
        .about(command.short)
        .disable_help_subcommand(true)
        .disable_help_flag(!is_root)
        .args(flags.chain(persistent).chain(words))
        .subcommands(command.subcommands.iter().map(|child| translate(child, false)))
}

fn argument(flag: &Flag, is_global: bool) -> clap::Arg {
    let action = match flag.kind {
        Kind::Bool => clap::ArgAction::SetTrue,
        Kind::List => clap::ArgAction::Append,
        Kind::Int | Kind::Uint | Kind::Duration | Kind::Text => clap::ArgAction::Set,
    };
    let argument = clap::Arg::new(flag.name)
        .long(flag.name)
        .help(flag.usage.clone().into_owned())
        .global(is_global)
        .action(action);
    let argument = match flag.shorthand {
        Some(letter) => argument.short(letter),
        None => argument,
    };
    match flag.name {
        "write-out" => argument.value_parser(["fields", "json", "protobuf", "simple", "table"]),
        "consistency" => argument.value_parser(["l", "s"]),
        "order" => argument.value_parser(["ASCEND", "DESCEND"]),
        "sort-by" => argument.value_parser(["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]),
        _ => argument,
    }
}
