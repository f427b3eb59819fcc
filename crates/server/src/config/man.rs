//! The manual page of `etcd`, from the table of flags: the same definitions that `--help` prints.
//!
//! Packages ask the program for it by the argument [`WORD`], which help does not list.

use roff::{Roff, bold, line_break, roman};

use super::flags::{Flag, Group, Role};
use super::gates::known_gates;
use super::help::{listed, shown_default, usage_text};
use super::value::Kind;

/// The argument that prints the page, instead of starting anything.
pub(crate) const WORD: &str = "__man";

/// The page, for `man`.
#[must_use]
pub fn man_page() -> String {
    let mut page = Roff::new();
    let source = format!("retcd {}", base::version::PRODUCT);
    page.control("TH", ["ETCD", "1", "\"\"", source.as_str()]);
    page.control("SH", ["NAME"]).text([roman("etcd - a distributed key-value store")]);
    page.control("SH", ["SYNOPSIS"]).control("nf", []);
    // The first line is the heading, which is this one's.
    for line in usage_text().lines().skip(2) {
        page.text([if line.is_empty() { line_break() } else { roman(line) }]);
    }
    page.control("fi", []);
    page.control("SH", ["DESCRIPTION"]);
    let compatible = base::version::COMPATIBLE;
    page.text([roman(format!(
        "Serves keys and values to clients, alone or as a member of a cluster, with the API, the \
         flags and the files of etcd {compatible}. It is ready once it has told so on NOTIFY_SOCKET \
         and in its log (ready to serve client requests)."
    ))]);
    for group in Group::ALL {
        page.control("SH", [format!("OPTIONS: {}", group.title()).as_str()]);
        listed(group).for_each(|flag| option(&mut page, flag));
    }
    page.control("SH", ["SIGNALS"]);
    page.text([roman(
        "SIGTERM and SIGINT hand leadership over, sync what is written and end the program.",
    )]);
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        ("0", "The text that was asked for is printed."),
        ("1", "The configuration was refused, or the member failed; the log says why."),
        ("2", "The command line could not be understood."),
    ] {
        page.control("TP", []).text([bold(code)]).text([roman(meaning)]);
    }
    page.control("SH", ["FILES"]);
    for (file, meaning) in [
        ("/etc/default/etcd", "Variables of the service."),
        ("/var/lib/etcd", "Data of the service."),
        ("member/snap, member/wal", "In the data directory: the database and the log."),
    ] {
        page.control("TP", []).text([bold(file)]).text([roman(meaning)]);
    }
    page.control("SH", ["SEE ALSO"]).text([roman("etcdctl(1), etcdutl(1)")]);
    page.render()
}

fn option(page: &mut Roff, flag: &Flag) {
    page.control("TP", []);
    let name = bold(format!("--{}", flag.name));
    let now = match flag.role {
        Role::Alias(target) => format!("Now --{target}."),
        Role::Gate(gate) => format!("Now --feature-gates={gate}."),
        Role::Setting | Role::Ignored => {
            page.text([name, roman(format!(" '{}'", shown_default(flag)))]);
            page.text([roman(flag.help)]);
            if flag.kind == Kind::Gates {
                known_gates().iter().for_each(|gate| {
                    page.text([line_break(), roman(gate)]);
                });
            }
            if let Some(why) = flag.idle {
                page.text([roman(format!("(Accepted without effect: {why}.)"))]);
            }
            return;
        }
    };
    page.text([name]).text([roman(now)]);
}
