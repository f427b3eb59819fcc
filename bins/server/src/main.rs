//! The program `etcd`: reads its configuration, sets up the log, starts a member.

use std::io::Write as _;
use std::process::ExitCode;

use server::config::{self, Config, ConfigError, Invocation, Notice};
use server::logging;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "Usage: etcd [flags]; etcd --help lists them";

fn main() -> ExitCode {
    logging::init();
    abort_on_panic();
    let reading = config::read_process();
    match reading.outcome {
        Ok(Invocation::Start(config)) => start(&config, &reading.notices),
        Ok(Invocation::Help) => print(&config::help_text()),
        Ok(Invocation::Version) => print(&config::version_text()),
        Ok(Invocation::Subcommand { name, .. }) => {
            fail(1, &format!("Error: etcd {name} is not built yet"))
        }
        Err(ConfigError::Usage(error)) => fail(2, &format!("{error}\n{}\n{USAGE}", error.remedy())),
        Err(ConfigError::Refused(refusal)) => {
            reading.notices.iter().for_each(Notice::log);
            config::log_refusal("failed to verify flags", &refusal);
            ExitCode::FAILURE
        }
    }
}

/// A broken rule ends the process, also in a build that unwinds: a server without one of its threads
/// would answer as if nothing had happened (C14).
fn abort_on_panic() {
    let log = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        log(info);
        std::process::abort();
    }));
}

fn start(config: &Config, notices: &[Notice]) -> ExitCode {
    if let Err(error) = logging::configure(&config.logging.settings) {
        logging::log_failure("failed to open the log", &error);
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

fn print(text: &str) -> ExitCode {
    // A reader that goes away early, such as `head`, is no failure.
    drop(std::io::stdout().write_all(text.as_bytes()));
    ExitCode::SUCCESS
}

fn fail(code: u8, text: &str) -> ExitCode {
    drop(writeln!(std::io::stderr(), "{text}"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    /// Tells the test below that it is the program that breaks.
    const CHILD: &str = "PANIC_IN_A_THREAD";

    /// C14.
    #[test]
    fn a_panic_in_a_thread_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            logging::init();
            abort_on_panic();
            let thread = std::thread::spawn(|| panic!("two and two are five"));
            drop(thread.join());
            return;
        }
        let name = "tests::a_panic_in_a_thread_ends_the_process";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(6), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|line| line.contains("two and two are five"));
        assert!(line.is_some_and(|line| line.starts_with("{\"level\":\"panic\"")), "{text}");
    }
}
