//! A tool's manual page, from its tree of commands: the same definitions that `--help` prints.
//!
//! One page has all commands; they share their flags and are looked up together. Packages ask a
//! tool for its page by the command [`WORD`], which help does not list.

use roff::{Roff, bold, line_break, roman};

use crate::command::{Action, App, Command};
use crate::flag::Flag;
use crate::usage;

/// The command that prints the page. Its name is one that nobody takes for the start of another.
pub(crate) const WORD: &[u8] = b"__man";

/// The page, for `man`.
pub(crate) fn page<R: Copy>(app: &App<R>) -> String {
    let name = app.root.name();
    let source = format!("retcd {}", base::version::PRODUCT);
    let mut page = Roff::new();
    page.control("TH", [name.to_uppercase().as_str(), "1", "\"\"", source.as_str()]);
    page.control("SH", ["NAME"]);
    let about = app.root.short.trim_end_matches('.');
    page.text([roman(format!("{name} - {about}"))]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold(name), roman(" [flags] command [arguments]")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(app.root.short)]);
    let compatible = base::version::COMPATIBLE;
    page.text([roman(format!(
        "Its commands, flags and output are those of {name} of etcd {compatible}. A command may be \
         shortened as long as no other one begins like it, and flags may stand anywhere."
    ))]);
    page.control("SH", ["OPTIONS"]);
    page.text([roman("Of every command:")]);
    // Help leaves them out at the root, where another command lists them.
    app.root.persistent_flags.iter().for_each(|flag| option(&mut page, flag));
    page.control("SH", ["COMMANDS"]);
    describe(&mut page, app, &[&app.root]);
    environment(&mut page, app);
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_CODES {
        page.control("TP", []).text([bold(code)]).text([roman(meaning)]);
    }
    page.control("SH", ["SEE ALSO"]);
    let others = ["etcd", "etcdctl", "etcdutl"].into_iter().filter(|other| *other != name);
    let others: Vec<_> = others.map(|other| format!("{other}(1)")).collect();
    page.text([roman(others.join(", "))]);
    page.render()
}

const EXIT_CODES: [(&str, &str); 8] = [
    ("0", "Done."),
    ("1", "Refused or failed."),
    ("2", "The cluster cannot be reached."),
    ("3", "Text read from standard input makes no sense."),
    ("4", "A flag has a value that is not supported."),
    ("5", "Ended from outside."),
    ("6", "A file cannot be read or written."),
    ("128", "Wrong arguments."),
];

/// The commands below the last one of `path`, sorted, and those below them.
fn describe<R: Copy>(page: &mut Roff, app: &App<R>, path: &[&Command<R>]) {
    let above = path[path.len() - 1];
    let mut commands: Vec<_> = above.subcommands.iter().collect();
    commands.sort_by_key(|command| command.name());
    for command in commands {
        let path = [path, &[command]].concat();
        if !matches!(command.action, Action::None) {
            // Only text is escaped by the library.
            let line = usage::use_line(app, &path).replace('-', "\\-");
            page.control("SS", [line.as_str()]);
            about(page, command);
            command.persistent_flags.iter().chain(&command.flags).for_each(|flag| {
                if !flag.hidden {
                    option(page, flag);
                }
            });
        }
        describe(page, app, &path);
    }
}

fn about<R: Copy>(page: &mut Roff, command: &Command<R>) {
    let text = if command.long.is_empty() { command.short } else { command.long }.trim_end();
    let is_laid_out = text.contains('\n');
    if !is_laid_out {
        page.text([roman(text)]);
    }
    let example = command.example.trim_end();
    let laid_out = [if is_laid_out { text } else { "" }, example];
    for text in laid_out.into_iter().filter(|text| !text.is_empty()) {
        page.control("PP", []).control("nf", []);
        for line in text.lines() {
            page.text([if line.is_empty() { line_break() } else { roman(line) }]);
        }
        page.control("fi", []);
    }
}

fn option(page: &mut Roff, flag: &Flag) {
    let (label, text) = usage::flag_line(flag);
    page.control("TP", []).text([bold(label.trim())]).text([roman(text)]);
}

/// Only the tool that talks to members reads variables.
fn environment<R: Copy>(page: &mut Roff, app: &App<R>) {
    if app.is_plain {
        return;
    }
    let prefix = app.root.name().to_uppercase();
    page.control("SH", ["ENVIRONMENT"]);
    page.text([roman(format!(
        "Every flag under OPTIONS can also be set by a variable: --command-timeout by \
         {prefix}_COMMAND_TIMEOUT. A flag together with its variable is refused."
    ))]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Outcome;

    #[test]
    fn page_has_every_command_with_its_flags_and_global_flags() {
        let hidden = Flag::bool("secret", "not told").hide();
        let grant = Command::new("grant <ttl>", "Creates leases")
            .run(3)
            .flags([Flag::int("limit", "Maximum"), hidden]);
        let lease = Command::new("lease <subcommand>", "Leases").subcommands([grant]);
        let root = Command::new("tool", "A tool.")
            .persistent_flags([Flag::text("write-out", "format").short('w').hide()])
            .subcommands([lease]);
        let app = App { root, groups: &[], help_footer: "", is_plain: false };
        let Outcome::Said { stdout, code, .. } = app.resolve(&[WORD.to_vec()]) else {
            panic!("it runs something")
        };
        assert_eq!(code.number(), 0);
        for line in [
            ".SH NAME\ntool \\- A tool\n",
            ".SS \"tool lease grant <ttl> [flags]\"\nCreates leases\n",
            ".TP\n\\fB\\-\\-limit int\\fR\nMaximum\n",
            ".TP\n\\fB\\-w, \\-\\-write\\-out string\\fR\nformat\n",
        ] {
            assert!(stdout.contains(line), "no {line} in {stdout}");
        }
        assert!(!stdout.contains("secret"));
    }
}
