//! What to tell somebody whose command line was not understood: the command or the flag that was
//! probably meant, and the program that has it if this one does not.
//!
//! The texts that scripts know stay as they are; a hint is a line of its own behind them.

use crate::command::{Action, App, Command, known_flags, plain_words};
use crate::flag::{Argument, Flag, FlagError, Values, text_of};
use crate::suggest::{is_near, is_nearly};

/// More would not be a hint.
const SUGGESTIONS_MAX: usize = 3;

impl<R: Copy> App<R> {
    /// A hint for words that [`App::resolve`] refuses, or answers with a help text that nobody asked
    /// for. `None` if nothing comes near.
    #[must_use]
    pub fn hint(&self, words: &[Argument]) -> Option<String> {
        let (path, rest) = self.find(words).unwrap_or_else(|_| (vec![&self.root], words.to_vec()));
        let command = path[path.len() - 1];
        let plain = plain_words(&path, &rest);
        let word = plain.first().map(|position| text_of(&rest[*position]));
        let is_command_missing = matches!(command.action, Action::None);
        if let Some(word) = word.filter(|_| is_command_missing) {
            return self.about_command(&path, &word);
        }
        let help_flag = command.help_flag();
        let mut flags = Values::new(known_flags(&path).chain([&help_flag]));
        about_flag(&path, &flags.parse(&rest).err()?)
    }

    fn about_command(&self, path: &[&Command<R>], word: &str) -> Option<String> {
        let command = path[path.len() - 1];
        if let Some(hint) = elsewhere(path, word) {
            return Some(hint);
        }
        let names = path.iter().map(|command| command.name()).collect::<Vec<_>>().join(" ");
        let near = |child: &&Command<R>| is_near(word, child.name()) || child.also.contains(&word);
        let mut found: Vec<String> = Vec::new();
        if 1 < path.len() || !command.subcommands.iter().any(|child| is_near(word, child.name())) {
            let near = command.subcommands.iter().filter(near);
            found.extend(near.map(|child| format!("`{names} {}`", child.name())));
            if found.is_empty() {
                collect(&self.root, self.root.name(), word, &mut found);
            }
        }
        found.truncate(SUGGESTIONS_MAX);
        (!found.is_empty()).then(|| format!("did you mean {}?", found.join(" or ")))
    }
}

/// The commands anywhere below that are called nearly so.
fn collect<R: Copy>(command: &Command<R>, names: &str, word: &str, found: &mut Vec<String>) {
    for child in &command.subcommands {
        let names = format!("{names} {}", child.name());
        if is_nearly(word, child.name()) || child.also.contains(&word) {
            found.push(format!("`{names}`"));
        }
        collect(child, &names, word, found);
    }
}

/// What another program has.
fn elsewhere<R: Copy>(path: &[&Command<R>], word: &str) -> Option<String> {
    let command = path[path.len() - 1];
    let (_, instead) = command.elsewhere.iter().find(|(name, _)| *name == word)?;
    Some(format!("{instead} does that"))
}

fn about_flag<R: Copy>(path: &[&Command<R>], error: &FlagError) -> Option<String> {
    let known = || known_flags(path).filter(|flag| !flag.name.is_empty());
    let near = |given: &str| -> Vec<&Flag> {
        let exact: Vec<_> = known().filter(|flag| flag.name == given).collect();
        if exact.is_empty() {
            known().filter(|flag| is_nearly(given, flag.name)).collect()
        } else {
            exact
        }
    };
    let named = |flags: Vec<&Flag>| {
        let names: Vec<_> = flags.iter().map(|flag| format!("--{}", flag.name)).collect();
        (!names.is_empty()).then(|| names[..names.len().min(SUGGESTIONS_MAX)].join(" or "))
    };
    match error {
        FlagError::Unknown { name } => {
            let other = path.iter().rev().find_map(|command| {
                let found = command
                    .elsewhere
                    .iter()
                    .find(|(word, _)| word.strip_prefix("--") == Some(name));
                found.map(|(_, instead)| format!("{instead} does that"))
            });
            other.or_else(|| Some(format!("did you mean {}?", named(near(name))?)))
        }
        FlagError::UnknownShorthand { letters, .. } => {
            let given = letters.split('=').next().unwrap_or_default();
            let names = named(near(given)).filter(|_| 1 < given.len())?;
            Some(format!("names of more than one letter stand behind two dashes: {names}"))
        }
        FlagError::NeedsArgument { .. }
        | FlagError::ShorthandNeedsArgument { .. }
        | FlagError::Invalid { .. }
        | FlagError::BadSyntax { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(line: &str) -> Option<String> {
        let keep_alive = Command::new("keep-alive <id>", "Renews").run(1);
        let time_to_live = Command::new("timetolive <id>", "Asks").run(2).also(&["ttl"]);
        let lease = Command::new("lease", "Leases").subcommands([keep_alive, time_to_live]);
        let save = Command::new("save <file>", "Saves").run(3);
        let snapshot = Command::new("snapshot", "Snapshots")
            .subcommands([save])
            .elsewhere(&[("restore", "`other snapshot restore`"), ("--data-dir", "`other`")]);
        let get = Command::new("get <key>", "Gets").run(4).flags([Flag::bool("prefix", "All")]);
        let root = Command::new("tool", "A tool.").subcommands([lease, snapshot, get]);
        let app = App { root, groups: &[], help_footer: "", is_plain: false };
        let words: Vec<_> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        app.hint(&words)
    }

    fn meant(command: &str) -> Option<String> {
        Some(format!("did you mean `{command}`?"))
    }

    #[test]
    fn misspelled_command_is_told_with_its_whole_name() {
        assert_eq!(hint("lease keepalive 1"), meant("tool lease keep-alive"));
        assert_eq!(hint("lease ttl 1"), meant("tool lease timetolive"));
        assert_eq!(hint("keepalive 1"), meant("tool lease keep-alive"));
        assert_eq!(hint("ttl 1"), meant("tool lease timetolive"));
        assert_eq!(hint("lease nonsense"), None);
        // What is said already needs no hint.
        assert_eq!(hint("leas"), None);
        assert_eq!(hint("got"), None);
    }

    #[test]
    fn what_another_program_does_is_told() {
        let other = Some("`other snapshot restore` does that".to_owned());
        assert_eq!(hint("snapshot restore file"), other);
        assert_eq!(hint("snapshot --data-dir x restore file"), other);
        assert_eq!(hint("snapshot --data-dir x"), Some("`other` does that".to_owned()));
    }

    #[test]
    fn misspelled_flag_is_told() {
        assert_eq!(hint("get --prefx a"), Some("did you mean --prefix?".to_owned()));
        let dashes = "names of more than one letter stand behind two dashes: --prefix";
        assert_eq!(hint("get -prefix a"), Some(dashes.to_owned()));
        assert_eq!(hint("get --nonsense a"), None);
        assert_eq!(hint("get a"), None);
    }
}
