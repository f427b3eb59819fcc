//! `watch` and `exec-watch`: waiting for changes.
//!
//! Every change is waited for with a request of its own, behind the index of the one before, so none
//! is missed as long as the members remember it.
//!
//! etcd: v3.4.23 etcdctl/ctlv2/command/{watch,exec_watch}_command.go, client/keys.go.

use std::future::Future;
use std::process::Stdio;

use cli::quote::quote;

use super::http::{Client, Until};
use super::keys::Asking;
use super::print::Response;
use super::{Call, Code, Done, Failure};
use crate::terminal::say;

/// What is waited for next.
struct Waiting<'c> {
    client: &'c Client,
    key: &'c str,
    is_recursive: bool,
    /// 0 for whatever comes next.
    index: u64,
}

impl<'c> Waiting<'c> {
    fn new(call: &Call, client: &'c Client, key: &'c str) -> Self {
        let after = call.own.int("after-index").cast_unsigned();
        let index = if after == 0 { 0 } else { after.wrapping_add(1) };
        Self { client, key, is_recursive: call.own.is_set("recursive"), index }
    }

    async fn next(&mut self) -> Result<Response, Failure> {
        let asking = Asking::new("GET", self.key)
            .query("wait", true)
            .query("waitIndex", self.index)
            .query("recursive", self.is_recursive);
        loop {
            // A member that shuts down answers without a body.
            if let Some(response) = asking.send(self.client, Until::Forever).await? {
                self.index = response.node().modified() + 1;
                return Ok(response);
            }
        }
    }
}

/// Ends well on Ctrl-C.
pub(super) async fn until_interrupted(doing: impl Future<Output = Done>) -> Done {
    tokio::select! {
        done = doing => done,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// CTL2-40.
pub(super) async fn watch(call: &Call) -> Done {
    let client = call.connect().await?;
    let mut waiting = Waiting::new(call, &client, call.key()?);
    let watching = async {
        loop {
            let response = waiting.next().await?;
            if response.node().is_dir() {
                continue;
            }
            if call.own.is_set("recursive") {
                say!("[{}] {}", response.action(), response.node().key());
            }
            response.print(call.format());
            if !call.own.is_set("forever") {
                return Ok(());
            }
        }
    };
    until_interrupted(watching).await
}

/// CTL2-41.
pub(super) async fn exec_watch(call: &Call) -> Done {
    let client = call.connect().await?;
    // Behind the key a `--` may set the command apart.
    let (key, command) = match &call.own.rest[..] {
        [command @ .., key] if is_key_last() => (key, command),
        [key, separator, command @ ..] if separator == "--" => (key, command),
        [key, command @ ..] => (key, command),
        [] => (&String::new(), &[][..]),
    };
    let [program, arguments @ ..] = command else {
        return Err(Failure::error(Code::BadArguments, "key and command to exec required"));
    };
    let mut waiting = Waiting::new(call, &client, key);
    let watching = async {
        loop {
            let response = waiting.next().await?;
            if response.node().is_dir() {
                eprintln!("Ignored dir {} change", response.node().key());
                continue;
            }
            start(program, arguments, &response)?;
        }
    };
    until_interrupted(watching).await
}

/// The original's own order, for those who have come to rely on it: the command, then the key.
fn is_key_last() -> bool {
    std::env::var("ETCDCTL_EXEC_WATCH_ORDER").is_ok_and(|order| order == "original")
}

/// Starts the command; the next change does not wait for its end.
fn start(program: &str, arguments: &[String], response: &Response) -> Done {
    let node = response.node();
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .env("ETCD_WATCH_ACTION", response.action())
        .env("ETCD_WATCH_MODIFIED_INDEX", node.modified().to_string())
        .env("ETCD_WATCH_KEY", node.key())
        .env("ETCD_WATCH_VALUE", node.value())
        .stdin(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| {
        let why = if error.kind() == std::io::ErrorKind::NotFound && !program.contains('/') {
            "executable file not found in $PATH".to_owned()
        } else {
            cli::os::error_text(&error)
        };
        let program = quote(program.as_bytes());
        Failure { text: format!("exec: {program}: {why}"), code: Code::BadArguments }
    })?;
    tokio::spawn(async move { child.wait().await });
    Ok(())
}
