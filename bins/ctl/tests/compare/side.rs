//! Programs of one release with the member they talk to.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::normal::{Names, is_log, without_hash};
use super::support::script::Line;
use super::support::server::Server;
use super::wire;

/// No line takes so long, on any machine.
const LINE_TIME_MAX: Duration = Duration::from_secs(120);

/// What another thread of a Go program says when the first one's panic caught it in time.
const SECOND_PANIC: &str =
    "panic: runtime error: invalid memory address or nil pointer dereference\n\n";

/// What a run left behind, with names for everything that differs from run to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.stdout)?;
        for line in self.stderr.lines() {
            writeln!(formatter, "[stderr] {line}")?;
        }
        match self.code {
            Some(code) => writeln!(formatter, "[code] {code}"),
            None => writeln!(formatter, "[ended]"),
        }
    }
}

/// The tools of a release.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// `etcdctl`.
    pub(crate) online: PathBuf,
    /// `etcdutl`.
    pub(crate) offline: PathBuf,
}

impl Tools {
    /// Those in a folder.
    pub(crate) fn of(folder: &Path) -> Self {
        Self { online: folder.join("etcdctl"), offline: folder.join("etcdutl") }
    }
}

/// Tools and their member.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    tools: Tools,
    server: &'a Server,
    /// Values of `$NAME` in scripts.
    variables: BTreeMap<&'static str, String>,
    names: Names,
}

impl<'a> Side<'a> {
    /// `destination` is a second member, for what goes from one to another.
    pub(crate) fn new(tools: Tools, server: &'a Server, destination: Option<&Server>) -> Self {
        let endpoint = format!("127.0.0.1:{}", server.client_port);
        let folder = server.folder.path().display().to_string();
        let mut names = Names::default();
        let mut variables = BTreeMap::from([("EP", endpoint.clone()), ("DIR", folder.clone())]);
        variables.insert("MIB", "x".repeat(1 << 20));
        if let Some(destination) = destination {
            let endpoint = format!("127.0.0.1:{}", destination.client_port);
            names.learn(endpoint.as_str(), "DEST");
            variables.insert("DEST", endpoint);
        }
        names.learn(endpoint, "EP");
        names.learn(format!("127.0.0.1:{}", server.peer_port), "PEER");
        names.learn(folder, "DIR");
        let mut side = Self { tools, server, variables, names };
        side.learn_ids();
        side
    }

    /// Runs a line and returns what it printed, with names for what differs.
    pub(crate) fn run(&mut self, line: &Line) -> Output {
        self.run_with(&self.tools.clone(), line)
    }

    /// Runs a line with other tools against this side's member.
    pub(crate) fn run_with(&mut self, tools: &Tools, line: &Line) -> Output {
        let words: Vec<_> = line.words.iter().map(|word| self.expand(word)).collect();
        let program = if line.is_offline { &tools.offline } else { &tools.online };
        let mut command = self.command(program, &words);
        command.envs(line.variables.iter().map(|(name, value)| (name, self.expand(value))));
        let stdin = self.expand(&line.stdin);
        let raw = finish(command.spawn().unwrap(), line, stdin, || self.is_reached(tools, line));
        let is_encoded = line.words.iter().any(|word| word == "protobuf");
        let stdout = match wire::text(&raw.stdout).filter(|_| is_encoded) {
            Some(text) => text,
            None => String::from_utf8_lossy(&raw.stdout).into_owned(),
        };
        self.learn_lease(&stdout);
        self.learn_member(&stdout);
        let stderr = raw.stderr.lines().filter(|line| !is_log(line));
        let stderr: String = stderr.map(|line| format!("{line}\n")).collect();
        let stderr = stderr.replace(SECOND_PANIC, "");
        let stdout = self.names.apply(&stdout);
        let is_status = line.is_offline && words.iter().any(|word| word.starts_with("stat"));
        Output {
            stdout: if is_status { without_hash(&stdout) } else { stdout },
            stderr: self.names.apply(&stderr),
            code: raw.code,
        }
    }

    fn command(&self, program: &Path, words: &[String]) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ETCDCTL_API", "3")
            .args(words)
            .current_dir(self.server.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !words.iter().any(|word| word.starts_with("--endpoints")) {
            command.env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{}", self.server.client_port));
        }
        command
    }

    /// Whether what a line waits for is there.
    fn is_reached(&self, tools: &Tools, line: &Line) -> bool {
        let words: Vec<_> = line.until.iter().map(|word| self.expand(word)).collect();
        let output = self.command(&tools.online, &words).output().unwrap();
        !output.stdout.is_empty()
    }

    fn expand(&self, word: &str) -> String {
        let mut word = word.to_owned();
        for (name, value) in &self.variables {
            word = word.replace(&format!("${name}"), value);
        }
        word
    }

    fn learn_ids(&mut self) {
        let words = ["member", "list", "-w", "json"].map(str::to_owned);
        let output = self.command(&self.tools.online, &words).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for (field, name) in [("\"cluster_id\":", "CLUSTER"), ("\"member_id\":", "MEMBER")] {
            let id: u64 = number_behind(&text, field).unwrap();
            self.names.learn_id(id, name);
            if name == "MEMBER" {
                self.variables.insert("MEMBER", format!("{id:x}"));
            }
        }
    }

    fn learn_lease(&mut self, stdout: &str) {
        let granted = stdout.strip_prefix("lease ").and_then(|rest| rest.split_once(" granted"));
        if let Some((lease, _)) = granted {
            self.learn("LEASE", u64::from_str_radix(lease, 16).unwrap());
        }
        for field in ["\"ID\":", "\"ID\" : "] {
            let id = number_behind(stdout, field).filter(|_| stdout.contains("\"TTL\""));
            if let Some(id) = id {
                self.learn("LEASE", id);
            }
        }
    }

    fn learn_member(&mut self, stdout: &str) {
        let added = stdout.strip_prefix("Member ").and_then(|rest| rest.split_once(" added"));
        if let Some((member, _)) = added {
            self.learn("ADDED", u64::from_str_radix(member.trim(), 16).unwrap());
        }
    }

    /// Takes over an id; those learned before keep their names in outputs.
    fn learn(&mut self, name: &'static str, id: u64) {
        self.variables.insert(name, format!("{id:x}"));
        self.names.learn_id(id, name);
    }
}

fn number_behind(text: &str, field: &str) -> Option<u64> {
    let (_, rest) = text.split_once(field)?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    // Digits at the start of an id in hexadecimal are no number.
    let is_whole = !rest[end..].starts_with(|next: char| next.is_ascii_hexdigit());
    rest[..end].parse().ok().filter(|_| is_whole)
}

struct Raw {
    stdout: Vec<u8>,
    stderr: String,
    code: Option<i32>,
}

/// Lets a program run as its line says. Output is read beside, so that no pipe is ever full.
fn finish(
    mut child: Child,
    line: &Line,
    text: String,
    mut is_reached: impl FnMut() -> bool,
) -> Raw {
    let mut stdin = child.stdin.take().unwrap();
    let stays_open = line.lines_max.is_some();
    let (let_go, held) = mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        // A program that does not read its input closes it.
        stdin.write_all(text.as_bytes()).ok();
        if stays_open {
            held.recv().ok();
        }
    });
    let (sender, lines) = mpsc::channel();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|len| 0 < len) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
    });
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut stderr = Vec::new();
        errors.read_to_end(&mut stderr).ok();
        String::from_utf8_lossy(&stderr).into_owned()
    });
    let began = Instant::now();
    let mut stdout = Vec::new();
    let wanted = line.lines_max.unwrap_or(usize::MAX);
    let mut is_ended = false;
    if line.until.is_empty() {
        let read = (0..wanted).map_while(|_| lines.recv_timeout(LINE_TIME_MAX).ok());
        stdout = read.collect::<Vec<_>>().concat();
        if line.lines_max.is_some() && !line.is_interrupted {
            child.kill().unwrap();
            is_ended = true;
        }
        if line.is_interrupted {
            let id = child.id().to_string();
            Command::new("kill").args(["-INT", &id]).status().unwrap();
        }
    } else {
        while child.try_wait().unwrap().is_none()
            && !is_reached()
            && began.elapsed() < LINE_TIME_MAX
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        is_ended = child.try_wait().unwrap().is_none();
        // It may end at this moment.
        child.kill().ok();
    }
    while child.try_wait().unwrap().is_none() {
        if LINE_TIME_MAX < began.elapsed() {
            child.kill().unwrap();
            is_ended = true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(let_go);
    writer.join().unwrap();
    if !is_ended {
        stdout.extend(lines.iter().flatten());
    }
    let code = child.wait().unwrap().code().filter(|_| !is_ended);
    Raw { stdout, stderr: errors.join().unwrap(), code }
}
