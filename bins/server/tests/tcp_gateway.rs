//! `etcd gateway start` (SRV-175): connections passed on to members, with real etcd's gateway beside
//! ours where there is one.

#[path = "own_network/named.rs"]
mod named;
#[path = "own_network/names.rs"]
mod names;
#[allow(dead_code, reason = "these tests have members of their own")]
mod own_network;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, ensure};
use named::{DOMAIN, Named};
use retcd_conformance::{PATIENCE, Server, ServerOptions, ask, eventually, real_etcd};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// Something that tells everyone its name and hangs up.
struct Endpoint {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    fn new(name: &'static str, listener: TcpListener) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                // A client that is gone wants no name.
                let _gone = stream.and_then(|mut stream| stream.write_all(name.as_bytes()));
            }
        });
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it up.
        let _woken = TcpStream::connect(self.address);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()), "an endpoint panicked");
    }
}

/// A gateway, ended with the test.
struct Gateway {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // What is gone already needs no end.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Gateway {
    fn start(program: &Path, folder: &Path, endpoints: &str) -> anyhow::Result<Self> {
        Self::with(program, folder, &["--retry-delay", "100ms", "--endpoints", endpoints])
    }

    fn with(program: &Path, folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let port = ports::free()?;
        let log = folder.join(format!("log-{port}"));
        let out = File::create(&log)?;
        let child = Command::new(program)
            .env_clear()
            .args(["gateway", "start", "--listen-addr", &format!("127.0.0.1:{port}")])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        let mut gateway = Self { child, port, log };
        eventually("it is ready", || {
            if let Some(status) = gateway.child.try_wait()? {
                anyhow::bail!("it ended with {status}:\n{}", gateway.log());
            }
            Ok(gateway.log().contains("\"ready to proxy client requests\""))
        })?;
        Ok(gateway)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Who is behind the next connection; nobody if it ends at once.
    fn next(&self) -> anyhow::Result<String> {
        // It may listen a moment later than it says.
        let mut stream = None;
        eventually("it listens", || {
            stream = TcpStream::connect(self.address()).ok();
            Ok(stream.is_some())
        })?;
        let mut stream = stream.context("just seen")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut name = String::new();
        match stream.read_to_string(&mut name) {
            Ok(_) => Ok(name),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(name),
            Err(error) => Err(error.into()),
        }
    }

    /// The lines of the log with this message, without what stands before it.
    fn told(&self, message: &str) -> Vec<String> {
        let log = self.log();
        let quoted = format!("\"msg\":\"{message}\"");
        let of_message = log.lines().filter(|line| line.contains(&quoted));
        of_message
            .filter_map(|line| line.split_once(&quoted))
            .map(|(_, rest)| rest.to_owned())
            .collect()
    }
}

fn programs() -> Vec<PathBuf> {
    let real = real_etcd("3.5").map(|folder| folder.join("etcd"));
    [PathBuf::from(OURS)].into_iter().chain(real).collect()
}

/// SRV-175: turns, an endpoint that dies and one that comes back.
#[test]
fn endpoints_take_turns_and_the_dead_are_left_out() -> anyhow::Result<()> {
    for program in programs() {
        let folder = tempfile::tempdir()?;
        let a = Endpoint::new("a", ports::listener()?)?;
        let b = Endpoint::new("b", ports::listener()?)?;
        let b_address = b.address;
        let endpoints = format!("http://{},{b_address}", a.address);
        let gateway = Gateway::start(&program, folder.path(), &endpoints)?;
        let order = (0..4).map(|_| gateway.next()).collect::<Result<String, _>>()?;
        assert_eq!(order, "abab");
        drop(b);
        for _ in 0..4 {
            assert_eq!(gateway.next()?, "a");
        }
        let told = gateway.told("deactivated endpoint");
        let expected = format!(
            ",\"address\":\"{b_address}\",\"interval\":\"100ms\",\"error\":\"dial tcp {b_address}: \
             connect: connection refused\"}}"
        );
        assert_eq!(told.first(), Some(&expected), "{}", gateway.log());
        let failed = "failed to activate endpoint (stay inactive for another interval)";
        eventually("it tells what failed", || Ok(gateway.told(failed).first() == Some(&expected)))
            .with_context(|| gateway.log())?;
        let _b = Endpoint::new("b", TcpListener::bind(b_address)?)?;
        eventually("b answers", || Ok(gateway.next()? == "b")).with_context(|| gateway.log())?;
        assert_eq!(gateway.told("activated"), [format!(",\"address\":\"{b_address}\"}}")]);
    }
    Ok(())
}

/// A client is not kept waiting for endpoints that are not there.
#[test]
fn without_any_endpoint_connections_end() -> anyhow::Result<()> {
    let nobody = ports::free_address()?.to_string();
    for program in programs() {
        let folder = tempfile::tempdir()?;
        let gateway = Gateway::start(&program, folder.path(), &nobody)?;
        assert_eq!(gateway.next()?, "");
        assert_eq!(gateway.next()?, "");
    }
    Ok(())
}

#[test]
fn calls_pass_through() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?;
    let gateway = Gateway::start(Path::new(OURS), folder.path(), &server.endpoint())?;
    let put = ask(gateway.address(), "POST", "/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#)?;
    assert_eq!(put.status, 200, "{put:?}");
    let got = ask(gateway.address(), "POST", "/v3/kv/range", r#"{"key":"YQ=="}"#)?;
    assert!(got.body.contains(r#""value":"Yg==""#), "{got:?}");
    Ok(())
}

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// What a program says that does not start, without lines of the log.
fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<Said> {
    let output =
        Command::new(program).arg("gateway").args(arguments).stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8(output.stderr)?;
    let lines = stderr.split_inclusive('\n').filter(|line| !line.starts_with('{'));
    Ok(Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: lines.collect(),
    })
}

/// Command lines that start nothing.
const ENDS: &[&str] = &[
    "",
    "--help",
    "-h",
    "foo",
    "help",
    "--foo",
    "start --help",
    "start --foo",
    "start -x",
    "start --retry-delay x",
    "start --retry-delay 5",
    "start --insecure-discovery=zz",
    "start --listen-addr",
    "start extra --endpoints bad",
    "start --endpoints 127.0.0.1:1,bad",
    "start --endpoints=",
    "--endpoints=bad start",
    "start --listen-addr bad",
    "start --listen-addr nosuch.invalid:99",
    "start --listen-addr :99",
    "start --endpoints nosuch.invalid:33",
    "start --listen-addr 127.0.0.1:2379",
    "start --listen-addr 127.0.0.1:77 --endpoints localhost:77",
    "start --listen-addr 192.0.2.1:77",
];

#[test]
fn texts_are_etcds() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    for line in ENDS {
        let arguments: Vec<_> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let ours = run(Path::new(OURS), &arguments)?;
        let theirs = run(&real.join("etcd"), &arguments)?;
        assert_eq!((ours.code, &ours.stdout), (theirs.code, &theirs.stdout), "{line}");
        // How to put it right is behind.
        assert!(
            ours.stderr.starts_with(&theirs.stderr),
            "{line}: {} {}",
            ours.stderr,
            theirs.stderr
        );
    }
    Ok(())
}

/// N13, and the remedies.
#[test]
fn what_cannot_start_says_why() -> anyhow::Result<()> {
    let held = ports::listener()?;
    let address = held.local_addr()?;
    let wildcard = format!("0.0.0.0:{}", address.port());
    for (arguments, stdout, stderr) in [
        (
            ["--listen-addr", &address.to_string(), "--endpoints", "127.0.0.1:1"],
            String::new(),
            format!("listen tcp {address}: bind: address already in use\nstop what listens there"),
        ),
        (
            ["--listen-addr", &wildcard, "--endpoints", &address.to_string()],
            format!(
                "SRV or endpoint ({address}->{address}) should not resolve to the gateway listen addr \
                 ({wildcard})\n"
            ),
            "set --listen-addr to another port".to_owned(),
        ),
    ] {
        let said = run(Path::new(OURS), &[&["start"][..], &arguments].concat())?;
        assert_eq!((said.code, &said.stdout), (Some(1), &stdout));
        assert!(said.stderr.starts_with(&stderr), "{}", said.stderr);
    }
    Ok(())
}

/// SRV-175: a member that is gone ends its connections and gets no new ones until it is back.
#[test]
fn a_member_may_go_away_and_come_back() -> anyhow::Result<()> {
    for program in programs() {
        let folder = tempfile::tempdir()?;
        let mut server = Server::start(Path::new(OURS), folder.path(), ServerOptions::default())?;
        let gateway = Gateway::start(&program, folder.path(), &server.endpoint())?;
        let mut open = TcpStream::connect(gateway.address())?;
        open.set_read_timeout(Some(PATIENCE))?;
        // Half a request: the member waits for the rest.
        open.write_all(b"GET /health HTTP/1.1\r\n")?;
        let answer = ask(gateway.address(), "GET", "/health", "")?;
        assert_eq!(answer.status, 200, "{answer:?}");
        server.kill()?;
        let ended = open.read(&mut [0; 64]);
        ensure!(matches!(ended, Ok(0) | Err(_)), "somebody answered: {ended:?}");
        assert_eq!(gateway.next()?, "");
        let address = format!("127.0.0.1:{}", server.client_port());
        let told = gateway.told("deactivated endpoint");
        assert!(told[0].starts_with(&format!(",\"address\":\"{address}\"")), "{told:?}");
        server.restart(Path::new(OURS))?;
        let is_back = || Ok(ask(gateway.address(), "GET", "/health", "").is_ok());
        eventually("it is back", is_back).with_context(|| gateway.log())?;
        assert_eq!(gateway.told("activated"), [format!(",\"address\":\"{address}\"}}")]);
    }
    Ok(())
}

/// SRV-175: how often an endpoint is tried again, and what is told at start.
#[test]
fn the_log_tells_what_was_asked_for() -> anyhow::Result<()> {
    let nobody = ports::free_address()?.to_string();
    for program in programs() {
        let folder = tempfile::tempdir()?;
        for (flags, interval) in [(&[][..], "1m0s"), (&["--retry-delay", "0"], "5m0s")] {
            let flags = [&["--endpoints", &nobody], flags].concat();
            let gateway = Gateway::with(&program, folder.path(), &flags)?;
            let own = gateway.address().to_string();
            let head = [program.to_str().context("a path")?, "gateway", "start"];
            let words = [&head[..], &["--listen-addr", &own], &flags].concat();
            let words: Vec<_> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
            let expected = format!(",\"args\":[{}]}}", words.join(","));
            assert_eq!(gateway.told("Running: "), [expected]);
            let expected = format!(",\"endpoints\":[\"{nobody}\"]}}");
            assert_eq!(gateway.told("ready to proxy client requests"), [expected]);
            assert_eq!(gateway.next()?, "");
            let told = gateway.told("deactivated endpoint");
            assert!(told[0].contains(&format!("\"interval\":\"{interval}\"")), "{told:?}");
        }
    }
    Ok(())
}

/// SRV-175: members are found by the records of a domain; only those for TLS count, unless the flag
/// says otherwise.
#[test]
fn members_are_found_in_dns() -> anyhow::Result<()> {
    if !own_network::enter("members_are_found_in_dns", &[])? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let Named { server: _server, ports: [plain, secure], bundle } =
        Named::start(OURS, folder.path(), &[DOMAIN])?;
    let given = format!("127.0.0.1:{plain}");
    let (plain, secure) = (format!("m0.{DOMAIN}:{plain}"), format!("m0.{DOMAIN}:{secure}"));
    for program in programs() {
        for (flags, endpoint) in [
            (&["--discovery-srv-name", "plain", "--insecure-discovery"][..], &plain),
            (&["--discovery-srv-name", "secure", "--insecure-discovery"], &secure),
            (&["--discovery-srv-name", "secure", "--trusted-ca-file", &bundle], &secure),
            (&["--trusted-ca-file", &bundle], &secure),
            // Certificates are for clients to look at.
            (&["--discovery-srv-name", "secure"], &secure),
            (&["--discovery-srv-name", "secure", "--trusted-ca-file", "/nope"], &given),
            (&["--discovery-srv-name", "plain", "--trusted-ca-file", &bundle], &given),
        ] {
            let flags = [&["--endpoints", &given, "--discovery-srv", DOMAIN], flags].concat();
            let gateway = Gateway::with(&program, folder.path(), &flags)?;
            let ready = gateway.told("ready to proxy client requests");
            // etcd's keep the dot of the name server behind the name.
            let ready: Vec<_> = ready.iter().map(|told| told.replace(".:", ":")).collect();
            assert_eq!(ready, [format!(",\"endpoints\":[\"{endpoint}\"]}}")], "{flags:?}");
            let failed = !gateway.told("failed to validate discovered endpoints").is_empty();
            assert_eq!(failed, *endpoint == given, "{}", gateway.log());
            if *endpoint != secure {
                let health = ask(gateway.address(), "GET", "/health", "")?;
                assert_eq!(health.status, 200, "{flags:?}: {health:?}");
            }
        }
        let flags = ["start", "--discovery-srv", DOMAIN, "--discovery-srv-name", "nope"];
        let said = run(&program, &flags)?;
        assert_eq!(said.code, Some(1));
        assert!(said.stderr.starts_with("dns lookup errors: "), "{}", said.stderr);
    }
    Ok(())
}

/// The flags, and the test here that shows what each does.
const PROOFS: [(&str, &str); 8] = [
    ("discovery-srv", "members_are_found_in_dns"),
    ("discovery-srv-name", "members_are_found_in_dns"),
    ("endpoints", "endpoints_take_turns_and_the_dead_are_left_out"),
    ("help", "texts_are_etcds"),
    ("insecure-discovery", "members_are_found_in_dns"),
    ("listen-addr", "what_cannot_start_says_why"),
    ("retry-delay", "the_log_tells_what_was_asked_for"),
    ("trusted-ca-file", "members_are_found_in_dns"),
];

/// SRV-175: nothing is taken that does nothing.
#[test]
fn every_flag_is_proven() -> anyhow::Result<()> {
    let help = run(Path::new(OURS), &["start", "--help"])?.stdout;
    let flags = help.lines().filter_map(|line| line.split_once("--"));
    let names = flags.filter(|(before, _)| before.len() == 6);
    let names: BTreeSet<_> = names.filter_map(|(_, rest)| rest.split(' ').next()).collect();
    assert_eq!(names, PROOFS.iter().map(|(flag, _)| *flag).collect());
    let source = include_str!("tcp_gateway.rs");
    for (flag, proof) in PROOFS {
        assert!(source.contains(&format!("fn {proof}(")), "--{flag}: {proof}");
    }
    Ok(())
}
