//! Environment variables: `ETCD_` and the flag's name in capitals.
//!
//! A flag and its variable together are refused, whatever their values: one of them would be
//! ignored silently. Variables that mean nothing are told about and ignored.
//! Source: etcd pkg/flags/flag.go.

use super::flags::{self, Role};
use super::notice::Notice;
use super::refusal::Refusal;
use super::settings::Settings;

const PREFIX: &str = "ETCD_";

/// Variables of that prefix that are no settings and need no warning.
const KNOWN: [&str; 1] = ["ETCD_UNSUPPORTED_ARCH"];

/// Reads the variables that are set into `settings`, which holds what the command line gave.
pub(crate) fn apply(
    environment: &[(String, String)],
    settings: &mut Settings,
    notices: &mut Vec<Notice>,
) -> Result<(), Refusal> {
    let given: Vec<_> = settings.given().collect();
    let shadowed = given
        .iter()
        .map(|flag| (flag, flag.environment_name()))
        .find(|(_, variable)| environment.iter().any(|(name, _)| name == variable));
    if let Some((flag, variable)) = shadowed {
        return Err(Refusal::Shadowed { variable, flag: flag.name });
    }
    for flag in flags::all() {
        let variable = flag.environment_name();
        let Some((_, value)) =
            environment.iter().find(|(name, value)| *name == variable && !value.is_empty())
        else {
            continue;
        };
        settings.assign(flag, value).map_err(|why| Refusal::Variable {
            variable: variable.clone(),
            value: value.clone(),
            why: Box::new(why),
            expects: flag.kind.expects(),
        })?;
        let shown = if flag.is_secret() { "***" } else { value };
        notices.push(
            Notice::info("recognized and used environment variable")
                .with("variable-name", variable)
                .with("variable-value", shown),
        );
    }
    for (name, value) in environment {
        if name == "ETCD_VERSION" && !value.is_empty() {
            notices.push(
                Notice::warn("cannot set special environment variable")
                    .with("key", name.as_str())
                    .with("value", value.as_str()),
            );
        } else if is_unrecognized(name, value) {
            notices.push(
                Notice::warn("unrecognized environment variable")
                    .with("environment-variable", format!("{name}={value}")),
            );
        }
    }
    Ok(())
}

fn is_unrecognized(name: &str, value: &str) -> bool {
    let is_flag = || {
        flags::all().iter().any(|flag| {
            flag.environment_name() == name && (flag.role != Role::Ignored || !value.is_empty())
        })
    };
    name.starts_with(PREFIX) && !KNOWN.contains(&name) && (value.is_empty() || !is_flag())
}
