//! One of the two programs that are compared, with the member it talks to.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::script::Line;
use super::server::Server;

/// What a run left behind, with names for everything that differs from run to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}[stderr] {}[code] {:?}", self.stdout, self.stderr, self.code)
    }
}

/// A program and its member.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    program: PathBuf,
    server: &'a Server,
    /// Values of `$NAME` in scripts.
    names: BTreeMap<&'static str, String>,
    /// Texts of this side and the names that stand for them in outputs; applied in order.
    replacements: Vec<(String, String)>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(program: &Path, server: &'a Server) -> Self {
        let endpoint = format!("127.0.0.1:{}", server.client_port);
        let folder = server.folder.path().display().to_string();
        let mut side = Self {
            program: program.to_owned(),
            server,
            names: BTreeMap::from([("EP", endpoint.clone()), ("DIR", folder.clone())]),
            replacements: vec![
                (endpoint, "EP".to_owned()),
                (format!("127.0.0.1:{}", server.peer_port), "PEER".to_owned()),
                (folder, "DIR".to_owned()),
            ],
        };
        side.learn_ids();
        side
    }

    /// Runs a line and returns what it printed, with names for what differs.
    pub(crate) fn run(&mut self, line: &Line) -> Output {
        self.run_program(&self.program.clone(), line)
    }

    /// The program of this side.
    pub(crate) fn program(&self) -> PathBuf {
        self.program.clone()
    }

    /// Runs a line with another program against this side's member.
    pub(crate) fn run_program(&mut self, program: &Path, line: &Line) -> Output {
        let words: Vec<_> = line.words.iter().map(|word| self.expand(word)).collect();
        let mut command = self.command(program, &words);
        command.envs(line.variables.iter().map(|(name, value)| (name, self.expand(value))));
        let raw = finish(command.spawn().unwrap(), line);
        self.learn_lease(&raw.stdout);
        self.learn_member(&raw.stdout);
        let log_line = |line: &&str| line.starts_with("{\"level\":") || line.starts_with("stty: ");
        let stderr: Vec<_> = raw.stderr.lines().filter(|line| !log_line(line)).collect();
        Output {
            stdout: self.name(&raw.stdout),
            stderr: self.name(&stderr.join("\n")),
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
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !words.iter().any(|word| word.starts_with("--endpoints")) {
            command.env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{}", self.server.client_port));
        }
        command
    }

    fn expand(&self, word: &str) -> String {
        let mut word = word.to_owned();
        for (name, value) in &self.names {
            word = word.replace(&format!("${name}"), value);
        }
        word
    }

    fn name(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (value, name) in &self.replacements {
            text = text.replace(value, name);
        }
        // Some texts pad short ids with blanks.
        for name in ["CLUSTER", "MEMBER", "ADDED"] {
            text = text.replace(&format!("  {name} "), &format!(" {name} "));
            text = text.replace(&format!("  {name}\n"), &format!(" {name}\n"));
        }
        text.lines().map(|line| without_chance(&without_times(line)) + "\n").collect()
    }

    fn learn_ids(&mut self) {
        let words = ["member", "list", "-w", "json"].map(str::to_owned);
        let output = self.command(&self.program, &words).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for (field, name) in [("\"cluster_id\":", "CLUSTER"), ("\"member_id\":", "MEMBER")] {
            let id: u64 = number_behind(&text, field).unwrap();
            for text in [id.to_string(), format!("{id:x}")] {
                self.replacements.push((text, name.to_owned()));
            }
            if name == "MEMBER" {
                self.names.insert("MEMBER", format!("{id:x}"));
            }
        }
    }

    fn learn_lease(&mut self, stdout: &str) {
        let granted = stdout.strip_prefix("lease ").and_then(|rest| rest.split_once(" granted"));
        if let Some((lease, _)) = granted {
            let id = u64::from_str_radix(lease, 16).unwrap();
            self.learn("LEASE", id);
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
            let id = u64::from_str_radix(member.trim(), 16).unwrap();
            self.learn("ADDED", id);
        }
    }

    /// Takes over an id; those learned before keep their names in outputs.
    fn learn(&mut self, name: &'static str, id: u64) {
        self.names.insert(name, format!("{id:x}"));
        let texts = [format!("{id:016x}"), format!("{id:x}"), id.to_string()];
        self.replacements.extend(texts.map(|text| (text, name.to_owned())));
    }
}

fn number_behind(text: &str, field: &str) -> Option<u64> {
    let (_, rest) = text.split_once(field)?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    // Digits at the start of an id in hexadecimal are no number.
    let is_whole = !rest[end..].starts_with(|next: char| next.is_ascii_hexdigit());
    rest[..end].parse().ok().filter(|_| is_whole)
}

/// Replaces what a clock decides: durations behind `took`, and remaining seconds of leases.
fn without_times(line: &str) -> String {
    let mut line = line.to_owned();
    for (before, after) in [
        ("took = ", ""),
        (". took ", ""),
        ("\"took\":\"", "\""),
        ("\"Took\" : ", ""),
        ("remaining(", ")"),
        ("\"ttl\":", ","),
        ("\"TTL\" : ", ""),
    ] {
        let Some(start) = line.find(before).map(|start| start + before.len()) else {
            continue;
        };
        let rest = &line[start..];
        let end = if after.is_empty() { None } else { rest.find(after) };
        let end = end.unwrap_or_else(|| rest.find(". (").unwrap_or(rest.len()));
        line.replace_range(start..start + end, "TIME");
    }
    line
}

/// Replaces what random ids decide: the order of members, and the names of lock keys.
fn without_chance(line: &str) -> String {
    if let Some(members) = line.strip_prefix("ETCD_INITIAL_CLUSTER=") {
        let mut members: Vec<_> = members.trim_matches('"').split(',').collect();
        members.sort_unstable();
        return format!("ETCD_INITIAL_CLUSTER={}", members.join(","));
    }
    if line.starts_with("name/") { "name/LEASE".to_owned() } else { line.to_owned() }
}

struct Raw {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

fn finish(mut child: Child, line: &Line) -> Raw {
    let mut stdin = child.stdin.take().unwrap();
    // A program that does not read its input closes it.
    stdin.write_all(line.stdin.as_bytes()).ok();
    let Some(lines_max) = line.lines_max else {
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        return Raw {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        };
    };
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut stdout = String::new();
    for _ in 0..lines_max {
        if reader.read_line(&mut stdout).unwrap() == 0 {
            break;
        }
    }
    child.kill().unwrap();
    drop(stdin);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let code = child.wait().unwrap().code();
    Raw { stdout, stderr, code }
}
