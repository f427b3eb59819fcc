//! A member of etcd in a folder and on ports of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running member; it ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) folder: TempDir,
}

impl Server {
    /// Starts a member and waits until it serves.
    pub(crate) fn start(program: &Path) -> Self {
        Self::start_with(program, &[])
    }

    /// As [`Server::start`], with flags behind those every member gets.
    pub(crate) fn start_with(program: &Path, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (client_port, peer_port) = (ports::free().unwrap(), ports::free().unwrap());
        let (client, peer) =
            (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
        let mut child = Command::new(program)
            .args(["--name", "s1", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("s1={peer}"), "--log-level", "info"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        // etcd 3.4 tells only the second.
        let ready = ["ready to serve client requests", "serving client traffic insecurely"];
        while !ready.iter().any(|text| line.contains(text)) {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the member ended");
        }
        // A full pipe would stop the member.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, client_port, peer_port, folder }
    }
}

impl Server {
    /// Ends the member; its files stay.
    pub(crate) fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
