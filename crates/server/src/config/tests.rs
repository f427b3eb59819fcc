//! Whole configurations: command line, variables and file in, a [`Config`] or a refusal out.

mod documents;
mod every_flag;
mod from_file;
mod refused;
mod values;

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::*;

/// A configuration that is read without touching this machine.
#[derive(Default)]
struct Given {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// The text of any file that is asked for; `None` is a file that does not exist.
    file: Option<String>,
    host: Option<IpAddr>,
}

impl Given {
    fn flags(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { arguments, ..Self::default() }
    }

    fn variables(mut self, variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.environment = variables.iter().map(owned).collect();
        self
    }

    fn file(text: &str) -> Self {
        Self { file: Some(text.to_owned()), ..Self::flags(&["--config-file", "etcd.yml"]) }
    }

    fn read(&self) -> Reading {
        read(&Sources {
            program: "etcd",
            arguments: &self.arguments,
            environment: &self.environment,
            read_file: &|_: &Path| {
                let missing =
                    || io::Error::new(io::ErrorKind::NotFound, "no such file or directory");
                self.file.clone().ok_or_else(missing)
            },
            default_host: &|| self.host,
        })
    }

    /// The configuration, and the notices as text.
    fn config(&self) -> (Config, Vec<String>) {
        let reading = self.read();
        let notices = reading.notices.iter().map(shown).collect();
        match reading.outcome {
            Ok(Invocation::Start(config)) => (*config, notices),
            other => panic!("no configuration: {other:?}"),
        }
    }

    /// Exit code, error and remedy.
    fn refused(&self) -> (u8, String, String) {
        match self.read().outcome {
            Ok(other) => panic!("accepted: {other:?}"),
            Err(error) => {
                let remedy = match &error {
                    ConfigError::Usage(usage) => usage.remedy(),
                    ConfigError::Refused(refusal) => refusal.remedy(),
                };
                let chain = crate::logging::Chain(&error).to_string();
                (error.exit_code(), chain, remedy)
            }
        }
    }
}

/// Level, message and fields of a notice.
fn shown(notice: &Notice) -> String {
    let fields: Vec<_> =
        notice.fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{} {}{}", notice.level.name(), notice.message, fields.concat())
}
