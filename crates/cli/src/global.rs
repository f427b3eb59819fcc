//! The flags that every command of `etcdctl` understands, and the client they ask for.
//!
//! etcd: `etcdctl/ctlv3/ctl.go`, `etcdctl/ctlv3/command/global.go`, `pkg/flags/flag.go`.

use std::time::Duration;

use client::{Credentials, Options, TlsOptions};

use crate::exit::{ExitCode, Failure};
use crate::flag::{Flag, Kind, Values};
use crate::log::{self, Level};
use crate::printer::{Format, Printer};

/// Prefix of the environment variables that stand for flags.
const ENVIRONMENT_PREFIX: &str = "ETCDCTL_";

/// Variables that only `watch` reads, and that therefore are no surprise there.
pub const WATCH_VARIABLES: [&str; 2] = ["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// The global flags in the order in which the debug listing shows them.
#[must_use]
pub fn flags() -> Vec<Flag> {
    let mut flags = connection_flags();
    flags.extend(security_flags());
    flags.sort_by_key(|flag| flag.name);
    flags
}

fn connection_flags() -> Vec<Flag> {
    let duration = |name, default, usage| Flag::new(name, Kind::Duration, default, usage);
    vec![
        Flag::new("endpoints", Kind::List, "127.0.0.1:2379", "gRPC endpoints"),
        Flag::bool("debug", "enable client-side debug logging"),
        Flag::text("write-out", "set the output format (fields, json, protobuf, simple, table)")
            .short('w')
            .or("simple"),
        Flag::bool("hex", "print byte strings as hex encoded strings"),
        duration("dial-timeout", "2s", "dial timeout for client connections"),
        duration(
            "command-timeout",
            "5s",
            "timeout for short running command (excluding dial timeout)",
        ),
        duration("keepalive-time", "2s", "keepalive time for client connections"),
        duration("keepalive-timeout", "6s", "keepalive timeout for client connections"),
        Flag::int(
            "max-request-bytes",
            "client-side request send limit in bytes \
             (if 0, it defaults to 2.0 MiB (2 * 1024 * 1024).)",
        ),
        Flag::int(
            "max-recv-bytes",
            "client-side response receive limit in bytes (if 0, it defaults to \"math.MaxInt32\")",
        ),
        Flag::text(
            "discovery-srv",
            "domain name to query for SRV records describing cluster endpoints",
        )
        .short('d'),
        Flag::text("discovery-srv-name", "service name to query when using DNS discovery"),
    ]
}

fn security_flags() -> Vec<Flag> {
    vec![
        Flag::bool("insecure-transport", "disable transport security for client connections")
            .or("true"),
        Flag::bool(
            "insecure-discovery",
            "accept insecure SRV records describing cluster endpoints",
        )
        .or("true"),
        Flag::bool(
            "insecure-skip-tls-verify",
            "skip server certificate verification \
             (CAUTION: this option should be enabled only for testing purposes)",
        ),
        Flag::text("cert", "identify secure client using this TLS certificate file"),
        Flag::text("key", "identify secure client using this TLS key file"),
        Flag::text(
            "cacert",
            "verify certificates of TLS-enabled secure servers using this CA bundle",
        ),
        Flag::text(
            "auth-jwt-token",
            "JWT token used for authentication \
             (if this option is used, --user and --password should not be set)",
        ),
        Flag::text(
            "user",
            "username[:password] for authentication (prompt if password is not supplied)",
        ),
        Flag::text(
            "password",
            "password for authentication \
             (if this option is used, --user option shouldn't include password)",
        ),
    ]
}

/// The global flags with their values.
#[derive(Clone, Debug)]
pub struct GlobalFlags {
    /// How a client is to be made. A command timeout is always set here.
    pub client: Options,
    /// How results are to be shown.
    pub printer: Printer,
    /// Longest time of a short command.
    pub command_timeout: Duration,
    /// Whether the user gave that time.
    pub is_command_timeout_given: bool,
    /// Where the endpoints stand instead, if they stand in DNS.
    pub discovery: Option<Discovery>,
}

/// Endpoints in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The domain.
    pub domain: String,
    /// What tells the cluster from others of the domain; empty for the only one.
    pub service_name: String,
    /// Whether endpoints without TLS may be used.
    pub is_insecure: bool,
}

/// Sets flags that were not given from the environment.
///
/// `names` are the flags that may be set so, `environment` the process's variables, and
/// `unsurprising` more names that are not to be warned about. Returns the log lines to print.
///
/// # Errors
///
/// A flag was given and its variable is set too. The message is the last log line.
pub fn apply_environment(
    flags: &mut Values,
    names: &[&str],
    environment: &[(String, String)],
    unsurprising: &[&str],
) -> Result<Vec<String>, Vec<String>> {
    let mut lines = Vec::new();
    let given: Vec<String> =
        names.iter().filter(|name| flags.is_changed(name)).map(|name| variable(name)).collect();
    let mut used: Vec<String> = unsurprising.iter().map(|name| (*name).to_owned()).collect();
    for name in names {
        let variable = variable(name);
        if given.contains(&variable) {
            continue;
        }
        let value = environment.iter().find(|(name, _)| *name == variable);
        if let Some((_, value)) = value.filter(|(_, value)| !value.is_empty()) {
            // A value that does not fit is passed over, as etcd does.
            flags.set(name, value).ok();
            used.push(variable);
        }
    }
    for (name, value) in environment {
        if used.contains(name) {
            continue;
        }
        if given.contains(name) {
            let message = "conflicting environment variable is shadowed by corresponding \
                command-line flag (either unset environment variable or disable flag))";
            lines.push(log::line(Level::Fatal, message, &[("environment-variable", name)]));
            return Err(lines);
        }
        if name.starts_with(ENVIRONMENT_PREFIX) {
            let text = format!("{name}={value}");
            let message = "unrecognized environment variable";
            lines.push(log::line(Level::Warn, message, &[("environment-variable", &text)]));
        }
    }
    Ok(lines)
}

/// The variable that stands for a flag.
#[must_use]
pub fn variable(flag: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", flag.replace('-', "_").to_uppercase())
}

impl GlobalFlags {
    /// Reads the flags. `ask_password` is called if a user is given without a password.
    ///
    /// # Errors
    ///
    /// A value makes no sense, or the password cannot be read.
    pub fn read(
        flags: &Values,
        ask_password: impl FnOnce() -> std::io::Result<String>,
    ) -> Result<Self, Failure> {
        let endpoints = flags.list("endpoints").iter().map(|text| text.trim().to_owned());
        let mut client = Options::new(endpoints.collect());
        client.dial_timeout = flags.duration("dial-timeout");
        client.command_timeout = Some(flags.duration("command-timeout"));
        client.keep_alive_time = flags.duration("keepalive-time");
        client.keep_alive_timeout = flags.duration("keepalive-timeout");
        read_size(flags, "max-request-bytes", &mut client.request_bytes_max);
        read_size(flags, "max-recv-bytes", &mut client.response_bytes_max);
        client.on_unreachable = tell_unreachable;
        let discovery = read_discovery(flags);
        client.tls = read_tls(flags, discovery.as_ref())?;
        client.credentials = read_credentials(flags, ask_password)?;
        Ok(Self {
            command_timeout: flags.duration("command-timeout"),
            is_command_timeout_given: flags.is_changed("command-timeout"),
            discovery,
            client,
            printer: Printer {
                format: Format::parse(flags.text("write-out"))?,
                hex: flags.bool("hex"),
                value_only: false,
            },
        })
    }
}

/// Why a call ran out of time, as etcd's clients log it.
#[allow(clippy::print_stderr, reason = "the tools log on standard error")]
fn tell_unreachable(why: &str) {
    let error = format!("rpc error: code = DeadlineExceeded desc = latest balancer error: {why}");
    eprintln!(
        "{}",
        log::line(Level::Warn, "retrying of unary invoker failed", &[("error", &error)])
    );
}

fn read_size(flags: &Values, name: &str, slot: &mut usize) {
    if let Some(bytes) = usize::try_from(flags.int(name)).ok().filter(|bytes| *bytes > 0) {
        *slot = bytes;
    }
}

fn read_discovery(flags: &Values) -> Option<Discovery> {
    let text = |name| flags.text(name).to_owned();
    let (domain, service_name) = (text("discovery-srv"), text("discovery-srv-name"));
    let is_insecure = flags.bool("insecure-discovery");
    (!domain.is_empty()).then_some(Discovery { domain, service_name, is_insecure })
}

impl GlobalFlags {
    /// Takes what DNS names as endpoints. What comes without TLS is left out, and said, unless it
    /// may be used; if nothing is left the endpoints stay what the flag says.
    pub fn take_discovered(&mut self, found: Vec<String>) {
        let is_insecure = self.discovery.as_ref().is_some_and(|it| it.is_insecure);
        let (ignored, found): (Vec<String>, Vec<String>) =
            found.into_iter().partition(|url| !is_insecure && url.starts_with("http://"));
        for url in ignored {
            tell_ignored(&url);
        }
        if !found.is_empty() {
            self.client.endpoints = found;
        }
    }
}

#[allow(clippy::print_stderr, reason = "the tools say on standard error what they leave out")]
fn tell_ignored(url: &str) {
    eprintln!("ignoring discovered insecure endpoint {}", crate::quote::quote(url.as_bytes()));
}

fn read_tls(flags: &Values, discovery: Option<&Discovery>) -> Result<Option<TlsOptions>, Failure> {
    let file = |name: &str| {
        let path = flags.text(name);
        if path.is_empty() && flags.is_changed(name) {
            let message = format!("empty string is passed to --{name} option");
            return Err(Failure::bad_arguments(message));
        }
        Ok(Some(path).filter(|path| !path.is_empty()).map(std::path::PathBuf::from))
    };
    let tls = TlsOptions {
        certificate: file("cert")?,
        key: file("key")?,
        authorities: file("cacert")?,
        // Whoever answers for DNS could name any host; the certificate must be the domain's.
        server_name: discovery.filter(|it| !it.is_insecure).map(|it| it.domain.clone()),
        skip_verification: flags.bool("insecure-skip-tls-verify"),
    };
    let wanted = tls != TlsOptions::default() || !flags.bool("insecure-transport");
    Ok(wanted.then_some(tls))
}

fn read_credentials(
    flags: &Values,
    ask_password: impl FnOnce() -> std::io::Result<String>,
) -> Result<Option<Credentials>, Failure> {
    let token = flags.text("auth-jwt-token");
    if !token.is_empty() {
        return Ok(Some(Credentials::Token(token.to_owned())));
    }
    let ask = || ask_password().map_err(|error| Failure::new(ExitCode::Error, error));
    read_user(flags.text("user"), flags.text("password"), ask)
}

/// Reads `name:password`, or a name with the password given apart or asked for. `None` without a
/// name.
///
/// # Errors
///
/// What `ask` returns.
pub fn read_user(
    user: &str,
    password: &str,
    ask: impl FnOnce() -> Result<String, Failure>,
) -> Result<Option<Credentials>, Failure> {
    if user.is_empty() {
        return Ok(None);
    }
    let (user, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((user, password)) => (user, password.to_owned()),
        None => (user, ask()?),
    };
    Ok(Some(Credentials::Password { user: user.to_owned(), password }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn values(line: &[&str]) -> Values {
        let mut values = Values::new(&flags());
        let words: Vec<_> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
        values.parse(&words).unwrap();
        values
    }

    fn names() -> Vec<&'static str> {
        flags().iter().map(|flag| flag.name).collect()
    }

    /// CTL3-15.
    #[test]
    fn environment_sets_flags_and_warns_about_others() {
        let mut values = values(&[]);
        let environment =
            pairs(&[("ETCDCTL_ENDPOINTS", "a,b"), ("ETCDCTL_FOO", "1"), ("PATH", "/")]);
        let lines = apply_environment(&mut values, &names(), &environment, &[]).unwrap();
        assert_eq!(values.list("endpoints"), ["a", "b"]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("unrecognized environment variable"), "{}", lines[0]);
        assert!(lines[0].contains("ETCDCTL_FOO=1"), "{}", lines[0]);
    }

    /// CTL3-15.
    #[test]
    fn flag_and_variable_together_are_fatal() {
        let mut values = values(&["--endpoints", "a"]);
        let environment = pairs(&[("ETCDCTL_ENDPOINTS", "a")]);
        let lines = apply_environment(&mut values, &names(), &environment, &[]).unwrap_err();
        assert!(lines[0].contains("conflicting environment variable is shadowed"), "{}", lines[0]);
    }

    /// CTL3-08.
    #[test]
    fn password_is_given_apart_or_behind_a_colon_or_asked_for() {
        let read = |line: &[&str]| {
            let flags = GlobalFlags::read(&values(line), || Ok("asked".to_owned())).unwrap();
            match flags.client.credentials {
                Some(Credentials::Password { user, password }) => format!("{user} {password}"),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(read(&["--user", "u:p:q"]), "u p:q");
        assert_eq!(read(&["--user", "u:v", "--password", "p"]), "u:v p");
        assert_eq!(read(&["--user", "u"]), "u asked");
        assert_eq!(read(&["--auth-jwt-token", "t", "--user", "u"]), "Some(Token)");
    }

    /// CTL3-09, SRV-193: texts of etcdctl 3.5.30.
    #[test]
    fn endpoints_from_dns_are_used_if_they_may_be() {
        let found = || ["https://a:1", "http://b:2"].map(str::to_owned).to_vec();
        let read = |line: &[&str], found: Vec<String>| {
            let mut flags = GlobalFlags::read(&values(line), || Ok(String::new())).unwrap();
            flags.take_discovered(found);
            (flags.client.endpoints, flags.client.tls.and_then(|tls| tls.server_name))
        };
        let all = ["-d", "example.com"];
        assert_eq!(read(&all, found()), (found(), None));
        let secure = ["-d", "example.com", "--insecure-discovery=false"];
        let domain = Some("example.com".to_owned());
        assert_eq!(read(&secure, found()), (vec!["https://a:1".to_owned()], domain.clone()));
        let plain = vec!["http://b:2".to_owned()];
        assert_eq!(read(&secure, plain), (vec!["127.0.0.1:2379".to_owned()], domain));
    }

    /// CTL3-07.
    #[test]
    fn empty_file_name_is_refused() {
        let error = GlobalFlags::read(&values(&["--cert", ""]), || Ok(String::new())).unwrap_err();
        assert_eq!(error, Failure::bad_arguments("empty string is passed to --cert option"));
    }
}
