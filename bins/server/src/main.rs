//! The program `etcd`: reads its configuration, sets up the log, starts a member.

mod gateway;
mod grpc_proxy;
mod output;
mod panics;

use std::process::ExitCode;

use output::{fail, print};
use server::config::{self, Config, ConfigError, Invocation, Notice};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    server::logging::init();
    panics::abort();
    server::survive_file_size_limit();
    server::show_threads_on_quit();
    let reading = config::read_process();
    match reading.outcome {
        Ok(Invocation::Start(config)) => start(&config, &reading.notices),
        Ok(Invocation::Print(text)) => print(&text),
        Ok(Invocation::Subcommand { name, arguments }) => match name.as_str() {
            "grpc-proxy" => grpc_proxy::main(&arguments),
            // There is no other.
            _ => gateway::main(&arguments),
        },
        Err(ConfigError::Usage(error)) => {
            fail(2, &format!("{error}\n{}\n{}", error.remedy(), config::USAGE))
        }
        Err(ConfigError::Refused(refusal)) => {
            reading.notices.iter().for_each(Notice::log);
            config::log_refusal("failed to verify flags", &refusal);
            ExitCode::FAILURE
        }
    }
}

fn start(config: &Config, notices: &[Notice]) -> ExitCode {
    if let Err(error) = server::logging::configure(&config.logging.settings) {
        server::logging::log_failure("failed to open the log", &error);
        return ExitCode::FAILURE;
    }
    notices.iter().for_each(Notice::log);
    match server::run(config) {
        Ok(signal) => {
            signal.into_iter().for_each(server::Signal::end_process);
            ExitCode::SUCCESS
        }
        Err(error) => {
            error.log();
            ExitCode::FAILURE
        }
    }
}
