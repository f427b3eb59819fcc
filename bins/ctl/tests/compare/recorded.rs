//! What etcd's own tools printed, kept in files, and the reasons where releases or we differ.
//!
//! A file `NAME.recorded.txt` has for each line of the script `NAME.txt` what etcd 3.5 printed. Where
//! 3.7 prints something else, `[3.7]` stands before that; where we do, `[ours]`. Every such
//! difference needs a row in `deviations.txt` that says why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::side::Output;

/// Who printed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    V3_5,
    V3_7,
    Ours,
}

impl By {
    const ALL: [Self; 3] = [Self::V3_5, Self::V3_7, Self::Ours];

    fn name(self) -> &'static str {
        match self {
            Self::V3_5 => "3.5",
            Self::V3_7 => "3.7",
            Self::Ours => "ours",
        }
    }
}

/// One line of a script with all that was printed for it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// As it stands in the script.
    pub(crate) text: String,
    printed: BTreeMap<By, String>,
}

impl Entry {
    /// An entry of what everybody printed.
    pub(crate) fn new(text: &str, [theirs, newer, ours]: [&Output; 3]) -> Self {
        let mut printed = BTreeMap::from([(By::V3_5, theirs.to_string())]);
        if newer != theirs {
            printed.insert(By::V3_7, newer.to_string());
        }
        if ours != newer {
            printed.insert(By::Ours, ours.to_string());
        }
        Self { text: text.to_owned(), printed }
    }

    /// What somebody prints: if nothing else is recorded, the same as the release before.
    pub(crate) fn of(&self, by: By) -> &str {
        let (_, text) = self.printed.range(..=by).next_back().expect("3.5 is always recorded");
        text
    }

    /// Whether all print the same.
    pub(crate) fn is_common(&self) -> bool {
        self.printed.len() == 1
    }

    /// Who differs from the release before.
    pub(crate) fn deviating(&self) -> impl Iterator<Item = By> {
        self.printed.keys().copied().filter(|by| *by != By::V3_5)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/compare")
}

fn path(name: &str) -> PathBuf {
    folder().join(format!("{name}.recorded.txt"))
}

/// The script of this name.
pub(crate) fn script(name: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap()
}

/// What was recorded for a script.
pub(crate) fn read(name: &str) -> Vec<Entry> {
    let text = std::fs::read_to_string(path(name)).unwrap_or_default();
    let mut entries: Vec<Entry> = Vec::new();
    let mut by = By::V3_5;
    for line in text.split_inclusive('\n') {
        if let Some(command) = line.strip_prefix("$ ") {
            by = By::V3_5;
            let printed = BTreeMap::from([(by, String::new())]);
            entries.push(Entry { text: command.trim_end().to_owned(), printed });
            continue;
        }
        let entry = entries.last_mut().expect("a file begins with a line");
        let next = By::ALL.into_iter().find(|by| line == format!("[{}]\n", by.name()));
        if let Some(next) = next {
            by = next;
            entry.printed.insert(by, String::new());
        } else {
            entry.printed.get_mut(&by).expect("inserted with its heading").push_str(line);
        }
    }
    for entry in &mut entries {
        for text in entry.printed.values_mut() {
            // Entries stand apart by an empty line.
            text.truncate(text.trim_end_matches('\n').len() + 1);
        }
    }
    entries
}

/// Writes what was recorded for a script.
pub(crate) fn write(name: &str, entries: &[Entry]) {
    let mut out = String::new();
    for entry in entries {
        writeln!(out, "$ {}", entry.text).unwrap();
        for (by, text) in &entry.printed {
            if *by != By::V3_5 {
                writeln!(out, "[{}]", by.name()).unwrap();
            }
            out.push_str(text);
        }
        out.push('\n');
    }
    std::fs::write(path(name), out).unwrap();
}

/// A row of `deviations.txt`: who differs, in which lines, and why.
#[derive(Clone, Debug)]
pub(crate) struct Deviation {
    by: By,
    pattern: String,
}

impl Deviation {
    /// Whether the row is about what somebody printed for a line: its pattern is one of the line or,
    /// behind `printed: `, of what the release before printed.
    pub(crate) fn explains(&self, by: By, entry: &Entry) -> bool {
        let is_alike = match self.pattern.strip_prefix("printed: ") {
            Some(pattern) => {
                let mut before = entry.printed.range(..by);
                before.next_back().is_some_and(|(_, text)| matches(pattern, text.trim_end()))
            }
            None => matches(&self.pattern, &entry.text),
        };
        self.by == by && is_alike
    }

    /// The row without its reason.
    pub(crate) fn subject(&self) -> String {
        format!("{} | {}", self.by.name(), self.pattern)
    }
}

/// All rows.
pub(crate) fn deviations() -> Vec<Deviation> {
    let text = std::fs::read_to_string(folder().join("deviations.txt")).unwrap();
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &str| {
        let parts: Vec<&str> = line.splitn(3, " | ").collect();
        let [by, pattern, reason] = parts[..] else { panic!("not a row: {line}") };
        assert!(!reason.trim().is_empty(), "a row without a reason: {line}");
        let by = By::ALL.into_iter().find(|known| known.name() == by.trim());
        let by = by.unwrap_or_else(|| panic!("nobody of that name: {line}"));
        Deviation { by, pattern: pattern.trim().to_owned() }
    };
    rows.map(row).collect()
}

/// Whether a text is what a pattern says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().expect("a split has a part");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    match last {
        None => rest.is_empty(),
        Some(last) => text.ends_with(last),
    }
}
