//! What a member is told at start: flags, `ETCD_*` variables or a file, made into a [`Config`].
//!
//! Everything is checked here, once; the rest of the server is handed values that make sense. No
//! data is touched and nothing listens before the whole configuration was accepted.
//!
//! - With a configuration file, flags and variables are ignored, the file's own apart.
//! - A flag and its variable together are refused.
//! - Reading has no side effects: lines for the log are returned as [`Notice`]s.
//!
//! Source: etcd server/embed/config.go, server/etcdmain/config.go (names, defaults, texts).

mod arguments;
mod build;
mod data_dir;
mod duration;
mod echo;
mod env;
mod file;
mod flags;
mod gates;
mod help;
mod listen_error;
mod man;
mod model;
mod notice;
mod refusal;
mod resolve;
mod settings;
mod text;
mod tls;
mod validate;
mod value;

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

pub use self::tls::is_cipher_suite;
pub use arguments::UsageError;
pub use base::initial_cluster::{ClusterError, InitialCluster};
pub use base::member_url::{Address, MemberUrl, Scheme, UrlError, join_urls};
pub use data_dir::{DataDir, open_data_dir};
pub use duration::{DurationError, GoDuration, parse_duration};
pub use echo::{StartFacts, log_start};
pub use file::FileError;
pub use gates::{FeatureGates, Gate, GateError, Stage};
pub use help::{flags_document, help_text, usage_text, version_text};
pub use listen_error::ListenError;
pub use man::man_page;
pub use model::{
    Advertise, Auth, AutoCompaction, Bootstrap, Cluster, ClusterState, Compaction, Config,
    Discovery, Features, Http, KeepAlive, Limits, Listen, Logging, MetricsDetail, Proxy, ProxyMode,
    ProxyTimeouts, Quota, Secret, Storage, Tls, TlsVersion, Tracing, TransportSecurity,
};
pub use notice::Notice;
pub use refusal::Refusal;
pub use resolve::resolve_host;
pub use value::ValueError;

pub(crate) use flags::DEFAULT_LOG_ROTATION;

use settings::Settings;

/// Where a configuration comes from.
#[expect(missing_debug_implementations, reason = "it holds functions")]
pub struct Sources<'a> {
    /// The program's name as it was called; only told to the log.
    pub program: &'a str,
    /// The command line without the program's name.
    pub arguments: &'a [String],
    /// Environment variables.
    pub environment: &'a [(String, String)],
    /// Reads the configuration file.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// This machine's address towards others, asked for when it listens on all addresses and
    /// advertises none.
    pub default_host: &'a dyn Fn() -> Option<IpAddr>,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Start a member.
    Start(Box<Config>),
    /// Print [`help_text`], [`version_text`] or [`man_page`].
    Print(String),
    /// Another program under the same name, with its arguments: `gateway` or `grpc-proxy`.
    Subcommand {
        /// Which.
        name: String,
        /// What follows.
        arguments: Vec<String>,
    },
}

/// Why a member is not started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line cannot be understood.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// It can, and is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl ConfigError {
    /// 2 for a command line that cannot be understood, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(_) => 1,
        }
    }
}

/// The result of reading a configuration.
#[derive(Debug)]
pub struct Reading {
    /// Lines for the log, in order; also when the configuration is refused.
    pub notices: Vec<Notice>,
    /// What to do.
    pub outcome: Result<Invocation, ConfigError>,
}

/// Reads and checks the configuration of this process, and the certificate files it names.
#[must_use]
pub fn read_process() -> Reading {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let mut arguments = std::env::args_os().map(text);
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    let environment: Vec<_> =
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    let mut reading = read(&Sources {
        program: &program,
        arguments: &arguments,
        environment: &environment,
        read_file: &|path| std::fs::read_to_string(path),
        default_host: &default_host,
    });
    if let Ok(Invocation::Start(config)) = &reading.outcome
        && let Err(refusal) = crate::security::check_files(config)
    {
        reading.outcome = Err(refusal.into());
    }
    reading
}

/// Reads and checks a configuration.
#[must_use]
pub fn read(sources: &Sources<'_>) -> Reading {
    let mut notices = Vec::new();
    let outcome = invocation(sources, &mut notices);
    Reading { notices, outcome }
}

fn invocation(sources: &Sources<'_>, notices: &mut Vec<Notice>) -> Result<Invocation, ConfigError> {
    if sources.arguments == [man::WORD] {
        return Ok(Invocation::Print(man_page()));
    }
    if let Some(name @ ("gateway" | "grpc-proxy")) = sources.arguments.first().map(String::as_str) {
        let arguments = sources.arguments[1..].to_vec();
        return Ok(Invocation::Subcommand { name: name.to_owned(), arguments });
    }
    let mut settings = Settings::defaults();
    let asked = arguments::parse(sources.arguments, &mut settings)?;
    if asked.help {
        return Ok(Invocation::Print(help_text()));
    }
    if let Some(stray) = asked.rest.first() {
        return Err(Refusal::StrayArgument(stray.clone()).into());
    }
    if asked.version {
        return Ok(Invocation::Print(version_text()));
    }
    let variable = || sources.environment.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE");
    let path = match settings.text("config-file") {
        "" => variable().map_or("", |(_, path)| path).to_owned(),
        path => path.to_owned(),
    };
    if path.is_empty() {
        env::apply(sources.environment, &mut settings, notices)?;
    } else {
        settings = Settings::defaults();
        settings.from_file = true;
        read_file(Path::new(&path), sources, &mut settings, notices)?;
    }
    validate::check(&settings, notices)?;
    validate::settle_addresses(&mut settings, sources.default_host, notices);
    let config = build::build(&settings, notices)?;
    validate::tell_about_flags(&settings, notices);
    let mut shown = vec![sources.program.to_owned()];
    shown.extend(shown_arguments(sources.arguments));
    notices.push(Notice::info("Running: ").with("args", shown));
    Ok(Invocation::Start(Box::new(config)))
}

fn read_file(
    path: &Path,
    sources: &Sources<'_>,
    settings: &mut Settings,
    notices: &mut Vec<Notice>,
) -> Result<(), Refusal> {
    let text = (sources.read_file)(path)
        .map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    file::apply(path, &text, settings, notices)?;
    notices.push(
        Notice::info(
            "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
        )
        .with("path", path.display().to_string()),
    );
    Ok(())
}

/// The command line without passwords.
fn shown_arguments(arguments: &[String]) -> Vec<String> {
    let mut hide_next = false;
    let show = |argument: &String| {
        let name = argument.trim_start_matches('-').split('=').next().unwrap_or_default();
        let is_secret = flags::find(name).is_some_and(flags::Flag::is_secret);
        let hidden = std::mem::take(&mut hide_next);
        match argument.split_once('=') {
            Some((name, _)) if is_secret => format!("{name}=***"),
            _ if hidden => "***".to_owned(),
            _ => {
                hide_next = is_secret;
                argument.clone()
            }
        }
    };
    arguments.iter().map(show).collect()
}

/// The last line of an answer to wrong flags.
pub const USAGE: &str = "Usage: etcd [flags]; etcd --help lists them";

/// Writes why a configuration is refused to the log, as one line. `message` says what failed.
pub fn log_refusal(message: &str, refusal: &Refusal) {
    let error = crate::logging::Chain(refusal).to_string();
    let remedy = refusal.remedy();
    if let Refusal::Shadowed { variable, flag } = refusal {
        tracing::error!(
            target: crate::logging::FATAL,
            flag = format!("--{flag}"),
            "environment-variable" = variable,
            remedy,
            "{error}"
        );
    } else if remedy.is_empty() {
        tracing::error!(error, "{message}");
    } else {
        tracing::error!(error, remedy, "{message}");
    }
}

/// The address this machine would send from, by the kernel's routes; nothing is sent.
#[must_use]
pub fn default_host() -> Option<IpAddr> {
    // 192.0.2.1 is an address of nobody (RFC 5737): it is reached by the default route.
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

#[cfg(test)]
mod tests;
