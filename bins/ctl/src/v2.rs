//! The second generation's dialect: its commands, as etcd 3.4's tool has them (features 4).
//!
//! Texts and exit codes are the original's. What differs on purpose: flags may stand anywhere before
//! `--`, endpoints need no scheme, and `exec-watch` takes key and command in the order in which
//! people type them (CTL2-41).
//!
//! Which dialect a command line is in is decided in `dialect`.
//!
//! etcd: v3.4.23 etcdctl/ctlv2, client.

mod access;
mod app;
mod backup;
pub(crate) mod dialect;
pub(crate) mod elsewhere;
mod escape;
mod flags;
mod health;
mod help;
mod http;
mod import;
mod keys;
mod log;
mod members;
mod print;
mod settings;
mod watch;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use self::app::{COMMANDS, Command, GLOBAL};
use self::flags::{Order, Parsed};
use self::http::{Client, ClientError, Question};
use self::settings::{ClientSettings, Endpoint};

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
    /// With the end of its last line.
    text: String,
    code: Code,
}

impl Failure {
    /// As the original prints errors: two blanks behind the colon (CTL2-14).
    fn error(code: Code, text: impl Display) -> Self {
        Self { text: format!("Error:  {text}\n"), code }
    }

    fn plain(code: Code, text: impl Display) -> Self {
        Self { text: format!("{text}\n"), code }
    }

    /// A command that was not understood.
    fn arguments(text: impl Display) -> Self {
        Self::plain(Code::BadArguments, text)
    }

    /// With a line for each member that was asked.
    fn client(code: Code, error: &ClientError) -> Self {
        let mut failure = Self::error(code, error);
        if let Some(details) = error.details() {
            failure.text.push_str(&details);
            failure.text.push('\n');
        }
        failure
    }
}

type Done = Result<(), Failure>;

/// A command being run.
#[derive(Debug)]
struct Call {
    global: Parsed,
    own: Parsed,
    /// Whether texts are to be the original's even where ours tell more.
    is_exact: bool,
}

impl Call {
    fn argument(&self, at: usize) -> Option<&str> {
        self.own.rest.get(at).map(String::as_str)
    }

    /// CTL2-15.
    fn key(&self) -> Result<&str, Failure> {
        let missing = || Failure::error(Code::BadArguments, "key required");
        self.argument(0).ok_or_else(missing)
    }

    /// CTL2-09.
    fn format(&self) -> &str {
        self.global.text("output").unwrap_or("simple")
    }

    fn is_debug(&self) -> bool {
        self.global.is_set("debug")
    }

    /// The members of flags and environment.
    async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(ClientSettings::read(&self.global, self.is_exact).await?))
    }

    /// The members that these know of (CTL2-08, CTL2-19).
    async fn connect(&self) -> Result<Client, Failure> {
        let mut client = self.client().await?;
        if !self.global.is_set("no-sync") {
            if self.is_debug() {
                let endpoints = client.endpoints().join(",");
                eprintln!("start to sync cluster using endpoints({endpoints})");
            }
            sync(&mut client).await?;
            if self.is_debug() {
                eprintln!("got endpoints({}) after sync", client.endpoints().join(","));
            }
        }
        self.show_endpoints(&client);
        Ok(client)
    }

    fn show_endpoints(&self, client: &Client) {
        if self.is_debug() {
            eprintln!("Cluster-Endpoints: {}", client.endpoints().join(", "));
        }
    }
}

async fn sync(client: &mut Client) -> Done {
    let path = "/v2/members".to_owned();
    let question = Question { method: "GET", path, ..Question::default() };
    let answer = match client.ask(&question, client.deadline()).await {
        Err(error) if error.is_connection() => {
            return Err(Failure::client(Code::BadConnection, &error));
        }
        // Whoever is asked next tells it.
        Err(_) => return Ok(()),
        Ok(answer) => answer,
    };
    let body = serde_json::from_slice::<Value>(&answer.body).ok();
    let Some(body) = body.filter(|_| answer.status == 200) else { return Ok(()) };
    let members = body["members"].as_array().into_iter().flatten();
    let urls = members.flat_map(|member| member["clientURLs"].as_array().into_iter().flatten());
    let urls: Vec<&str> = urls.filter_map(Value::as_str).collect();
    if urls.is_empty() {
        let endpoints = client.endpoints().join(",");
        eprintln!("etcd cluster has no published client endpoints.");
        eprintln!(
            "Try '--no-sync' if you want to access non-published client endpoints({endpoints})."
        );
        return Err(Failure::error(Code::Server, "client: no endpoints available"));
    }
    if let Ok(endpoints) = urls.into_iter().map(Endpoint::parse).collect() {
        client.set_endpoints(endpoints);
    }
    Ok(())
}

/// Runs the words; `api` is the variable `ETCDCTL_API`.
pub(crate) fn run(words: &[Vec<u8>], api: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error:  starting: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut words = dialect::text(words);
    if api.is_empty() {
        words = dialect::in_this_dialect(&words);
    }
    let ended = runtime.block_on(dispatch(&words, !api.is_empty()));
    // A thread that waits for standard input must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { text, code }) => {
            eprint!("{text}");
            ExitCode::from(code as u8)
        }
    }
}

async fn dispatch(words: &[String], is_exact: bool) -> Done {
    let known = [GLOBAL, &[help::VERSION]].concat();
    let global = match flags::parse(words, &known, Order::First) {
        Ok(global) => global,
        Err(error) => return usage_error(". ", error, &help::tool(COMMANDS, GLOBAL)),
    };
    // CTL2-11.
    if global.is_set("version") && !global.is_set("help") {
        let version = base::version::COMPATIBLE;
        return show(&format!("etcdctl version: {version}\nAPI version: 2\n"));
    }
    let Some((name, rest)) = global.rest.split_first() else {
        return show(&help::tool(COMMANDS, GLOBAL));
    };
    if global.is_set("help") {
        return show(&help::tool(COMMANDS, GLOBAL));
    }
    let Some((path, command, rest)) = find(name, rest)? else { return Ok(()) };
    let own = match flags::parse(rest, command.flags, command.order) {
        Ok(own) => own,
        Err(error) => return usage_error(": ", error, &help::command(&path, command)),
    };
    if own.is_set("help") {
        return show(&help::command(&path, command));
    }
    let run = command.run;
    let call = Call { global, own, is_exact };
    run(&call).await
}

/// A command, how it is called, and its own words.
type Found<'w> = (String, &'static Command, &'w [String]);

/// The command that the words name; `None` if help was all that was asked for.
fn find<'w>(name: &str, words: &'w [String]) -> Result<Option<Found<'w>>, Failure> {
    let mut path = "etcdctl".to_owned();
    let (mut list, mut name, mut words) = (COMMANDS, name, words);
    let mut whole: Option<&'static Command> = None;
    loop {
        if name == "help" || name == "h" {
            show(&asked_help(&path, list, whole, words)?)?;
            return Ok(None);
        }
        let found = list.iter().find(|command| command.name == name);
        let command = found.ok_or_else(|| no_topic(name))?;
        path = format!("{path} {name}");
        if command.commands.is_empty() {
            return Ok(Some((path, command, words)));
        }
        let parsed = match flags::parse(words, &[], Order::First) {
            Ok(parsed) => parsed,
            Err(error) => {
                usage_error(". ", error, &help::command(&path, command))?;
                return Ok(None);
            }
        };
        if parsed.is_set("help") || parsed.rest.is_empty() {
            show(&help::command(&path, command))?;
            return Ok(None);
        }
        words = &words[words.len() - parsed.rest.len()..];
        (list, name, whole) = (command.commands, words[0].as_str(), Some(command));
        words = &words[1..];
    }
}

/// CTL2-16.
fn no_topic(name: &str) -> Failure {
    let hint = dialect::hint_for(name, "2").map(|hint| format!("\n{hint}")).unwrap_or_default();
    Failure::plain(Code::Unknown, format!("No help topic for '{name}'{hint}"))
}

/// CTL2-12.
fn asked_help(
    path: &str,
    list: &[Command],
    whole: Option<&Command>,
    words: &[String],
) -> Result<String, Failure> {
    let Some(topic) = words.first() else {
        return Ok(match whole {
            Some(command) => help::command(path, command),
            None => help::tool(COMMANDS, GLOBAL),
        });
    };
    let found = list.iter().find(|command| command.name == topic);
    let command = found.ok_or_else(|| no_topic(topic))?;
    let path = format!("{path} {topic}");
    Ok(if command.commands.is_empty() {
        help::command(&path, command)
    } else {
        help::list_by_name(&path, command)
    })
}

/// Prints what is too long for a line macro.
fn show(text: &str) -> Done {
    // Nobody reads any more: nothing is left to do.
    std::io::stdout().write_all(text.as_bytes()).map_or(Ok(()), Ok)
}

fn usage_error(separator: &str, error: String, help: &str) -> Done {
    show(&format!("Incorrect Usage{separator}{error}\n\n{help}"))?;
    Err(Failure::arguments(error))
}
