//! One server process.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// How long a server may take to answer, in a debug build on a busy machine.
const START_TIME_MAX: Duration = Duration::from_secs(120);

/// How long a server may take to end after SIGTERM.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

/// Starts of a server whose ports somebody took before it did.
pub(crate) const STARTS_MAX: u32 = 3;

/// Between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(10);

/// The folder with etcd's own programs of a line (`3.4`, `3.5`); `None`, with a note, without.
#[must_use]
pub fn real_etcd(line: &str) -> Option<PathBuf> {
    let variable = format!("REAL_ETCD_{}", line.replace('.', ""));
    let folder = std::env::var_os(&variable).map(PathBuf::from);
    let found = folder.filter(|folder| folder.join("etcd").is_file());
    if found.is_none() {
        println!("skipped: {variable} names no folder with etcd {line}");
    }
    found
}

/// Whether a server did not start, as its log in the error says, because somebody listens on its
/// port: nobody promises that a port stays free until the server takes it.
pub(crate) fn is_port_taken(error: &anyhow::Error) -> bool {
    error.to_string().contains("address already in use")
}

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Flags behind those every server gets.
    pub flags: Vec<String>,
}

/// A running server, or one that was stopped and can be started again.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    client_port: u16,
    peer_port: u16,
    options: ServerOptions,
    child: Option<Child>,
}

impl Server {
    /// Starts `program` with its data in `folder/data` and waits until it answers.
    ///
    /// # Errors
    ///
    /// It does not start, or ends; its log is part of the text.
    pub fn start(program: &Path, folder: &Path, options: ServerOptions) -> anyhow::Result<Self> {
        let mut server = Self {
            program: program.to_owned(),
            data_dir: folder.join("data"),
            log: folder.join("log"),
            client_port: ports::free()?,
            peer_port: ports::free()?,
            options,
            child: None,
        };
        for _ in 1..STARTS_MAX {
            match server.launch() {
                Err(error) if is_port_taken(&error) => {
                    println!("a port was taken meanwhile; the server gets others");
                    server.kill()?;
                    (server.client_port, server.peer_port) = (ports::free()?, ports::free()?);
                }
                started => return started.map(|()| server),
            }
        }
        server.launch()?;
        Ok(server)
    }

    /// Starts `program` with these flags and its data in a new folder, which goes with its handle.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn fresh(program: &Path, flags: &[&str]) -> anyhow::Result<(Self, TempDir)> {
        let folder = tempfile::tempdir()?;
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let server = Self::start(program, folder.path(), ServerOptions { flags })?;
        Ok((server, folder))
    }

    /// Starts again on the same data and ports, perhaps another program.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    ///
    /// # Panics
    ///
    /// If the server runs.
    pub fn restart(&mut self, program: &Path) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "a server is started only once it is down");
        self.program = program.to_owned();
        self.launch()
    }

    /// As [`Server::restart`], but does not wait until the server is healthy.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    ///
    /// # Panics
    ///
    /// If the server runs.
    pub fn restart_unready(&mut self, program: &Path) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "a server is started only once it is down");
        self.program = program.to_owned();
        self.spawn()
    }

    /// Ends the process as SIGKILL does.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks the process to end and waits for it.
    ///
    /// # Errors
    ///
    /// It does not end in time.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait()
    }

    /// Sends the process a signal, such as `INT`.
    ///
    /// # Errors
    ///
    /// It is down or gone.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the server runs")?;
        let told =
            Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status()?;
        anyhow::ensure!(told.success(), "the process is gone");
        Ok(())
    }

    /// Waits until the process, which was told to, has ended.
    ///
    /// # Errors
    ///
    /// It does not end in time.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("the server runs")?;
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if STOP_TIME_MAX < began.elapsed() {
                child.kill()?;
                child.wait()?;
                bail!("the server did not end in time; its log:\n{}", self.log());
            }
            thread::sleep(POLL);
        }
    }

    /// Whether the process ended without being asked to.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|end| end.is_some()))
    }

    /// Where clients connect.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Where clients connect, without the scheme.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.client_port))
    }

    /// The port where clients connect.
    #[must_use]
    pub fn client_port(&self) -> u16 {
        self.client_port
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process id.
    ///
    /// # Panics
    ///
    /// If the server is down.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// What the server wrote to its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Gives the server more flags at its next start.
    pub fn add_flags(&mut self, flags: &[&str]) {
        self.options.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    }

    /// The command line.
    #[must_use]
    pub fn command(&self) -> Command {
        let client = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .args(["--name", "m0"])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m0={peer}")])
            .args(&self.options.flags);
        command
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.await_ready()
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all(self.log.parent().context("a log has a folder")?)?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn await_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if self.is_healthy() {
                return Ok(());
            }
            let child = self.child.as_mut().expect("just started");
            if let Some(status) = child.try_wait()? {
                self.child = None;
                bail!("the server ended with {status}; its log:\n{}", self.log());
            }
            if START_TIME_MAX < began.elapsed() {
                bail!("the server does not answer; its log:\n{}", self.log());
            }
            thread::sleep(POLL);
        }
    }

    fn is_healthy(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.client_port)) else {
            return false;
        };
        let request = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let asked = stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .and_then(|()| stream.write_all(request.as_bytes()));
        let mut answer = String::new();
        asked.is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("\"health\":\"true\"")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            println!("a server is left behind: {error}");
        }
    }
}
