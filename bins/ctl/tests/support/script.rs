//! Scripts of command lines.
//!
//! A line is the words of a command line without the program's name. Words with spaces stand in
//! double quotes, with `\n`, `\t`, `\"` and `\\`. Before them may stand:
//! - `@3.5` or `@3.7`: compared with that release only;
//! - `@lines=N`: the program is ended after so many lines of standard output;
//! - `@interrupt`: after those lines it is interrupted and left to end by itself;
//! - `@until="words"`: it runs until this command line prints something, and is then ended;
//! - `@utl`: the line is one of `etcdutl`;
//! - `@same`: the other program runs against our member too, for lines that only read;
//! - `@NAME=value`: a variable of the environment for this line.
//!
//! A last word `< "text"` is the standard input. `$LEASE`, `$MEMBER`, `$EP` and `$DIR` stand for
//! what each side calls so. Lines that begin with `#` are comments; a line that begins with `!` has
//! flags for the servers.

/// A release of etcd that a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    V3_5,
    V3_7,
}

/// One command line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// As it stands in the script.
    pub(crate) text: String,
    pub(crate) words: Vec<String>,
    pub(crate) stdin: String,
    pub(crate) release: Option<Release>,
    pub(crate) lines_max: Option<usize>,
    pub(crate) is_interrupted: bool,
    pub(crate) until: Vec<String>,
    pub(crate) is_offline: bool,
    pub(crate) is_same_member: bool,
    pub(crate) variables: Vec<(String, String)>,
}

/// Reads a script.
pub(crate) fn parse(script: &str) -> Vec<Line> {
    let lines =
        script.lines().filter(|line| !line.trim().is_empty() && !line.starts_with(['#', '!']));
    lines.map(parse_line).collect()
}

/// The flags that a script wants its servers to have.
pub(crate) fn server_flags(script: &str) -> Vec<&str> {
    let lines = script.lines().filter_map(|line| line.strip_prefix('!'));
    lines.flat_map(str::split_whitespace).collect()
}

fn parse_line(text: &str) -> Line {
    let mut line = Line {
        text: text.to_owned(),
        words: Vec::new(),
        stdin: String::new(),
        release: None,
        lines_max: None,
        is_interrupted: false,
        until: Vec::new(),
        is_offline: false,
        is_same_member: false,
        variables: Vec::new(),
    };
    let mut words = split(text).into_iter();
    while let Some(word) = words.next() {
        let option = word.strip_prefix('@').filter(|_| line.words.is_empty());
        match option.map(|option| option.split_once('=').unwrap_or((option, ""))) {
            Some(("3.5", _)) => line.release = Some(Release::V3_5),
            Some(("3.7", _)) => line.release = Some(Release::V3_7),
            Some(("same", _)) => line.is_same_member = true,
            Some(("interrupt", _)) => line.is_interrupted = true,
            Some(("until", words)) => line.until = split(words),
            Some(("utl", _)) => line.is_offline = true,
            Some(("lines", count)) => line.lines_max = Some(count.parse().unwrap()),
            Some((name, value)) => line.variables.push((name.to_owned(), value.to_owned())),
            None if word == "<" => line.stdin = words.next().unwrap(),
            None => line.words.push(word),
        }
    }
    line
}

fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => {
                let escaped = match characters.next().unwrap() {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                };
                word.get_or_insert_default().push(escaped);
            }
            ' ' if !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}
