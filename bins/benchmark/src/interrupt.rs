//! Interruption of the suite: no server and no gigabytes are left behind.

use std::path::PathBuf;
use std::{fs, io, thread};

use tokio::signal::unix::{SignalKind, signal};

use crate::server;

/// From now on, an interrupt or a request to terminate kills the servers, removes `work_folder`
/// and ends the program.
///
/// # Errors
/// If signals cannot be listened to.
pub(crate) fn clean_up_on_signals(work_folder: PathBuf) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listening = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(listening);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        });
        server::kill_all();
        // The program ends either way, and a folder that stays is found by its name.
        fs::remove_dir_all(&work_folder).ok();
        std::process::exit(code);
    })?;
    Ok(())
}
