//! A network of a test's own, and processes in it.
//!
//! The test starts its own program again behind `unshare --net` and gives that network's loopback
//! interface addresses; names are asked of this host in there. Where the machine does not allow
//! that, the test says so and passes.

#![allow(clippy::print_stdout, reason = "a test tells what it saw")]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::ensure;

/// Set for the program behind `unshare`.
const INSIDE: &str = "RETCD_TEST_INSIDE_NETWORK";

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs the test named so in a network with these addresses; `true` in there, `false` outside.
pub(crate) fn enter(test: &str, addresses: &[&str]) -> anyhow::Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let resolver = "file=$(mktemp) && echo nameserver 127.0.0.1 > $file \
                    && mount --bind $file /etc/resolv.conf && rm $file";
    let set_up: String = ["ip link set lo up".to_owned(), resolver.to_owned()]
        .into_iter()
        .chain(addresses.iter().map(|address| format!("ip address add {address}/32 dev lo")))
        .collect::<Vec<_>>()
        .join(" && ");
    // As root, else as root of a user namespace.
    let ways: [&[&str]; 2] =
        [&["--net", "--mount"], &["--map-root-user", "--user", "--net", "--mount"]];
    let can = |way: &&&[&str]| {
        succeeds(Command::new("unshare").args(**way).args(["sh", "-c", set_up.as_str()]))
    };
    let Some(way) = ways.iter().find(can) else {
        println!("skipped: this machine gives no network of one's own (unshare, ip, mount)");
        return Ok(false);
    };
    let run = format!("{set_up} && exec \"$0\" --exact {test} --nocapture");
    let output = Command::new("unshare")
        .args(*way)
        .args(["sh", "-c", &run])
        .arg(std::env::current_exe()?)
        .env(INSIDE, "1")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}\n{complaint}", output.status);
    Ok(false)
}

/// Members' processes; ended with the test.
#[derive(Debug, Default)]
pub(crate) struct Members(pub(crate) Vec<Child>);

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.0 {
            // What is gone already needs no end.
            let _gone = member.kill();
            let _gone = member.wait();
        }
    }
}

impl Members {
    /// Starts a command with its log in a file.
    pub(crate) fn start(&mut self, mut command: Command, log: &Path) -> anyhow::Result<()> {
        let log = std::fs::File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.0.push(child);
        Ok(())
    }
}
