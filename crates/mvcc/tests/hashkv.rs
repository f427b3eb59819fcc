//! HashKV against etcd's own answers, recorded in `testdata/hashkv.txt`.
//!
//! With the folder of etcd 3.5's programs in `REAL_ETCD_35` the same script also runs there, and
//! must give what is recorded.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use retcd_mvcc::{QueryError, RevisionError};
use support::{Fixture, one, put};

/// Somebody who executes the script's lines and says something to each `hash`.
trait Server {
    fn put(&mut self, key: &str, value: &str);
    fn delete(&mut self, key: &str);
    fn txn(&mut self, ops: &[&str]);
    fn compact(&mut self, at: i64);
    fn hash(&mut self, at: i64) -> String;
}

/// Runs the script and gives it back with the server's answers in it.
fn run(script: &str, server: &mut dyn Server) -> String {
    let mut result = String::new();
    let mut in_answer = false;
    for line in script.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        // An answer is one line.
        if std::mem::take(&mut in_answer) && line.starts_with("=") {
            continue;
        }
        if word != "----" {
            writeln!(result, "{line}").unwrap();
        }
        match word {
            "" | "#" => {}
            "----" => in_answer = true,
            "put" => {
                let (key, value) = rest.split_once(' ').unwrap();
                server.put(key, value);
            }
            "del" => server.delete(rest),
            "txn" => server.txn(&rest.split("; ").collect::<Vec<_>>()),
            "compact" => server.compact(rest.parse().unwrap()),
            "hash" => {
                let answer = server.hash(rest.parse().unwrap());
                writeln!(result, "----\n= {answer}").unwrap();
            }
            _ => panic!("unknown line {line}"),
        }
    }
    result
}

impl Server for Fixture {
    fn put(&mut self, key: &str, value: &str) {
        Self::put(self, key, value);
    }

    fn delete(&mut self, key: &str) {
        Self::delete(self, key);
    }

    fn txn(&mut self, ops: &[&str]) {
        Self::txn(self, |txn| {
            for op in ops {
                match op.split(' ').collect::<Vec<_>>()[..] {
                    ["put", key, value] => put(txn, key, value),
                    ["del", key] => {
                        txn.delete_range(&one(key), false, &mut |_, _| {}).unwrap();
                    }
                    ["del", key, "--from-key"] => {
                        let keys = base::KeyRange::From(key.to_owned().into());
                        txn.delete_range(&keys, false, &mut |_, _| {}).unwrap();
                    }
                    _ => panic!("unknown op {op}"),
                }
            }
        });
    }

    fn compact(&mut self, at: i64) {
        Self::compact(self, at);
    }

    fn hash(&mut self, at: i64) -> String {
        match self.store.reader().hash(at) {
            Ok(hash) => format!("{} compacted {}", hash.hash, hash.compact_revision),
            Err(QueryError::Revision(RevisionError::Compacted { .. })) => "compacted".to_owned(),
            Err(QueryError::Revision(RevisionError::Future { .. })) => "future".to_owned(),
            Err(QueryError::Backend(error)) => panic!("{error}"),
        }
    }
}

/// A real etcd on free ports in an empty folder.
struct RealEtcd {
    programs: PathBuf,
    endpoint: String,
    process: Child,
    _folder: tempfile::TempDir,
}

impl RealEtcd {
    fn start(programs: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (client, peer) = (ports::free_url().unwrap(), ports::free_url().unwrap());
        let process = Command::new(programs.join("etcd"))
            .args(["--name=one", "--log-level=error"])
            .arg(format!("--data-dir={}", folder.path().display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=one={peer}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let programs = programs.to_owned();
        let real = Self { programs, endpoint: client, process, _folder: folder };
        let up = (0..100).any(|_| real.try_ctl(&["endpoint", "health"], "").is_ok());
        assert!(up, "etcd does not come up");
        real
    }

    fn try_ctl(&self, args: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(self.programs.join("etcdctl"))
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() && output.stderr.is_empty() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    fn ctl(&self, args: &[&str]) {
        self.try_ctl(args, "").unwrap();
    }
}

impl Drop for RealEtcd {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Server for RealEtcd {
    fn put(&mut self, key: &str, value: &str) {
        self.ctl(&["put", key, value]);
    }

    fn delete(&mut self, key: &str) {
        self.ctl(&["del", key]);
    }

    fn txn(&mut self, ops: &[&str]) {
        self.try_ctl(&["txn"], &format!("\n{}\n\n\n", ops.join("\n"))).unwrap();
    }

    fn compact(&mut self, at: i64) {
        self.ctl(&["compact", "--physical", &at.to_string()]);
    }

    fn hash(&mut self, at: i64) -> String {
        let rev = format!("--rev={at}");
        match self.try_ctl(&["endpoint", "hashkv", "-w=json", &rev], "") {
            Ok(json) => {
                let number = |name: &str| {
                    let from = json.split_once(&format!("\"{name}\":"))?.1;
                    let end = from.find(|c: char| !c.is_ascii_digit() && c != '-')?;
                    Some(from[..end].to_owned())
                };
                let compacted = number("compact_revision").unwrap_or_else(|| "0".to_owned());
                format!("{} compacted {compacted}", number("hash").unwrap())
            }
            Err(error) if error.contains("has been compacted") => "compacted".to_owned(),
            Err(error) if error.contains("future revision") => "future".to_owned(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// KV-32, interop 6.5.
#[test]
fn hashes_are_those_of_etcd() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/hashkv.txt");
    let script = std::fs::read_to_string(&file).unwrap();
    match std::env::var_os("REAL_ETCD_35") {
        Some(programs) => {
            let recorded = run(&script, &mut RealEtcd::start(Path::new(&programs)));
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&file, &recorded).unwrap();
            }
            assert_eq!(run(&recorded, &mut Fixture::small()), recorded);
            assert_eq!(script, recorded, "etcd answers as recorded");
        }
        None => println!("REAL_ETCD_35 is not set: only recorded answers are compared"),
    }
    assert_eq!(run(&script, &mut Fixture::small()), script);
}
