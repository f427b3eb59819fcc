//! What the operating system and the supervisor say, and what they are told.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
