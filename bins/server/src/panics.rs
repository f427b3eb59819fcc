//! What a panic does: it ends the process, whatever the build.

/// A broken rule ends the process, also in a build that unwinds: a server without one of its threads
/// would answer as if nothing had happened (C14).
pub(crate) fn abort() {
    let log = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        log(info);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;
    use server::logging;

    /// Tells the test below that it is the program that breaks.
    const CHILD: &str = "PANIC_IN_A_THREAD";

    /// C14.
    #[test]
    fn a_panic_in_a_thread_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            logging::init();
            abort();
            let thread = std::thread::spawn(|| panic!("two and two are five"));
            drop(thread.join());
            return;
        }
        let name = "panics::tests::a_panic_in_a_thread_ends_the_process";
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
