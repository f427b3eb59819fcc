//! `etcd gateway`: its command line, and one call (SRV-175).
//!
//! Source: etcd server/etcdmain/{gateway,main}.go.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use cli::command::{App, Command, Invocation, Outcome};
use cli::flag::{Flag, Kind, Values};
use server::tcp_gateway::{self, Discovery, GatewayError, Settings};

/// Reads what stands behind the name of this mode and does it.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let words = std::iter::once("gateway").chain(arguments.iter().map(String::as_str));
    let words: Vec<_> = words.map(|word| word.as_bytes().to_vec()).collect();
    match app().resolve(&words) {
        Outcome::Run(Invocation { flags, .. }) => start(&settings(&flags)),
        Outcome::Said { stdout, stderr, code } => {
            say(&mut io::stdout(), &stdout);
            // What is wrong stands in the first line, and etcd says it again behind the usage.
            let error = stderr.lines().next().and_then(|line| line.strip_prefix("Error: "));
            say(&mut io::stderr(), &format!("{stderr}{}", error.unwrap_or_default()));
            code.into()
        }
    }
}

fn app() -> App<()> {
    let start = Command::new("start", "start the gateway").run(()).flags([
        Flag::text("listen-addr", "listen address").or("127.0.0.1:23790"),
        Flag::text("discovery-srv", "DNS domain used to bootstrap initial cluster"),
        Flag::text("discovery-srv-name", "service name to query when using DNS discovery"),
        Flag::bool("insecure-discovery", "accept insecure SRV records"),
        Flag::text(
            "trusted-ca-file",
            "path to the client server TLS CA file for verifying the discovered endpoints when \
             discovery-srv is provided.",
        ),
        Flag::new(
            "endpoints",
            Kind::List,
            "127.0.0.1:2379",
            "comma separated etcd cluster endpoints",
        ),
        Flag::new(
            "retry-delay",
            Kind::Duration,
            "1m0s",
            "duration of delay before retrying failed endpoints",
        ),
    ]);
    let gateway =
        Command::new("gateway <subcommand>", "gateway related command").subcommands([start]);
    let root = Command::new("etcd", "etcd server").subcommands([gateway]);
    App { root, groups: &[], help_footer: "", is_plain: false }
}

fn settings(flags: &Values) -> Settings {
    let text = |name| Some(flags.text(name)).filter(|text| !text.is_empty());
    let discovery = text("discovery-srv").map(|domain| Discovery {
        domain: domain.to_owned(),
        service_name: flags.text("discovery-srv-name").to_owned(),
        insecure: flags.bool("insecure-discovery"),
        trusted_ca_file: text("trusted-ca-file").map(PathBuf::from),
    });
    Settings {
        listen_address: flags.text("listen-addr").to_owned(),
        endpoints: flags.list("endpoints").to_vec(),
        discovery,
        retry_delay: flags.duration("retry-delay"),
    }
}

fn start(settings: &Settings) -> ExitCode {
    let command_line: Vec<_> = std::env::args_os().collect();
    let command_line: Vec<_> =
        command_line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match tcp_gateway::run(settings, &command_line) {
        Ok(signal) => {
            signal.end_process();
            ExitCode::SUCCESS
        }
        Err(error) => {
            // etcd ends this one without a line end.
            let end = if matches!(error, GatewayError::Endpoint(_)) { "" } else { "\n" };
            let text = format!("{error}{end}");
            if error.is_for_stderr() {
                say(&mut io::stderr(), &text);
            } else {
                say(&mut io::stdout(), &text);
            }
            say(&mut io::stderr(), &format!("{}\n", error.remedy()));
            ExitCode::FAILURE
        }
    }
}

/// Nobody may be reading any more; that is no failure.
pub(crate) fn say(to: &mut impl Write, text: &str) {
    drop(to.write_all(text.as_bytes()).and_then(|()| to.flush()));
}
