//! TLS of the command line, against real etcd and beside its own client: the same flags lead to the
//! same exit code, the same output and the same explanation. CTL3-06, CTL3-07.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use certificates::{Authority, Holder, write};
use retcd_conformance::real_etcd;

const OURS: &str = env!("CARGO_BIN_EXE_etcdctl");

/// A server may take so long to serve, on a busy machine.
const START_TIME_MAX: Duration = Duration::from_secs(60);

struct Etcd {
    child: Child,
}

impl Etcd {
    fn start(program: &Path, folder: &Path, flags: &[String]) -> anyhow::Result<Self> {
        let log = folder.join("log");
        let output = File::create(&log)?;
        let child = Command::new(program)
            .args(["--name", "m0", "--data-dir"])
            .arg(folder.join("data"))
            .args(flags)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut etcd = Self { child };
        let began = Instant::now();
        loop {
            let text = fs::read_to_string(&log)?;
            // Both kinds of ports.
            if text.matches("serving client traffic").count() >= 2 {
                return Ok(etcd);
            }
            if etcd.child.try_wait()?.is_some() || START_TIME_MAX < began.elapsed() {
                bail!("etcd does not serve:\n{text}");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_address() -> anyhow::Result<String> {
    Ok(ports::free_address()?.to_string())
}

/// What a user sees of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    code: Option<i32>,
    stdout: String,
    /// The last line of standard error but for hints.
    error: String,
    /// Why no connection could be opened, from the log line before it.
    why: String,
}

fn run(program: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<Seen> {
    let output = Command::new(program)
        .args(arguments)
        .args(["--command-timeout=1500ms", "--dial-timeout=1s", "put", "key", "value"])
        .env_clear()
        .env("HOME", folder)
        .current_dir(folder)
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines = stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut causes =
        lines.filter_map(|line: serde_json::Value| Some(line["error"].as_str()?.to_owned()));
    Ok(Seen {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        error: stderr
            .lines()
            .rfind(|line| !line.starts_with("hint: "))
            .unwrap_or_default()
            .to_owned(),
        why: causes.next_back().unwrap_or_default(),
    })
}

#[test]
fn flags_of_tls_do_what_they_do_in_etcds_client() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    let authority = Authority::new("authority");
    write(path, "ca.pem", authority.certificate());
    write(path, "other-ca.pem", Authority::new("other").certificate());
    let files = |name: &str, holder: &Holder| authority.issue(holder).write(path, name);
    let (cert, key): (PathBuf, PathBuf) = files("server", &Holder::new("server", &["127.0.0.1"]));
    let _client = files("client", &Holder::new("client", &[]));
    let (secure, plain, peer) = (free_address()?, free_address()?, free_address()?);
    let urls = format!("https://{secure},http://{plain}");
    let server = [
        format!("--listen-client-urls={urls}"),
        format!("--advertise-client-urls={urls}"),
        format!("--listen-peer-urls=http://{peer}"),
        format!("--initial-advertise-peer-urls=http://{peer}"),
        format!("--initial-cluster=m0=http://{peer}"),
        format!("--cert-file={}", cert.display()),
        format!("--key-file={}", key.display()),
        format!("--trusted-ca-file={}", path.join("ca.pem").display()),
        "--client-cert-auth".to_owned(),
    ];
    let _etcd = Etcd::start(&real.join("etcd"), path, &server)?;
    let (https, http) = (format!("https://{secure}"), format!("http://{secure}"));
    let plain_https = format!("https://{plain}");
    let pair = ["--cert=client.pem", "--key=client-key.pem"];
    let cases: &[(&str, &[&str])] = &[
        (&https, &["--cacert=ca.pem", pair[0], pair[1]]),
        // Without a scheme the flags decide.
        (&secure, &["--cacert=ca.pem", pair[0], pair[1]]),
        (&secure, &["--insecure-skip-tls-verify", pair[0], pair[1]]),
        (&plain, &[]),
        (&http, &["--cacert=ca.pem", pair[0], pair[1]]),
        (&secure, &[]),
        (&https, &["--cacert=other-ca.pem", pair[0], pair[1]]),
        (&https, &["--cacert=ca.pem"]),
        (&plain_https, &["--cacert=ca.pem"]),
        (&https, &["--cacert=none.pem"]),
        (&https, &["--cert=client.pem"]),
        (&https, &["--cert=", "--key=client-key.pem"]),
    ];
    for (endpoint, flags) in cases {
        let arguments = [&["--endpoints", endpoint], *flags].concat();
        let theirs = run(&real.join("etcdctl"), path, &arguments)?;
        let ours = run(Path::new(OURS), path, &arguments)?;
        // Which of two texts etcd gives depends on who is faster.
        let is_late = theirs.why.contains("broken pipe") || theirs.why.contains("reset by peer");
        if is_late {
            assert_eq!((ours.code, &ours.error), (theirs.code, &theirs.error), "{arguments:?}");
            let texts = ["tls: certificate required", "error reading server preface: EOF"];
            assert!(texts.iter().any(|text| ours.why.contains(text)), "{}", ours.why);
        } else {
            assert_eq!(ours, theirs, "{arguments:?}");
        }
    }
    Ok(())
}
