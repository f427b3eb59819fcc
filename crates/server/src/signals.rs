//! What the operating system and the supervisor say, and what they are told.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::iterator::Signals;
use tokio::signal::unix::{SignalKind, signal};

/// A signal that ended the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Signal {
    /// Ends the process as the signal would have.
    pub fn end_process(self) {
        let number = match self {
            Self::Terminate => signal_hook::consts::SIGTERM,
            Self::Interrupt => signal_hook::consts::SIGINT,
        };
        if let Err(error) = signal_hook::low_level::emulate_default_handler(number) {
            tracing::warn!(error = %error, "cannot end by the signal");
        }
    }
}

/// Keeps the process alive when a file reaches the limit of its size (`ulimit -f`), so that the write
/// fails and its error is told (D11); by default the system ends the process without a word.
pub fn survive_file_size_limit() {
    // Nobody looks at the flag: that there is a handler is what counts.
    let seen = Arc::new(AtomicBool::new(false));
    if let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen) {
        tracing::warn!(error = %error, "cannot listen for the signal of the file size limit");
    }
}

/// On SIGQUIT tells on standard error what every thread does and ends the process with status 2, as
/// the runtime of Go does (SRV-153): for a process that hangs, so on a thread that needs no other.
pub fn show_threads_on_quit() {
    let listening = Signals::new([signal_hook::consts::SIGQUIT]).and_then(|mut signals| {
        std::thread::Builder::new().name("quit".to_owned()).spawn(move || {
            if signals.forever().next().is_some() {
                let text = format!("SIGQUIT: quit\n\n{}", threads());
                // Who does not listen is not told.
                let _told = std::io::stderr().write_all(text.as_bytes());
                signal_hook::low_level::exit(2);
            }
        })
    });
    if let Err(error) = listening {
        tracing::warn!(error = %error, "cannot listen for the signal to quit");
    }
}

/// A line for each thread of this process: its number and name, its state, and where in the kernel it
/// waits; empty where the system does not say.
fn threads() -> String {
    let read = |task: &Path, file: &str| {
        let text = fs::read_to_string(task.join(file)).unwrap_or_default();
        text.trim_end().to_owned()
    };
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return String::new() };
    let mut lines = String::new();
    for task in tasks.flatten() {
        let number = task.file_name();
        let (name, waits) = (read(&task.path(), "comm"), read(&task.path(), "wchan"));
        let status = read(&task.path(), "status");
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or_default();
        let (number, state) = (number.display(), state.trim());
        lines.push_str(&format!("thread {number} {name:?}: {state}, in {waits}\n"));
    }
    lines
}

/// Waits for SIGTERM or SIGINT.
pub async fn wait() -> Signal {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(error = %error, "cannot listen for signals");
                return std::future::pending().await;
            }
        };
    let (signal, name) = tokio::select! {
        _ = terminate.recv() => (Signal::Terminate, "terminated"),
        _ = interrupt.recv() => (Signal::Interrupt, "interrupt"),
    };
    tracing::info!(signal = name, "received signal; shutting down");
    signal
}

/// Tells systemd that this program serves (SRV-150); nothing without a notify socket.
pub fn notify_ready() {
    tracing::info!("notifying init daemon");
    match sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        Ok(()) => tracing::info!("successfully notified init daemon"),
        Err(error) => {
            tracing::error!(error = %error, "failed to notify systemd for readiness");
        }
    }
}
