//! What `--help` and `--version` print, and the document of all flags, from the table of flags.

use std::fmt::Write as _;

use super::flags::{self, Flag, Group, Role};
use super::gates::known_gates;
use super::value::Kind;

/// The ways to call the program.
#[must_use]
pub fn usage_text() -> &'static str {
    "Usage:

  etcd [flags]
    Start a member.

  etcd --version
    Print the version.

  etcd -h | --help
    Print this text.

  etcd --config-file FILE
    Start a member as the file says. Flags and environment variables beside it are ignored.
    Durations in the file are nanoseconds or texts such as \"10m\".

  etcd gateway
    Forward TCP connections to a cluster.

  etcd grpc-proxy
    Forward gRPC calls to a cluster.

Every flag can also be set by an environment variable: --data-dir by ETCD_DATA_DIR.
"
}

/// Usage and all flags by group, with their defaults.
#[must_use]
pub fn help_text() -> String {
    let mut text = usage_text().to_owned();
    for group in Group::ALL {
        write!(text, "\n{}:\n", group.title()).expect("a String takes any text");
        for flag in listed(group) {
            describe(&mut text, flag);
        }
    }
    text.push_str(
        "\nCAUTION with unsafe flags: they can break what the consensus protocol guarantees.\n",
    );
    text
}

fn describe(text: &mut String, flag: &Flag) {
    let mut line = |line: &str| {
        writeln!(text, "{line}").expect("a String takes any text");
    };
    match flag.role {
        Role::Alias(target) => line(&format!("  --{}\n    Now --{target}.", flag.name)),
        Role::Gate(gate) => line(&format!("  --{}\n    Now --feature-gates={gate}.", flag.name)),
        Role::Setting | Role::Ignored => {
            line(&format!("  --{} '{}'\n    {}", flag.name, shown_default(flag), flag.help));
            if flag.kind == Kind::Gates {
                for gate in known_gates() {
                    line(&format!("    {gate}"));
                }
            }
            if let Some(why) = flag.idle {
                line(&format!("    (Accepted without effect: {why}.)"));
            }
        }
    }
}

/// The default as a reader understands it.
pub(super) fn shown_default(flag: &Flag) -> &'static str {
    match flag.name {
        "data-dir" => "${name}.etcd",
        _ => flag.default,
    }
}

/// The flags under a heading, in the order of the table.
pub(super) fn listed(group: Group) -> impl Iterator<Item = &'static Flag> {
    flags::all().iter().filter(move |flag| flag.group == group && flag.role != Role::Ignored)
}

/// What `--version` prints: etcd's version first, in the form scripts look for.
#[must_use]
pub fn version_text() -> String {
    format!(
        "etcd Version: {}\nGit SHA: {}\nProduct: retcd {}\nOS/Arch: {}/{}\n",
        base::version::COMPATIBLE,
        git_sha(),
        base::version::PRODUCT,
        std::env::consts::OS,
        architecture()
    )
}

/// The commit this was built from, if the build said so.
pub(crate) fn git_sha() -> &'static str {
    option_env!("RETCD_GIT_SHA").unwrap_or("not recorded")
}

/// This machine's architecture by Go's name.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `docs/operating/flags.md`: every flag with its variable, default and release.
#[must_use]
pub fn flags_document() -> String {
    let mut text = String::from(DOCUMENT_HEAD);
    for group in Group::ALL {
        write!(
            text,
            "\n## {}\n\n| Flag | Variable | Default | Since etcd | Acts | Meaning |\n| --- | --- | --- | --- | --- | --- |\n",
            group.title()
        )
        .expect("a String takes any text");
        for flag in listed(group) {
            let meaning = match flag.role {
                Role::Alias(target) => format!("Now `--{target}`."),
                Role::Gate(gate) => format!("Now `--feature-gates={gate}`."),
                Role::Setting | Role::Ignored => flag.help.replace('|', "\\|"),
            };
            let target = match flag.role {
                Role::Alias(target) => flags::find(target),
                Role::Gate(_) => flags::find("feature-gates"),
                Role::Setting | Role::Ignored => None,
            };
            let default = match shown_default(flag) {
                default if target.is_none() && !default.is_empty() => format!("`{default}`"),
                _ => String::new(),
            };
            let idle = target.unwrap_or(flag).idle;
            writeln!(
                text,
                "| `--{}` | `{}` | {default} | {} | {} | {meaning} |",
                flag.name,
                flag.environment_name(),
                flag.since,
                idle.map_or_else(|| "yes".to_owned(), |why| format!("no: {why}")),
            )
            .expect("a String takes any text");
        }
    }
    text
}

const DOCUMENT_HEAD: &str = "# Flags of etcd

Written by the test `config::tests::documents` from the table in
`crates/server/src/config/flags/`; change it there.

- A flag is written `--name=value`, `--name value` or with one dash. A boolean flag alone means
  true, and takes another value only after `=`. Of several values the last one wins.
- A flag and its variable together are refused.
- With `--config-file` (or `ETCD_CONFIG_FILE`) everything else is ignored. The file's keys are the
  names of the flags; TLS flags stand in `client-transport-security` and
  `peer-transport-security`, v3 discovery in `discovery-config`, socket options in
  `socket-options`. Unknown keys are ignored with a warning; a wrong type, a key given twice and a
  file that is no YAML are refused with line and column.
- A flag without effect is accepted with a warning that says why.
- \"3.4\" under \"Since etcd\" means 3.4 and before.
- Exit code 2 means that the command line could not be understood, 1 that it was refused.
";
