//! What the operating system and the supervisor say, and what they are told.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn wait() {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(error = %error, "cannot listen for signals");
                return std::future::pending().await;
            }
        };
    let name = tokio::select! {
        _ = terminate.recv() => "terminated",
        _ = interrupt.recv() => "interrupt",
    };
    tracing::info!(signal = name, "received signal; shutting down");
}

/// Tells systemd that the member serves (SRV-150); nothing without a notify socket.
pub(crate) fn notify_ready() {
    match sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        Ok(()) => {}
        Err(error) => tracing::warn!(error = %error, "failed to notify systemd for readiness"),
    }
}
