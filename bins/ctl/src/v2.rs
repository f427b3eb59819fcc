//! The second generation's dialect: `ETCDCTL_API=2`, and its verbs when nothing is said.
//!
//! Texts and exit codes are those of etcd 3.4's tool. Flags may stand anywhere before `--`, and
//! `exec-watch` takes key and command in the order in which people type them.
//!
//! etcd: v3.4.23 etcdctl/ctlv2, client.

mod cluster;
mod flags;
mod http;
mod keys;
mod print;

use std::process::ExitCode;

use self::flags::{Flag, Parsed};
use self::http::{Client, ClientError};

/// Verbs that only this dialect has.
const ONLY_HERE: [&str; 11] = [
    "cluster-health",
    "exec-watch",
    "ls",
    "mk",
    "mkdir",
    "rm",
    "rmdir",
    "set",
    "setdir",
    "update",
    "updatedir",
];

/// Exit codes of this dialect (CTL2-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    BadArguments = 1,
    BadConnection = 2,
    Unknown = 3,
    Server = 4,
    NotHealthy = 5,
}

/// Why a command ends early: what goes to standard error, and the code.
#[derive(Debug)]
struct Failure {
    text: String,
    code: Code,
}

impl Failure {
    /// As the original prints errors: two blanks behind the colon (CTL2-14).
    fn error(code: Code, text: impl std::fmt::Display) -> Self {
        Self { text: format!("Error:  {text}"), code }
    }

    fn plain(code: Code, text: impl Into<String>) -> Self {
        Self { text: text.into(), code }
    }

    fn of(error: &ClientError) -> Self {
        let code = if error.is_connection() { Code::BadConnection } else { Code::Server };
        Self::error(code, error.with_details())
    }
}

type Done = Result<(), Failure>;

/// Whether the words are for this dialect; `api` is the variable.
pub(crate) fn is_wanted(words: &[Vec<u8>], api: &str) -> bool {
    match api {
        "2" => true,
        "" => verb(words).is_some_and(|verb| ONLY_HERE.contains(&verb.as_str())),
        _ => false,
    }
}

/// What to do about a verb of this dialect that the third generation's was asked for.
pub(crate) fn hint(words: &[Vec<u8>], api: &str) -> Option<String> {
    let verb = verb(words).filter(|verb| ONLY_HERE.contains(&verb.as_str()))?;
    (api == "3").then(|| {
        format!(
            "\"{verb}\" is a command of the v2 API, and ETCDCTL_API=3 asks for the v3 API; use \
             ETCDCTL_API=2 etcdctl {verb} ..., or leave ETCDCTL_API unset"
        )
    })
}

fn verb(words: &[Vec<u8>]) -> Option<String> {
    let words: Vec<String> = text(words);
    let parsed = flags::parse(&words, flags::GLOBAL, 0).ok()?;
    parsed.rest.first().cloned()
}

fn text(words: &[Vec<u8>]) -> Vec<String> {
    words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Runs the words.
pub(crate) fn run(words: &[Vec<u8>]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error:  starting: {error}");
            return ExitCode::FAILURE;
        }
    };
    let words = text(words);
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = dispatch(&words) => ended,
            // Ctrl-C ends a watch well (CTL2-40).
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { text, code }) => {
            if !text.is_empty() {
                eprintln!("{text}");
            }
            ExitCode::from(code as u8)
        }
    }
}

/// One command: its name, flags, and how many arguments stand before words that are not looked at.
struct Command {
    name: &'static str,
    usage: &'static str,
    flags: &'static [Flag],
    verbatim_after: usize,
}

const fn command(name: &'static str, usage: &'static str, flags: &'static [Flag]) -> Command {
    Command { name, usage, flags, verbatim_after: 0 }
}

const TTL: Flag = Flag::value(&["ttl"]);
const RECURSIVE: Flag = Flag::bool(&["recursive", "r"]);
const SORT: Flag = Flag::bool(&["sort"]);
const QUORUM: Flag = Flag::bool(&["quorum", "q"]);
const AFTER_INDEX: Flag = Flag::value(&["after-index"]);

const COMMANDS: [Command; 15] = [
    command(
        "cluster-health",
        "check the health of the etcd cluster",
        &[Flag::bool(&["forever", "f"])],
    ),
    command("mk", "make a new key with a given value", &[Flag::bool(&["in-order"]), TTL]),
    command("mkdir", "make a new directory", &[TTL]),
    command(
        "rm",
        "remove a key or a directory",
        &[
            Flag::bool(&["dir"]),
            RECURSIVE,
            Flag::value(&["with-value"]),
            Flag::value(&["with-index"]),
        ],
    ),
    command("rmdir", "removes the key if it is an empty directory or a key-value pair", &[]),
    command("get", "retrieve the value of a key", &[SORT, QUORUM]),
    command("ls", "retrieve a directory", &[SORT, RECURSIVE, Flag::bool(&["p"]), QUORUM]),
    command(
        "set",
        "set the value of a key",
        &[TTL, Flag::value(&["swap-with-value"]), Flag::value(&["swap-with-index"])],
    ),
    command("setdir", "create a new directory or update an existing directory TTL", &[TTL]),
    command("update", "update an existing key with a given value", &[TTL]),
    command("updatedir", "update an existing directory", &[TTL]),
    command(
        "watch",
        "watch a key for changes",
        &[Flag::bool(&["forever", "f"]), AFTER_INDEX, RECURSIVE],
    ),
    Command {
        name: "exec-watch",
        usage: "watch a key for changes and exec an executable",
        flags: &[AFTER_INDEX, RECURSIVE],
        verbatim_after: 2,
    },
    command("member", "member add, remove, update and list subcommands", &[]),
    command("help", "Shows a list of commands or help for one command", &[]),
];

/// A command being run.
struct Call {
    global: Parsed,
    own: Parsed,
    client: Client,
}

impl Call {
    fn argument(&self, at: usize) -> Option<&str> {
        self.own.rest.get(at).map(String::as_str)
    }

    /// CTL2-15.
    fn key(&self) -> Result<&str, Failure> {
        self.argument(0).ok_or_else(|| Failure::error(Code::BadArguments, "key required"))
    }

    /// CTL2-09.
    fn format(&self) -> &str {
        self.global.text("output").unwrap_or("simple")
    }
}

async fn dispatch(words: &[String]) -> Done {
    let usage =
        |text: String| Failure::plain(Code::BadArguments, format!("Incorrect Usage: {text}"));
    let global = flags::parse(words, flags::GLOBAL, 1).map_err(usage)?;
    if global.is_set("version") {
        println!("etcdctl version: {}\nAPI version: 2", base::version::COMPATIBLE);
        return Ok(());
    }
    let mut rest = global.rest.clone();
    if global.is_set("help") || rest.is_empty() {
        help();
        return Ok(());
    }
    let name = rest.remove(0);
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return Err(Failure::plain(Code::Unknown, format!("No help topic for '{name}'")));
    };
    if name == "help" {
        help();
        return Ok(());
    }
    let own = flags::parse(&rest, command.flags, command.verbatim_after).map_err(usage)?;
    let client = Client::new(&global)?;
    let mut call = Call { global, own, client };
    match name.as_str() {
        "cluster-health" => return cluster::health(&call).await,
        "member" => return cluster::member(&mut call).await,
        _ => call.client.sync(&call.global).await?,
    }
    match name.as_str() {
        "get" => keys::get(&call).await,
        "ls" => keys::list(&call).await,
        "set" => keys::set(&call).await,
        "mk" => keys::make(&call).await,
        "update" => keys::update(&call).await,
        "mkdir" => keys::directory(&call, Some(false)).await,
        "setdir" => keys::directory(&call, None).await,
        "updatedir" => keys::directory(&call, Some(true)).await,
        "rm" => keys::remove(&call).await,
        "rmdir" => keys::remove_directory(&call).await,
        "watch" => keys::watch(&call).await,
        _ => keys::exec_watch(&call).await,
    }
}

/// CTL2-12.
fn help() {
    println!("NAME:\n   etcdctl - A simple command line client for etcd.\n");
    println!("USAGE:\n   etcdctl [global options] command [command options] [arguments...]\n");
    println!("VERSION:\n   {}\n\nCOMMANDS:", base::version::COMPATIBLE);
    for Command { name, usage, .. } in &COMMANDS {
        println!("   {name:<16}{usage}");
    }
    println!("\nGLOBAL OPTIONS:");
    for flag in flags::GLOBAL {
        println!("   --{}", flag.names.join(", -"));
    }
}
