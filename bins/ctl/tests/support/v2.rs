//! A tool of the second generation and the server it talks to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::script::Line;
use super::server::Server;

/// Flags for machines that are busy with other things: the tool's own patience is two seconds.
pub(crate) const PATIENTLY: [&str; 4] = ["--timeout", "60s", "--total-timeout", "60s"];

/// No line takes so long, on any machine.
const LINE_TIME_MAX: Duration = Duration::from_secs(120);

/// Our `etcdctl`.
pub(crate) fn ours() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_etcdctl"))
}

/// Our `etcd`, which is built with the workspace beside `etcdctl`; without it a test says that it is
/// skipped.
pub(crate) fn server_program() -> Option<PathBuf> {
    let path = ours().with_file_name("etcd");
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not built", path.display());
    None
}

/// A tool and its server.
#[derive(Debug)]
pub(crate) struct Side<'s> {
    program: PathBuf,
    server: &'s Server,
    /// The server's own id.
    member: String,
    /// Of the last member that was added.
    added: String,
}

impl<'s> Side<'s> {
    pub(crate) fn new(program: &Path, server: &'s Server) -> Self {
        let (member, added) = (String::new(), String::new());
        let mut side = Self { program: program.to_owned(), server, member, added };
        let output = side.command(&["member".to_owned(), "list".to_owned()]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        side.member = text.split(':').next().unwrap().to_owned();
        assert!(!side.member.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        side
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.client_port)
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        if !words.iter().any(|word| word.contains("timeout")) {
            command.args(PATIENTLY);
        }
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ETCDCTL_API", "2")
            .current_dir(self.server.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let is_asked_elsewhere =
            |word: &String| ["-endpoint", "-C", "-peers"].iter().any(|name| word.contains(name));
        if !words.iter().any(is_asked_elsewhere) {
            command.env("ETCDCTL_ENDPOINTS", self.endpoint());
        }
        command
    }

    fn expand(&self, word: &str) -> String {
        let port = self.server.client_port.to_string();
        let folder = self.server.folder.path().display().to_string();
        word.replace("$PORT", &port)
            .replace("$MEMBER", &self.member)
            .replace("$ADDED", &self.added)
            .replace("$DIR", &folder)
    }

    /// Runs a line and tells what it printed, with names for what differs from run to run.
    pub(crate) fn run(&mut self, line: &Line) -> String {
        let words: Vec<String> = line.words.iter().map(|word| self.expand(word)).collect();
        let mut command = self.command(&words);
        for (name, value) in &line.variables {
            if value == "-" {
                command.env_remove(name);
            } else {
                command.env(name, self.expand(value));
            }
        }
        let said = finish(command.spawn().unwrap(), line);
        if let Some((_, rest)) = said.split_once("with ID ") {
            self.added = rest.split(' ').next().unwrap().to_owned();
        }
        self.name(&said)
    }

    fn name(&self, text: &str) -> String {
        // Ids first: the digits of a port may stand in one.
        let text = text.replace(&self.member, "MEMBER");
        let text = if self.added.is_empty() { text } else { text.replace(&self.added, "ADDED") };
        let text = text
            .replace(&self.server.client_port.to_string(), "PORT")
            .replace(&self.server.peer_port.to_string(), "PEER")
            .replace(&self.server.folder.path().display().to_string(), "DIR");
        let mut lines: Vec<String> = text.lines().map(without_chance).collect();
        // Members stand in the order of their ids, and that of an added one is anything.
        for at in 1..lines.len() {
            if lines[at - 1].contains("ADDED") && lines[at].contains("MEMBER") {
                lines.swap(at - 1, at);
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// What chance and clocks decide gets a name.
fn without_chance(line: &str) -> String {
    if let Some(cluster) = line.strip_prefix("ETCD_INITIAL_CLUSTER=") {
        let mut members: Vec<_> = cluster.trim_matches('"').split(',').collect();
        members.sort_unstable();
        return format!("ETCD_INITIAL_CLUSTER={}", members.join(","));
    }
    if let Some((before, rest)) = line.split_once("\"expiration\":\"") {
        let (_, after) = rest.split_once('"').unwrap();
        return format!("{before}\"expiration\":\"TIME\"{after}");
    }
    line.to_owned()
}

fn finish(mut child: Child, line: &Line) -> String {
    let mut stdin = child.stdin.take().unwrap();
    // A program that does not read its input closes it.
    stdin.write_all(line.stdin.as_bytes()).ok();
    drop(stdin);
    let Some(lines_max) = line.lines_max else {
        let is_over = ends(&mut child);
        let output = child.wait_with_output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // `stty` complains where there is no terminal.
        let lines = stderr.split_inclusive('\n').filter(|line| !line.starts_with("stty: "));
        let stderr: String = lines.collect();
        let code = output.status.code().filter(|_| is_over);
        let code = code.map_or_else(|| "did not end".to_owned(), |code| code.to_string());
        return format!("{stdout}[stderr] {stderr}[code] {code}\n");
    };
    let reader = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        reader.lines().map_while(Result::ok).try_for_each(|it| sender.send(it))
    });
    let stdout: String = (0..lines_max)
        .map_while(|_| lines.recv_timeout(LINE_TIME_MAX).ok())
        .map(|line| line + "\n")
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    format!("{stdout}[stderr] {stderr}[ended after {lines_max} lines]\n")
}

/// Waits for the end; what takes too long is ended, and `false` returned. What such a program prints
/// fits into a pipe.
fn ends(child: &mut Child) -> bool {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if LINE_TIME_MAX < began.elapsed() {
            child.kill().unwrap();
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
