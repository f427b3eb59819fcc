//! One run of a command: its flags and arguments, and the client that they ask for.

use std::time::Duration;

use cli::command::Invocation;
use cli::exit::{ExitCode, Failure};
use cli::flag::{Argument, Values};
use cli::global::{self, Discovery, GlobalFlags};
use cli::printer::Printer;
use client::srv::Dns;
use client::{Client, Options};
use futures_util::future::LocalBoxFuture;

use crate::terminal;

/// What a command does.
pub(crate) type Handler = fn(Call) -> LocalBoxFuture<'static, Result<(), Failure>>;

/// A command being run.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// All flags. Those from the environment are in here after [`Call::globals`].
    pub flags: Values,
    /// What is not a flag.
    pub arguments: Vec<Argument>,
    inherited: Vec<&'static str>,
    /// Variables of the environment that this command reads itself.
    pub variables: &'static [&'static str],
}

impl Call {
    pub(crate) fn new(invocation: Invocation<Handler>) -> Self {
        Self {
            flags: invocation.flags,
            arguments: invocation.arguments,
            inherited: invocation.inherited,
            variables: &[],
        }
    }

    /// Reads the global flags, with the environment's say, and asks DNS for the endpoints if they
    /// stand there.
    pub(crate) async fn globals(&mut self) -> Result<GlobalFlags, Failure> {
        let mut globals = self.read_globals()?;
        if let Some(Discovery { domain, service_name, .. }) = &globals.discovery {
            let found = client::srv::endpoints(&Dns::of_system(), domain, service_name).await;
            globals.take_discovered(found.map_err(Failure::error)?);
        }
        Ok(globals)
    }

    fn read_globals(&mut self) -> Result<GlobalFlags, Failure> {
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            // It has chosen the dialect, and is no surprise.
            .filter(|(name, _)| name != "ETCDCTL_API")
            .collect();
        let mut names = self.inherited.clone();
        names.sort_unstable();
        let lines =
            global::apply_environment(&mut self.flags, &names, &environment, self.variables);
        for line in lines.iter().chain(lines.as_ref().err()).flatten() {
            eprintln!("{line}");
        }
        if lines.is_err() {
            return Err(Failure::silent(ExitCode::Error));
        }
        if self.flags.bool("debug") {
            for name in names {
                eprintln!("{}={}", global::variable(name), self.flags.display(name));
            }
        }
        GlobalFlags::read(&self.flags, || terminal::ask_password("Password: "))
    }

    /// Connects as the global flags say.
    pub(crate) async fn connect(&mut self) -> Result<(Client, Printer), Failure> {
        let globals = self.globals().await?;
        Ok((connect(globals.client).await?, globals.printer))
    }

    /// Connects for calls that may take as long as they like.
    pub(crate) async fn connect_patiently(&mut self) -> Result<(Client, Printer), Failure> {
        let (client, printer) = self.connect().await?;
        Ok((client.with_command_timeout(None), printer))
    }

    /// An argument as text; "" if there are fewer.
    pub(crate) fn text(&self, position: usize) -> String {
        let word = self.arguments.get(position);
        word.map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default()
    }

    /// The arguments if there are exactly so many.
    pub(crate) fn exactly<const N: usize>(&self, otherwise: &str) -> Result<[String; N], Failure> {
        if self.arguments.len() != N {
            return Err(Failure::bad_arguments(otherwise));
        }
        Ok(std::array::from_fn(|position| self.text(position)))
    }
}

/// Makes a client.
pub(crate) async fn connect(options: Options) -> Result<Client, Failure> {
    let connected = Client::connect(options).await;
    connected.map_err(|error| {
        let is_input = matches!(error, client::Error::Tls(_));
        Failure::new(if is_input { ExitCode::BadArguments } else { ExitCode::BadConnection }, error)
    })
}

/// Reads an id in hexadecimal.
pub(crate) fn lease_id(text: &str) -> Result<i64, Failure> {
    cli::number::parse_int(text, 16).map_err(|error| {
        Failure::bad_arguments(format!("bad lease ID arg ({error}), expecting ID in Hex"))
    })
}

/// Reads a member's id in hexadecimal.
pub(crate) fn member_id(text: &str) -> Result<u64, Failure> {
    cli::number::parse_uint(text, 16).map_err(|error| {
        Failure::bad_arguments(format!("bad member ID arg ({error}), expecting ID in Hex"))
    })
}

/// Reads the value of `--consistency`; true means that stale answers are welcome.
pub(crate) fn is_serializable(consistency: &str) -> Result<bool, Failure> {
    match consistency {
        "s" => Ok(true),
        "l" => Ok(false),
        _ => {
            let quoted = cli::quote::quote(consistency.as_bytes());
            let message = format!("unknown consistency flag {quoted}");
            Err(Failure::new(ExitCode::BadFeature, message))
        }
    }
}

/// Longest time of the steps that clean up after a check.
pub(crate) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);
