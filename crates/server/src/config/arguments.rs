//! The command line, read as Go's flag package reads it.
//!
//! `--name x`, `--name=x` and `-name x` are the same; a boolean takes a value only after `=`; the
//! last of several values wins; reading stops at the first argument that is no flag, or after
//! `--`. Errors are answered in Go's words, with a line of ours below.

use super::flags::{self, Role};
use super::settings::Settings;
use super::text::nearest;
use super::value::{Kind, ValueError};
use base::quote::quote;

/// A command line that cannot be understood: exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// No flag has this name.
    #[error("flag provided but not defined: -{name}")]
    NotDefined {
        /// As given, without dashes.
        name: String,
        /// The flag that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A flag that takes a value is the last argument.
    #[error("flag needs an argument: -{name}")]
    NeedsArgument {
        /// The flag.
        name: &'static str,
    },
    /// Three dashes, or no name.
    #[error("bad flag syntax: {0}")]
    BadSyntax(String),
    /// A boolean's value is neither true nor false.
    #[error("invalid boolean value {} for -{name}: parse error", quote(.value))]
    InvalidBoolean {
        /// The flag.
        name: &'static str,
        /// The value as given.
        value: String,
    },
    /// A value cannot be understood.
    #[error("invalid value {} for flag -{name}: {why}", quote(.value))]
    InvalidValue {
        /// The flag.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        why: ValueError,
    },
}

impl UsageError {
    /// How to put it right, as one line.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NotDefined { nearest: Some(name), .. } => format!("did you mean --{name}?"),
            Self::NotDefined { nearest: None, .. } | Self::BadSyntax(_) => {
                "flags are written --name=value or --name value".to_owned()
            }
            Self::NeedsArgument { name }
            | Self::InvalidBoolean { name, .. }
            | Self::InvalidValue { name, .. } => {
                let Some(flag) = flags::find(name) else {
                    return "--version takes true or false".to_owned();
                };
                let default = match flag.default {
                    "" => "none".to_owned(),
                    default => format!("'{default}'"),
                };
                format!("--{name} takes {}; the default is {default}", flag.kind.expects())
            }
        }
    }
}

/// What a command line asks for beside its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) help: bool,
    pub(crate) version: bool,
    /// From the first argument that is no flag.
    pub(crate) rest: Vec<String>,
}

/// Reads the arguments after the program's name into `settings`.
pub(crate) fn parse(
    arguments: &[String],
    settings: &mut Settings,
) -> Result<Arguments, UsageError> {
    let mut asked = Arguments::default();
    let mut position = 0;
    while let Some(argument) = arguments.get(position) {
        let name = match argument.strip_prefix('-') {
            None | Some("") => break,
            Some("-") => {
                position += 1;
                break;
            }
            Some(name) => name.strip_prefix('-').unwrap_or(name),
        };
        position += 1;
        if name.starts_with(['-', '=']) {
            return Err(UsageError::BadSyntax(argument.clone()));
        }
        let (name, attached) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        match name {
            "help" | "h" => {
                asked.help = true;
                return Ok(asked);
            }
            "version" => asked.version = version_flag(attached)?,
            _ => {
                position +=
                    usize::from(one_flag(name, attached, arguments.get(position), settings)?)
            }
        }
    }
    asked.rest = arguments[position..].to_vec();
    Ok(asked)
}

/// Reads one flag; true if it took the next argument as its value.
fn one_flag(
    name: &str,
    attached: Option<&str>,
    next: Option<&String>,
    settings: &mut Settings,
) -> Result<bool, UsageError> {
    let flag = flags::find(name).ok_or_else(|| UsageError::NotDefined {
        name: name.to_owned(),
        nearest: nearest(name, known_names()),
    })?;
    let (value, took_next) = match attached {
        Some(value) => (value, false),
        None if flag.kind.stands_alone() => ("true", false),
        None => (next.ok_or(UsageError::NeedsArgument { name: flag.name })?.as_str(), true),
    };
    settings.assign(flag, value).map_err(|why| {
        let (name, value) = (flag.name, value.to_owned());
        if flag.kind == Kind::Bool {
            UsageError::InvalidBoolean { name, value }
        } else {
            UsageError::InvalidValue { name, value, why }
        }
    })?;
    Ok(took_next)
}

fn version_flag(attached: Option<&str>) -> Result<bool, UsageError> {
    let value = attached.unwrap_or("true");
    super::value::parse_bool(value)
        .ok_or_else(|| UsageError::InvalidBoolean { name: "version", value: value.to_owned() })
}

fn known_names() -> impl Iterator<Item = &'static str> {
    let listed = flags::all().iter().filter(|flag| flag.role != Role::Ignored);
    listed.map(|flag| flag.name).chain(["version", "help"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<(Settings, Arguments), UsageError> {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let mut settings = Settings::defaults();
        let asked = parse(&arguments, &mut settings)?;
        Ok((settings, asked))
    }

    /// SRV-001, SRV-013, process contract section 3.
    #[test]
    fn all_forms_of_a_flag_are_the_same() {
        for arguments in
            [&["--name=a"][..], &["--name", "a"], &["-name", "a"], &["-name=x", "--name=a"]]
        {
            assert_eq!(read(arguments).unwrap().0.text("name"), "a");
        }
        let (settings, _) = read(&["--force-new-cluster", "--pre-vote=false"]).unwrap();
        assert!(settings.bool("force-new-cluster"));
        assert!(!settings.bool("pre-vote"));
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        assert_eq!(
            read(&["--quota-backend-bytes", "-5"]).unwrap().0.signed("quota-backend-bytes"),
            -5
        );
    }

    /// SRV-009: what is left over is for the caller to refuse.
    #[test]
    fn reading_stops_at_the_first_other_argument() {
        for (arguments, rest) in [
            (&["--name=a", "foo", "--nope"][..], &["foo", "--nope"][..]),
            (&["--", "--nope"], &["--nope"]),
            (&["-"], &["-"]),
            (&["--force-new-cluster", "false"], &["false"]),
        ] {
            assert_eq!(read(arguments).unwrap().1.rest, rest);
        }
    }

    /// SRV-008, SRV-026, SRV-086, B1, B2, B9: texts measured on etcd 3.5.30.
    #[test]
    fn wrong_flags_are_refused_in_the_words_of_go() {
        for (arguments, error, remedy) in [
            (&["--nope"][..], "flag provided but not defined: -nope", "written --name=value"),
            (
                &["-snapshot-cout=5"],
                "flag provided but not defined: -snapshot-cout",
                "did you mean --snapshot-count?",
            ),
            (
                &["--initial-cluster-state"],
                "flag needs an argument: -initial-cluster-state",
                "one of new, existing",
            ),
            (
                &["--initial-cluster-state=foo"],
                "invalid value \"foo\" for flag -initial-cluster-state: invalid value",
                "new, existing",
            ),
            (&["---x"], "bad flag syntax: ---x", ""),
            (&["--=x"], "bad flag syntax: --=x", ""),
            (
                &["--snapshot-count=abc"],
                "invalid value \"abc\" for flag -snapshot-count: parse error",
                "from 0 to 18446744073709551615; the default is '10000'",
            ),
            (
                &["--max-txn-ops=-1"],
                "invalid value \"-1\" for flag -max-txn-ops: parse error",
                "the default is '128'",
            ),
            (
                &["--force-new-cluster=maybe"],
                "invalid boolean value \"maybe\" for -force-new-cluster: parse error",
                "true or false",
            ),
            (
                &["--backend-batch-interval=5"],
                "invalid value \"5\" for flag -backend-batch-interval: parse error",
                "300ms",
            ),
            (
                &["--listen-client-urls=foo"],
                "invalid value \"foo\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: foo",
                "http://127.0.0.1:2379",
            ),
            (
                &["--max-concurrent-streams=-1"],
                "invalid value \"-1\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"-1\": invalid syntax",
                "",
            ),
            (
                &["--v2-deprecation=not-yet"],
                "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
                "write-only",
            ),
            (
                &["--log-level=loud"],
                "invalid value \"loud\" for flag -log-level: unrecognized level: \"loud\"",
                "debug, info, warn, error",
            ),
            (
                &["--feature-gates=Nope=true"],
                "invalid value \"Nope=true\" for flag -feature-gates: unrecognized feature gate: Nope",
                "",
            ),
        ] {
            let refused = read(arguments).unwrap_err();
            assert_eq!(refused.to_string(), error);
            assert!(refused.remedy().contains(remedy), "{}", refused.remedy());
        }
    }

    /// SRV-012.
    #[test]
    fn legacy_flags_do_nothing() {
        let (settings, asked) = read(&["--vv", "--snapshot=true", "--v=5", "--name=a"]).unwrap();
        assert_eq!(settings.text("name"), "a");
        assert_eq!(asked.rest, Vec::<String>::new());
    }

    /// SRV-010, SRV-011.
    #[test]
    fn help_and_version_are_flags() {
        assert!(read(&["-h"]).unwrap().1.help);
        assert!(read(&["--name=a", "--help", "--nope"]).unwrap().1.help);
        assert!(read(&["--version"]).unwrap().1.version);
        assert!(!read(&["--version=false"]).unwrap().1.version);
    }
}
