//! Golden scripts: commands and their printed result, in one text file.
//!
//! A file is a row of blocks parted by empty lines. A block is remarks (`#`), commands (one a
//! line), the mark `----` and what those commands printed. A block without the mark runs and must
//! print nothing. With `UPDATE=1` in the environment the results are rewritten instead of compared;
//! the difference is then reviewed like code.
//!
//! Not a test framework: whoever runs a script brings the meaning of its commands.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One line of a script that is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Words parted by blanks; a word in double quotes may hold blanks and loses its quotes.
    pub words: Vec<String>,
    /// The line's number in its file, from 1.
    pub line: usize,
}

impl Command {
    /// The first word.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.words[0]
    }

    /// The words behind the first.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.words[1..]
    }

    /// The value of the word `key=value`, if there is one.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.arguments().iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Whether `word` is among the arguments.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.arguments().iter().any(|argument| argument == word)
    }
}

/// Runs the script at `path`: `run` carries out one command and returns what it printed.
///
/// # Panics
///
/// If a result differs from the file's (unless `UPDATE=1`), if a result has an empty line (which
/// would end its block), or if the file cannot be read or written.
pub fn check(path: &Path, run: impl FnMut(&Command) -> String) {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("reading the script {}: {error}", path.display()));
    let result = rewrite(&text, run);
    if result == text {
        return;
    }
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(path, &result)
            .unwrap_or_else(|error| panic!("writing the script {}: {error}", path.display()));
        return;
    }
    panic!("{} (UPDATE=1 rewrites)\n{}", path.display(), first_difference(&text, &result));
}

/// Every script of a folder, in the order of their names.
///
/// # Panics
///
/// If the folder cannot be read or holds no script.
#[must_use]
pub fn scripts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("reading the folder {}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder that opened can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    assert!(!paths.is_empty(), "no scripts in {}", folder.display());
    paths.sort();
    paths
}

/// The script with every result replaced by what `run` prints.
///
/// # Panics
///
/// If a result has an empty line.
pub fn rewrite(text: &str, mut run: impl FnMut(&Command) -> String) -> String {
    let mut output = String::new();
    let mut printed = String::new();
    let mut commands = false;
    let mut expected = false;
    let flush = |output: &mut String, printed: &mut String, marked: bool| {
        if marked || !printed.is_empty() {
            output.push_str("----\n");
        }
        output.push_str(printed);
        printed.clear();
    };
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            if commands {
                flush(&mut output, &mut printed, expected);
            }
            output.push('\n');
            (commands, expected) = (false, false);
        } else if expected {
            // The old result: replaced when the block ends.
        } else if line == "----" {
            expected = true;
        } else {
            writeln!(output, "{line}").expect("a string takes everything");
            if !line.starts_with('#') {
                commands = true;
                let command = Command { words: words(line), line: number + 1 };
                let result = run(&command);
                for line in result.lines() {
                    assert!(!line.trim().is_empty(), "line {}: empty line printed", command.line);
                    writeln!(printed, "{line}").expect("a string takes everything");
                }
            }
        }
    }
    if commands {
        flush(&mut output, &mut printed, expected);
    }
    output
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    assert!(!quoted, "a quote is not closed: {line}");
    words.extend(word);
    words
}

fn first_difference(expected: &str, actual: &str) -> String {
    let mut left = expected.lines();
    let mut right = actual.lines();
    let mut number = 1;
    loop {
        match (left.next(), right.next()) {
            (Some(one), Some(other)) if one == other => number += 1,
            (one, other) => {
                return format!(
                    "from line {number}:\n{}{}",
                    marked("- ", one.into_iter().chain(left)),
                    marked("+ ", other.into_iter().chain(right))
                );
            }
        }
    }
}

/// The first lines, each behind `mark`.
fn marked<'a>(mark: &str, lines: impl Iterator<Item = &'a str>) -> String {
    lines.take(12).map(|line| format!("{mark}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(command: &Command) -> String {
        match command.name() {
            "echo" => command.arguments().join("|"),
            _ => String::new(),
        }
    }

    #[test]
    fn results_are_replaced_and_remarks_kept() {
        let text = "# why\necho a \"b c\"\necho d\n----\nold\n\nquiet\n\necho x\n";
        let expected =
            "# why\necho a \"b c\"\necho d\n----\na|b c\nd\n\nquiet\n\necho x\n----\nx\n";
        assert_eq!(rewrite(text, echo), expected);
        assert_eq!(rewrite(expected, echo), expected);
    }

    #[test]
    fn a_difference_is_shown_with_its_line() {
        let shown = first_difference("a\nb\nc\n", "a\nx\n");
        assert_eq!(shown, "from line 2:\n- b\n- c\n+ x\n");
    }

    #[test]
    fn values_and_flags_are_found() {
        let command = Command { words: words("cluster 3 learners=4,5 pre_vote"), line: 1 };
        assert_eq!(command.value("learners"), Some("4,5"));
        assert_eq!(command.value("learner"), None);
        assert!(command.has("pre_vote"));
    }
}
