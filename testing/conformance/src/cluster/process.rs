//! One member's process.

use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a member may take to end after SIGTERM.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(5);

/// A number nobody knows.
pub(crate) fn chance() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// A member's program, addresses and folder, and its process if it runs.
#[derive(Debug)]
pub struct Member {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    /// The proxies' addresses.
    pub(crate) client_url: String,
    pub(crate) peer_url: String,
    pub(crate) flags: Vec<String>,
    pub(crate) child: Option<Child>,
    /// Starts so far: sessions of clients end with each.
    pub(crate) starts: u64,
    /// It was removed from the cluster.
    pub(crate) is_removed: bool,
}

impl Member {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens for clients, past the proxy.
    #[must_use]
    pub fn direct_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Where clients reach it, through the proxy.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.client_url
    }

    /// The peer URL it advertises.
    #[must_use]
    pub fn peer_url(&self) -> &str {
        &self.peer_url
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Whether its process was started and not stopped by the harness.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// The process id.
    ///
    /// # Panics
    ///
    /// If it is down.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the member runs").id()
    }

    /// What it wrote to its log, in all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// The command line.
    pub(crate) fn command(&self) -> Command {
        let client = self.direct_endpoint();
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", self.peer_port)])
            .args(["--initial-advertise-peer-urls", &self.peer_url])
            .args(&self.flags);
        command
    }

    pub(crate) fn spawn(&mut self) -> anyhow::Result<u32> {
        assert!(self.child.is_none(), "a member is started only once it is down");
        fs::create_dir_all(&self.folder)?;
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let process = child.id();
        self.child = Some(child);
        self.starts += 1;
        Ok(process)
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the member runs")?;
        let told =
            Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status()?;
        anyhow::ensure!(told.success(), "the process is gone");
        Ok(())
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// Waits until the process has ended.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        anyhow::ensure!(self.child.is_some(), "{} does not run", self.name);
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if STOP_TIME_MAX < began.elapsed() {
                bail!("{} did not end in time; its log:\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) fn wipe(&self) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "a member is wiped only once it is down");
        remove(&self.data_dir())
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            println!("a member is left behind: {error}");
        }
    }
}
