//! Scripts that complete command lines in a shell.
//!
//! They are made from the tree of commands by `clap_complete`; they are not cobra's, but complete the
//! same names.

use clap_complete::{Shell, generate};

use crate::command::Command;
use crate::flag::{Flag, Kind};

/// The script for `bash`, `zsh` or `fish`; for any other name that for `powershell`.
#[must_use]
pub fn script<R: Copy>(root: &Command<R>, shell: &str) -> Vec<u8> {
    let shell = match shell {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::PowerShell,
    };
    let mut script = Vec::new();
    generate(shell, &mut translate(root, true), root.name(), &mut script);
    if shell == Shell::Bash { with_values(&String::from_utf8_lossy(&script)) } else { script }
}

/// How the script that `clap_complete` makes for `bash` takes the word before the one to complete.
const WORD_BEFORE: &str = "    prev=\"$3\"\n";

/// For `bash` the `=` of `--flag=value` is a word of its own, which `clap_complete` does not know.
fn with_values(script: &str) -> Vec<u8> {
    let flag = "    if [[ \"${prev}\" == \"=\" && ${COMP_CWORD} -ge 2 ]]; then\n        \
                prev=\"${COMP_WORDS[COMP_CWORD-2]}\"\n    fi\n";
    script.replacen(WORD_BEFORE, &format!("{WORD_BEFORE}{flag}"), 1).into_bytes()
}

/// The command as `clap` knows commands; it is only asked for names.
fn translate<R: Copy>(command: &Command<R>, is_root: bool) -> clap::Command {
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
        Kind::Int | Kind::Uint | Kind::Uint32 | Kind::Duration | Kind::Text => clap::ArgAction::Set,
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
