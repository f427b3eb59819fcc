//! A tree of commands, and how a command line finds its way through it.
//!
//! etcd: `github.com/spf13/cobra` as used by `etcdctl` and `etcdutl`, with prefix matching.

use std::fmt::Write as _;

use crate::exit::ExitCode;
use crate::flag::{Argument, Flag, FlagError, Values, text_of};
use crate::man;
use crate::quote::quote;
use crate::suggest::is_near;
use crate::usage;

/// A whole tool.
#[derive(Clone, Debug)]
pub struct App<R> {
    /// The tool itself; its persistent flags are the global ones.
    pub root: Command<R>,
    /// Titles under which help lists the root's commands, in order.
    pub groups: &'static [&'static str],
    /// Printed behind every help text.
    pub help_footer: &'static str,
    /// The manners of `etcdutl`: help is the usage alone, at the root too with all flags, and what is
    /// wrong with a command line is said again behind the usage.
    pub is_plain: bool,
}

/// One command. `R` is what the tool needs to run it, usually a function.
#[derive(Clone, Debug)]
pub struct Command<R> {
    /// Name and arguments as help shows them; the name is the first word.
    pub use_line: &'static str,
    /// One line of help.
    pub short: &'static str,
    /// All of the help; the line if empty.
    pub long: &'static str,
    /// Examples, indented.
    pub example: &'static str,
    /// The title under which the parent lists it.
    pub group: Option<&'static str>,
    /// Flags of this command.
    pub flags: Vec<Flag>,
    /// Flags of this command and those below it.
    pub persistent_flags: Vec<Flag>,
    /// The commands below it, in order of declaration.
    pub subcommands: Vec<Self>,
    /// How many arguments are accepted; `None` if the command sees to that itself.
    pub argument_count: Option<usize>,
    /// The only words accepted as the one argument, if there are any.
    pub words: &'static [&'static str],
    /// Other words that people use for it; a hint knows them.
    pub also: &'static [&'static str],
    /// Commands and flags, these with their dashes, that people look for here, and what has them.
    pub elsewhere: &'static [(&'static str, &'static str)],
    /// Whether help shows `[flags]`.
    pub flags_in_use_line: bool,
    /// What it does.
    pub action: Action<R>,
}

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub enum Action<R> {
    /// Nothing but show its help.
    None,
    /// Shows the help of the command named by its arguments.
    Help,
    /// Runs.
    Run(R),
}

/// What comes out of a command line.
#[derive(Debug)]
pub enum Outcome<R> {
    /// A command is to be run.
    Run(Invocation<R>),
    /// Everything is said.
    Said {
        /// For standard output.
        stdout: String,
        /// For standard error.
        stderr: String,
        /// What to tell the shell.
        code: ExitCode,
    },
}

/// A command with its flags and arguments.
#[derive(Clone, Debug)]
pub struct Invocation<R> {
    /// What to run.
    pub run: R,
    /// The flags, inherited ones included.
    pub flags: Values,
    /// What is not a flag.
    pub arguments: Vec<Argument>,
    /// Names of the flags that come from the commands above; the environment may set them.
    pub inherited: Vec<&'static str>,
}

impl<R: Copy> Command<R> {
    /// A command that only holds others.
    #[must_use]
    pub fn new(use_line: &'static str, short: &'static str) -> Self {
        Self {
            use_line,
            short,
            long: "",
            example: "",
            group: None,
            flags: Vec::new(),
            persistent_flags: Vec::new(),
            subcommands: Vec::new(),
            argument_count: None,
            words: &[],
            also: &[],
            elsewhere: &[],
            flags_in_use_line: true,
            action: Action::None,
        }
    }

    /// The same with a longer help.
    #[must_use]
    pub fn long(self, long: &'static str) -> Self {
        Self { long, ..self }
    }

    /// The same listed under a title.
    #[must_use]
    pub fn group(self, group: &'static str) -> Self {
        Self { group: Some(group), ..self }
    }

    /// The same with flags.
    #[must_use]
    pub fn flags(self, flags: impl IntoIterator<Item = Flag>) -> Self {
        Self { flags: flags.into_iter().collect(), ..self }
    }

    /// The same with flags that the commands below share.
    #[must_use]
    pub fn persistent_flags(self, flags: impl IntoIterator<Item = Flag>) -> Self {
        Self { persistent_flags: flags.into_iter().collect(), ..self }
    }

    /// The same with commands below.
    #[must_use]
    pub fn subcommands(self, subcommands: impl IntoIterator<Item = Self>) -> Self {
        Self { subcommands: subcommands.into_iter().collect(), ..self }
    }

    /// The same with something to do.
    #[must_use]
    pub fn run(self, run: R) -> Self {
        Self { action: Action::Run(run), ..self }
    }

    /// The same with other words that people use for it.
    #[must_use]
    pub fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    /// The same with what people look for here and what has it.
    #[must_use]
    pub fn elsewhere(self, elsewhere: &'static [(&'static str, &'static str)]) -> Self {
        Self { elsewhere, ..self }
    }

    /// The first word of the use line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.use_line.split(' ').next().unwrap_or_default()
    }

    /// The flag that every command has.
    #[must_use]
    pub fn help_flag(&self) -> Flag {
        Flag::bool("help", format!("help for {}", self.name())).short('h')
    }

    /// The command below with this name, or the only one whose name starts so.
    fn child(&self, name: &str) -> Option<&Self> {
        if let Some(exact) = self.subcommands.iter().find(|command| command.name() == name) {
            return Some(exact);
        }
        let mut near = self.subcommands.iter().filter(|command| command.name().starts_with(name));
        near.next().filter(|_| near.next().is_none())
    }
}

/// A way from the root to a command.
pub(crate) type Path<'a, R> = Vec<&'a Command<R>>;

impl<R: Copy> App<R> {
    /// Finds the command and reads its flags. `words` does not hold the program's name.
    #[must_use]
    pub fn resolve(&self, words: &[Argument]) -> Outcome<R> {
        if let [word] = words
            && word == man::WORD
        {
            return Outcome::helped(man::page(self));
        }
        let (path, words) = match self.find(words) {
            Ok(found) => found,
            Err(error) => return self.failed(&error, &self.usage_line()),
        };
        let command = path[path.len() - 1];
        let help_flag = command.help_flag();
        let mut flags = Values::new(known_flags(&path).chain([&help_flag]));
        let arguments = match flags.parse(&words) {
            Ok(arguments) => arguments,
            Err(error) => return self.misused(&path, &error),
        };
        if flags.bool("help") {
            return Outcome::helped(usage::help(self, &path));
        }
        let run = match command.action {
            Action::None => return Outcome::helped(usage::help(self, &path)),
            Action::Help => return self.help_about(&arguments),
            Action::Run(run) => run,
        };
        let missing = || missing_flags(&path, &flags);
        if let Some(text) = bad_arguments(&path, &arguments).or_else(missing) {
            return self.misused(&path, &text);
        }
        let inherited = path[..path.len() - 1].iter().flat_map(|parent| &parent.persistent_flags);
        let inherited = inherited.map(|flag| flag.name).collect();
        Outcome::Run(Invocation { run, flags, arguments, inherited })
    }

    /// Walks down as long as the next word that is no flag names a command. Returns the way and
    /// the words without those names, or the text about an unknown command.
    pub(crate) fn find(&self, words: &[Argument]) -> Result<(Path<'_, R>, Vec<Argument>), String> {
        let mut path = vec![&self.root];
        let mut words = words.to_vec();
        loop {
            let command = path[path.len() - 1];
            let plain = plain_words(&path, &words);
            let Some(position) = plain.first() else {
                return Ok((path, words));
            };
            let name = text_of(&words[*position]);
            let Some(next) = command.child(&name) else {
                if path.len() == 1 && !command.subcommands.is_empty() {
                    return Err(self.unknown(&name));
                }
                return Ok((path, words));
            };
            words.remove(*position);
            path.push(next);
        }
    }

    fn unknown(&self, name: &str) -> String {
        let root = self.root.name();
        let quoted = quote(name.as_bytes());
        let mut text = format!("unknown command {quoted} for {}", quote(root.as_bytes()));
        let near = self.root.subcommands.iter().filter(|command| is_near(name, command.name()));
        let near: Vec<_> = near.map(Command::name).collect();
        if !near.is_empty() {
            text.push_str("\n\nDid you mean this?\n");
            for name in near {
                writeln!(text, "\t{name}").expect("writing to a string");
            }
        }
        text
    }

    fn usage_line(&self) -> String {
        format!("Run '{} --help' for usage.", self.root.name())
    }

    fn misused(&self, path: &[&Command<R>], error: &impl std::fmt::Display) -> Outcome<R> {
        self.failed(error, &usage::usage(self, path))
    }

    fn failed(&self, error: &impl std::fmt::Display, usage: &str) -> Outcome<R> {
        let again = if self.is_plain { format!("Error: {error}\n") } else { String::new() };
        Outcome::Said {
            stdout: String::new(),
            stderr: format!("Error: {error}\n{usage}\n{again}"),
            code: ExitCode::Error,
        }
    }

    fn help_about(&self, arguments: &[Argument]) -> Outcome<R> {
        if let Ok((path, _)) = self.find(arguments) {
            return Outcome::helped(usage::help(self, &path));
        }
        let topics: Vec<_> = arguments.iter().map(|word| format!("`{}`", text_of(word))).collect();
        let topics = topics.join(" ");
        let usage = usage::usage(self, &[&self.root]);
        // A command gets this flag when it runs, and none has.
        let lines = usage.split_inclusive('\n').filter(|line| !line.starts_with("  -h, --help "));
        let usage: String = lines.collect();
        Outcome::Said {
            stdout: String::new(),
            stderr: format!("Unknown help topic [{topics}]\n{usage}"),
            code: ExitCode::Success,
        }
    }
}

impl<R> Outcome<R> {
    fn helped(stdout: String) -> Self {
        Self::Said { stdout, stderr: String::new(), code: ExitCode::Success }
    }
}

/// The command's own flags and those of the commands above.
pub(crate) fn known_flags<'a, R>(path: &[&'a Command<R>]) -> impl Iterator<Item = &'a Flag> {
    let own = path.last().map(|command| &command.flags).into_iter().flatten();
    own.chain(path.iter().rev().flat_map(|command| &command.persistent_flags))
}

/// Positions of the words before `--` that are neither flags nor values of flags. An unknown flag
/// counts as one with a value.
pub(crate) fn plain_words<R: Copy>(path: &[&Command<R>], words: &[Argument]) -> Vec<usize> {
    let help = path[0].help_flag();
    let root_help = (path.len() == 1).then_some(&help);
    let flags: Vec<&Flag> = known_flags(path).chain(root_help).collect();
    let takes_none = |named: &dyn Fn(&Flag) -> bool| {
        flags.iter().any(|flag| named(flag) && flag.kind == crate::flag::Kind::Bool)
    };
    let mut positions = Vec::new();
    let mut skip = false;
    for (position, word) in words.iter().enumerate() {
        if std::mem::take(&mut skip) {
            continue;
        }
        let word = text_of(word);
        if word == "--" {
            break;
        }
        if let Some(name) = word.strip_prefix("--") {
            skip = !name.contains('=') && !takes_none(&|flag| flag.name == name);
        } else if let Some(letters) = word.strip_prefix('-') {
            let mut letters = letters.chars();
            let only = letters.next().filter(|_| letters.next().is_none());
            skip = only.is_some_and(|letter| !takes_none(&|flag| flag.shorthand == Some(letter)));
        } else if !word.is_empty() {
            positions.push(position);
        }
    }
    positions
}

/// What is wrong with the arguments of a command that accepts only so many or only certain words.
fn bad_arguments<R: Copy>(path: &[&Command<R>], arguments: &[Argument]) -> Option<String> {
    let command = path[path.len() - 1];
    let wanted = command.argument_count.or_else(|| one_word(command))?;
    if arguments.len() != wanted {
        return Some(format!("accepts {wanted} arg(s), received {}", arguments.len()));
    }
    let is_known = |word: &Argument| command.words.iter().any(|known| known.as_bytes() == word);
    let word = arguments.first().filter(|_| !command.words.is_empty())?;
    if is_known(word) {
        return None;
    }
    let command_path = usage::command_path(path);
    Some(format!("invalid argument {} for {}", quote(word), quote(command_path.as_bytes())))
}

fn one_word<R>(command: &Command<R>) -> Option<usize> {
    (!command.words.is_empty()).then_some(1)
}

/// Names the flags that the command needs and that were not given.
fn missing_flags<R: Copy>(path: &[&Command<R>], flags: &Values) -> Option<String> {
    let missing = known_flags(path).filter(|flag| flag.is_required && !flags.is_changed(flag.name));
    let mut names: Vec<_> = missing.map(|flag| quote(flag.name.as_bytes())).collect();
    names.sort();
    (!names.is_empty()).then(|| format!("required flag(s) {} not set", names.join(", ")))
}

/// Reads a command line that is not the process's own, such as a line of a transaction.
///
/// # Errors
///
/// See [`FlagError`].
pub fn parse_line<R: Copy>(
    command: &Command<R>,
    words: &[Argument],
) -> Result<(Values, Vec<Argument>), FlagError> {
    let help = command.help_flag();
    let mut flags = Values::new(command.flags.iter().chain([&help]));
    let arguments = flags.parse(words)?;
    Ok((flags, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> App<u8> {
        let grant = Command::new("grant <ttl>", "Creates leases").run(3);
        let lease = Command::new("lease <subcommand>", "Leases").subcommands([grant]).group("Keys");
        let get = Command::new("get [options] <key>", "Gets").run(1).group("Keys");
        let get = get.flags([Flag::int("limit", "Maximum number of results")]);
        let put = Command::new("put <key>", "Puts").run(2).group("Keys");
        let root = Command::new("tool", "A tool.")
            .persistent_flags([Flag::text("write-out", "format").short('w').hide()])
            .subcommands([get, put, lease]);
        App { root, groups: &["Keys"], help_footer: "Bye.\n", is_plain: false }
    }

    fn resolve(line: &str) -> Outcome<u8> {
        let words: Vec<_> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        app().resolve(&words)
    }

    fn said(line: &str) -> (String, String, u8) {
        match resolve(line) {
            Outcome::Said { stdout, stderr, code } => (stdout, stderr, code.number()),
            Outcome::Run(invocation) => panic!("runs {invocation:?}"),
        }
    }

    fn run(line: &str) -> (u8, Vec<Argument>) {
        match resolve(line) {
            Outcome::Run(invocation) => (invocation.run, invocation.arguments),
            Outcome::Said { stderr, .. } => panic!("says {stderr}"),
        }
    }

    /// CTL3-05.
    #[test]
    fn unique_prefixes_and_flags_in_front_find_the_command() {
        assert_eq!(run("-w json le gr 60"), (3, vec![b"60".to_vec()]));
        assert_eq!(run("--write-out json get get").1, [b"get".to_vec()]);
    }

    /// CTL3-04.
    #[test]
    fn unknown_command_suggests_near_ones() {
        let expected = "Error: unknown command \"set\" for \"tool\"\n\nDid you mean this?\n\
            \tget\n\tput\n\nRun 'tool --help' for usage.\n";
        assert_eq!(said("set a b"), (String::new(), expected.to_owned(), 1));
        let expected =
            "Error: unknown command \"zzzzz\" for \"tool\"\nRun 'tool --help' for usage.\n";
        assert_eq!(said("zzzzz").1, expected);
    }

    /// CTL3-23.
    #[test]
    fn help_lists_commands_in_groups() {
        let expected = "A tool.\n\nUsage:\n  tool [command]\n\nKeys\n  get         Gets\n  \
            lease       Leases\n  put         Puts\n\nUse \"tool [command] --help\" for more \
            information about a command.\nBye.\n";
        assert_eq!(said(""), (expected.to_owned(), String::new(), 0));
        assert_eq!(said("lease nonsense").2, 0);
    }

    /// CTL3-25.
    #[test]
    fn flag_error_is_followed_by_usage() {
        let expected = "Error: unknown shorthand flag: 't' in -ttl\nUsage:\n  tool get [options] \
            <key> [flags]\n\nFlags:\n  -h, --help        help for get\n      --limit int   Maximum \
            number of results\n\n";
        assert_eq!(said("get -ttl"), (String::new(), expected.to_owned(), 1));
    }

    /// UTL-11, as cobra says it.
    #[test]
    fn plain_tool_repeats_what_is_wrong_behind_the_usage() {
        let clean = Command::new("clean", "Cleans").run(1);
        let clean = Command { argument_count: Some(0), ..clean };
        let clean = clean.flags([Flag::text("dir", "Where").required()]);
        let root = Command::new("tool", "A tool.")
            .persistent_flags([Flag::text("write-out", "format").short('w')])
            .subcommands([clean]);
        let app = App { root, groups: &[], help_footer: "", is_plain: true };
        let said = |line: &str| {
            let words = line.split_whitespace().map(|word| word.as_bytes().to_vec());
            match app.resolve(&words.collect::<Vec<_>>()) {
                Outcome::Said { stdout, stderr, .. } => (stdout, stderr),
                Outcome::Run(invocation) => panic!("runs {invocation:?}"),
            }
        };
        let usage = "Usage:\n  tool clean [flags]\n\nFlags:\n      --dir string   Where\n  -h, --help         \
            help for clean\n\nGlobal Flags:\n  -w, --write-out string   format\n";
        let error = "Error: required flag(s) \"dir\" not set\n";
        assert_eq!(said("clean").1, format!("{error}{usage}\n{error}"));
        let error = "Error: accepts 0 arg(s), received 1\n";
        assert_eq!(said("clean a").1, format!("{error}{usage}\n{error}"));
        let error = "Error: unknown command \"foo\" for \"tool\"\n";
        let hint = "Run 'tool --help' for usage.\n";
        assert_eq!(said("foo").1, format!("{error}{hint}{error}"));
        assert_eq!(said("clean --help").0, usage);
        let expected = "Usage:\n  tool [command]\n\nAvailable Commands:\n  clean       Cleans\n\n\
            Flags:\n  -h, --help               help for tool\n  -w, --write-out string   format\n\n\
            Use \"tool [command] --help\" for more information about a command.\n";
        assert_eq!(said("").0, expected);
    }
}
