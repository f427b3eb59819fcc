//! Our tools and etcd's own: the same command lines must print the same and leave with the same
//! code.
//!
//! The scripts in `testdata/compare` are run line by line against a fresh member. What etcd's tools
//! print against etcd's server is recorded beside them, so that ours can be compared on machines that
//! have no etcd. Where there is one, the records are checked too:
//!
//! - `REAL_ETCD_35` names a folder with `etcd`, `etcdctl` and `etcdutl` 3.5. Its tools must print what
//!   is recorded; ours must print the same against its server; its `etcdctl` must print the same
//!   against our server.
//! - `REAL_ETCD_37` names one with 3.7, whose tools must print what is recorded.
//!
//! With both and `RECORD=1` the records are written anew. What is put aside before comparing is told
//! in [`normal`]; where releases differ, or we do, `testdata/compare/deviations.txt` has the reasons.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod normal;
mod recorded;
mod side;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use std::path::{Path, PathBuf};

use recorded::{By, Entry};
use side::{Output, Side, Tools};
use support::script::{Line, parse, server_flags};
use support::server::Server;

/// A release of programs.
#[derive(Clone, Debug)]
struct Release {
    tools: Tools,
    server: PathBuf,
}

impl Release {
    fn of(folder: &Path) -> Self {
        Self { tools: Tools::of(folder), server: folder.join("etcd") }
    }

    /// The programs in the folder that a variable names, if it is set.
    fn named(variable: &str) -> Option<Self> {
        let folder = std::env::var_os(variable).map(PathBuf::from);
        if folder.is_none() {
            println!("skipped: {variable} is not set");
        }
        folder.map(|folder| Self::of(&folder))
    }

    /// Ours, if server and `etcdutl` were built beside `etcdctl`, as they are with the workspace.
    fn ours() -> Option<Self> {
        let ours = Self::of(Path::new(env!("CARGO_BIN_EXE_etcdctl")).parent().unwrap());
        if !ours.server.is_file() || !ours.tools.offline.is_file() {
            println!("skipped: etcd and etcdutl are not built beside etcdctl");
            return None;
        }
        Some(ours)
    }
}

/// Runs a script with tools against a server of its own.
fn run(name: &str, tools: &Tools, server: &Path) -> Vec<(Line, Output)> {
    let script = recorded::script(name);
    let flags = server_flags(&script);
    let servers = [Server::start_with(server, &flags)];
    let destination = script.contains("$DEST").then(|| Server::start(server));
    let mut side = Side::new(tools.clone(), &servers[0], destination.as_ref());
    parse(&script).into_iter().map(|line| (line.clone(), side.run(&line))).collect()
}

/// Fails if what is printed is not what is recorded: twice, because leases and deadlines of sessions
/// run out on a machine that is busy enough.
fn check(
    name: &str,
    by: By,
    print: impl Fn() -> Vec<(Line, Output)>,
    is_compared: impl Fn(&Entry) -> bool,
) {
    let first = differences(name, by, &print(), &is_compared);
    if first.is_empty() {
        return;
    }
    println!("{name}: once more, for these differ:\n{}", first.join("\n"));
    let again = differences(name, by, &print(), &is_compared);
    assert!(again.is_empty(), "{}", again.join("\n"));
}

fn differences(
    name: &str,
    by: By,
    printed: &[(Line, Output)],
    is_compared: &impl Fn(&Entry) -> bool,
) -> Vec<String> {
    let entries = recorded::read(name);
    let mut differences = Vec::new();
    let mut compared = 0;
    assert_eq!(printed.len(), entries.len(), "{name} was not recorded again after a change");
    for ((line, output), entry) in printed.iter().zip(&entries) {
        assert_eq!(line.text, entry.text, "{name} was not recorded again after a change");
        if line.is_same_member || !is_compared(entry) {
            continue;
        }
        compared += 1;
        let (printed, expected) = (output.to_string(), entry.of(by));
        if printed != expected {
            differences
                .push(format!("== {}\n-- printed\n{printed}-- recorded\n{expected}", line.text));
        }
    }
    println!("{name}: {compared} command lines compared, {} differ", differences.len());
    differences
}

/// Lines that only make sense where both tools look at one member.
fn check_same_member(name: &str, ours: &Tools, theirs: &Release) {
    let script = recorded::script(name);
    let lines = parse(&script);
    if !lines.iter().any(|line| line.is_same_member) {
        return;
    }
    let server = Server::start_with(&theirs.server, &server_flags(&script));
    let mut side = Side::new(theirs.tools.clone(), &server, None);
    let mut differences = Vec::new();
    for line in lines {
        let expected = side.run(&line);
        if !line.is_same_member {
            continue;
        }
        let printed = side.run_with(ours, &line);
        if printed != expected {
            differences.push(format!("== {}\n-- ours\n{printed}-- theirs\n{expected}", line.text));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Runs everything everywhere and writes down what was printed.
fn record(name: &str) {
    let releases =
        [Release::named("REAL_ETCD_35"), Release::named("REAL_ETCD_37"), Release::ours()];
    let printed = releases.map(|release| {
        let release = release.expect("recording needs everybody's programs");
        run(name, &release.tools, &release.server)
    });
    let [theirs, newer, ours] = &printed;
    let outputs = theirs.iter().zip(newer).zip(ours);
    let entries = outputs.map(|(((line, theirs), (_, newer)), (_, ours))| {
        let none = Output::default();
        let all = if line.is_same_member { [&none; 3] } else { [theirs, newer, ours] };
        Entry::new(&line.text, all)
    });
    recorded::write(name, &entries.collect::<Vec<_>>());
}

fn ours_prints_what_is_recorded(name: &str) {
    if std::env::var_os("RECORD").is_some() {
        record(name);
    }
    let Some(ours) = Release::ours() else { return };
    check(name, By::Ours, || run(name, &ours.tools, &ours.server), |_| true);
}

fn theirs_prints_what_is_recorded(name: &str, variable: &str, by: By) {
    let Some(theirs) = Release::named(variable) else { return };
    check(name, by, || run(name, &theirs.tools, &theirs.server), |_| true);
}

/// Our tools against their server.
fn ours_prints_the_same_against_theirs(name: &str) {
    let (Some(ours), Some(theirs)) = (Release::ours(), Release::named("REAL_ETCD_35")) else {
        return;
    };
    check(name, By::V3_5, || run(name, &ours.tools, &theirs.server), Entry::is_common);
    // The columns of 3.7 are more.
    if let Some(newer) = Release::named("REAL_ETCD_37") {
        check_same_member(name, &ours.tools, &newer);
    }
}

/// Their tools against our server.
fn theirs_prints_the_same_against_ours(name: &str) {
    let (Some(ours), Some(theirs)) = (Release::ours(), Release::named("REAL_ETCD_35")) else {
        return;
    };
    check(name, By::V3_5, || run(name, &theirs.tools, &ours.server), Entry::is_common);
}

macro_rules! scripts {
    ($($name:ident),*) => {
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];

        $(mod $name {
            use super::By;

            const NAME: &str = stringify!($name);

            #[test]
            fn ours_on_ours_prints_what_is_recorded() {
                super::ours_prints_what_is_recorded(NAME);
            }

            #[test]
            fn record_is_what_3_5_prints() {
                super::theirs_prints_what_is_recorded(NAME, "REAL_ETCD_35", By::V3_5);
            }

            #[test]
            fn record_is_what_3_7_prints() {
                super::theirs_prints_what_is_recorded(NAME, "REAL_ETCD_37", By::V3_7);
            }

            #[test]
            fn ours_on_3_5_prints_the_same() {
                super::ours_prints_the_same_against_theirs(NAME);
            }

            #[test]
            fn tools_of_3_5_on_ours_print_the_same() {
                super::theirs_prints_the_same_against_ours(NAME);
            }
        })*
    };
}

// CTL3-02 to CTL3-92, UTL-01 to UTL-16.
scripts!(keys, leases, cluster, auth, sessions, environment, formats, space, offline);

/// Every difference has its reason, and every reason a difference.
#[test]
fn deviations_have_reasons() {
    let reasons = recorded::deviations();
    let mut used = vec![false; reasons.len()];
    let mut unexplained = Vec::new();
    let mut lines = 0;
    for name in SCRIPTS {
        for entry in recorded::read(name) {
            lines += 1;
            for by in entry.deviating() {
                let mut is_explained = false;
                for (at, _) in reasons.iter().enumerate().filter(|(_, it)| it.explains(by, &entry))
                {
                    used[at] = true;
                    is_explained = true;
                }
                if !is_explained {
                    unexplained.push(format!("{by:?} | {}", entry.text));
                }
            }
        }
    }
    let unused = reasons.iter().zip(used).filter(|(_, used)| !used);
    let unused: Vec<_> = unused.map(|(reason, _)| reason.subject()).collect();
    println!("{lines} command lines are recorded");
    assert!(unexplained.is_empty(), "without a reason:\n{}", unexplained.join("\n"));
    assert!(unused.is_empty(), "reasons without a difference:\n{}", unused.join("\n"));
}
