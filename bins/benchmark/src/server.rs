//! Servers that the benchmark starts itself, and their restart time.
//!
//! Only flags that every server under test knows are used. A server that is dropped is killed.
//!
//! Invariant: while a [`Server`] exists, its process is this program's child.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::connection::Endpoint;
use crate::control::Control;
use crate::process::Process;

/// A running server with its data.
#[derive(Debug)]
pub(crate) struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    child: SharedChild,
}

/// A server's process, which an interruption must be able to kill while it is in use.
pub(crate) type SharedChild = Arc<Mutex<Child>>;

/// The servers that an interruption kills.
static RUNNING: Mutex<Vec<Weak<Mutex<Child>>>> = Mutex::new(Vec::new());

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// Its folder, log or ports could not be had.
    #[error("preparing {}", folder.display())]
    Prepare {
        /// The server's folder.
        folder: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The program cannot be run.
    #[error("running {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It ended instead of serving.
    #[error("{} ended with {status}; last line of its log: {log_tail}", program.display())]
    Ended {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last line it wrote.
        log_tail: String,
    },
    /// It runs, but does not answer.
    #[error("{} does not answer after {} s", program.display(), waited.as_secs())]
    Silent {
        /// The program.
        program: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
}

/// Longest time from the start to the first answer.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Restart times are exact to about this.
const START_POLL: Duration = Duration::from_millis(5);

impl Server {
    /// Starts a program on free loopback ports with an empty data directory in `folder`, and waits
    /// until it serves.
    ///
    /// # Errors
    /// If it does not come to serve; its process is gone then.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        folder: &Path,
    ) -> Result<Self, ServerError> {
        let prepare = |source| ServerError::Prepare { folder: folder.to_owned(), source };
        let (client, peer) = free_ports().map_err(prepare)?;
        let child = spawn(program, all_flags(arguments, folder, client, peer), folder)?;
        let server = Self {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            folder: folder.to_owned(),
            client,
            peer,
            child,
        };
        server.wait_until_serving()?;
        Ok(server)
    }

    /// Where clients connect.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from(self.client)
    }

    /// Its process.
    pub(crate) fn process(&self) -> Process {
        Process::new(lock(&self.child).id())
    }

    /// Kills it, starts it again on the same data, and returns the time from the start of the new
    /// process to its first linearizable answer.
    ///
    /// # Errors
    /// If it does not come to serve again.
    pub(crate) fn restart(&mut self) -> Result<Duration, ServerError> {
        self.kill();
        let begin = Instant::now();
        let flags = all_flags(&self.arguments, &self.folder, self.client, self.peer);
        self.child = spawn(&self.program, flags, &self.folder)?;
        self.wait_until_serving()?;
        Ok(begin.elapsed())
    }

    /// Kills it and removes its data.
    pub(crate) fn remove(self) {
        self.kill();
        // What cannot be removed lies below the work folder, whose removal is reported.
        fs::remove_dir_all(&self.folder).ok();
    }

    fn kill(&self) {
        kill(&mut lock(&self.child));
    }

    fn wait_until_serving(&self) -> Result<(), ServerError> {
        let begin = Instant::now();
        let mut control = None;
        loop {
            if let Ok(Some(status)) = lock(&self.child).try_wait() {
                return Err(ServerError::Ended {
                    program: self.program.clone(),
                    status,
                    log_tail: log_tail(&self.folder),
                });
            }
            if control.is_none() {
                control = Control::connect(&self.endpoint()).ok();
            }
            if control.as_ref().is_some_and(|control| control.linearizable_get().is_ok()) {
                return Ok(());
            }
            if begin.elapsed() > START_TIMEOUT {
                let program = self.program.clone();
                return Err(ServerError::Silent { program, waited: START_TIMEOUT });
            }
            std::thread::sleep(START_POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a server's process, with its log in its folder.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn spawn(
    program: &Path,
    flags: Vec<String>,
    folder: &Path,
) -> Result<SharedChild, ServerError> {
    let prepare = |source| ServerError::Prepare { folder: folder.to_owned(), source };
    let mut running = RUNNING.lock().expect("nobody panics while starting a server");
    fs::create_dir_all(folder).map_err(prepare)?;
    let log = File::options().create(true).append(true).open(folder.join(LOG)).map_err(prepare)?;
    let errors = log.try_clone().map_err(prepare)?;
    let child = Command::new(program)
        .args(flags)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|source| ServerError::Run { program: program.to_owned(), source })?;
    let child = Arc::new(Mutex::new(child));
    running.retain(|child| child.strong_count() > 0);
    running.push(Arc::downgrade(&child));
    Ok(child)
}

/// Kills every server that was started here and is still in use, and lets no other start: for a
/// program that is about to end at once.
pub(crate) fn kill_all() {
    let running = RUNNING.lock().expect("nobody panics while starting a server");
    for child in running.iter().filter_map(Weak::upgrade) {
        kill(&mut lock(&child));
    }
    // Whoever wants to start a server waits for this lock until the program ends.
    std::mem::forget(running);
}

pub(crate) fn kill(child: &mut Child) {
    // Both fail only for a process that is gone already.
    child.kill().ok();
    child.wait().ok();
}

pub(crate) fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().expect("nobody panics while asking a process")
}

const LOG: &str = "log";

fn all_flags(
    arguments: &[String],
    folder: &Path,
    client: SocketAddr,
    peer: SocketAddr,
) -> Vec<String> {
    let mut flags = vec![
        "--name=bench".to_owned(),
        format!("--data-dir={}", folder.join("data").display()),
        format!("--listen-client-urls=http://{client}"),
        format!("--advertise-client-urls=http://{client}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster=bench=http://{peer}"),
        "--log-level=error".to_owned(),
    ];
    flags.extend_from_slice(arguments);
    flags
}

/// Two ports that are free.
pub(crate) fn free_ports() -> io::Result<(SocketAddr, SocketAddr)> {
    Ok((ports::free_address()?, ports::free_address()?))
}

pub(crate) fn log_tail(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join(LOG)).unwrap_or_default();
    text.lines().last().unwrap_or("(empty)").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_ends_is_reported_with_its_status() {
        let folder = tempfile::tempdir().unwrap();
        let error = Server::start(Path::new("/bin/false"), &[], folder.path()).unwrap_err();
        assert!(matches!(error, ServerError::Ended { .. }), "{error}");
    }

    #[test]
    fn missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Server::start(Path::new("/no/such/etcd"), &[], folder.path()).unwrap_err();
        assert_eq!(error.to_string(), "running /no/such/etcd");
    }
}
