//! The program `etcd`: reads its configuration, sets up the log, starts a member.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "help, version and usage errors")]

use std::process::ExitCode;

use server::config::{self, Config, ConfigError, Invocation, Notice};
use server::logging;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    logging::init();
    let reading = config::read_process();
    match reading.outcome {
        Ok(Invocation::Start(config)) => start(*config, &reading.notices),
        Ok(Invocation::Help) => {
            print!("{}", config::help_text());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Version) => {
            print!("{}", config::version_text());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Subcommand { name, .. }) => {
            eprintln!("Error: etcd {name} is not built yet");
            ExitCode::FAILURE
        }
        Err(ConfigError::Usage(error)) => {
            eprintln!("{error}\n{}\nUsage: etcd [flags]; etcd --help lists them", error.remedy());
            ExitCode::from(2)
        }
        Err(ConfigError::Refused(refusal)) => {
            reading.notices.iter().for_each(Notice::log);
            config::log_refusal(&refusal);
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config, notices: &[Notice]) -> ExitCode {
    if let Err(error) = logging::configure(&config.logging.settings) {
        logging::log_failure("failed to open the log", &error);
        return ExitCode::FAILURE;
    }
    notices.iter().for_each(Notice::log);
    match server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::log_failure("failed to start etcd", &error);
            ExitCode::FAILURE
        }
    }
}
