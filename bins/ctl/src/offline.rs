//! `snapshot restore` and `snapshot status`, which the tool had until etcd 3.5: documents name them,
//! so `etcdutl`, which has them now, runs in the place of this process.

use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::v2::dialect;

const OTHER: &str = "etcdutl";

/// The words for the other tool, if the command is one of its own. Of the global flags before the
/// verb it has only the output's format; the others speak of a server.
pub(crate) fn words(words: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let at = dialect::verb(words)?;
    let is_below = |word: &Vec<u8>| [&b"restore"[..], b"status"].contains(&word.as_slice());
    if words[at] != b"snapshot" || !words.get(at + 1).is_some_and(is_below) {
        return None;
    }
    let mut own = Vec::new();
    for (number, word) in words[..at].iter().enumerate() {
        if ["-w", "--write-out"].iter().any(|name| word == name.as_bytes()) {
            own.extend_from_slice(&words[number..number + 2]);
        } else if word.starts_with(b"--write-out=") || word.starts_with(b"-w=") {
            own.push(word.clone());
        }
    }
    own.extend_from_slice(&words[at..]);
    Some(own)
}

/// Becomes the other tool; returns only if there is none.
pub(crate) fn run(words: Vec<Vec<u8>>) -> ExitCode {
    let verb = words.iter().rev().find(|word| [&b"restore"[..], b"status"].contains(&&word[..]));
    let verb = verb.map_or_else(String::new, |verb| String::from_utf8_lossy(verb).into_owned());
    eprintln!("Deprecated: Use `etcdutl snapshot {verb}` instead.\n");
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(OTHER));
    let program = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(OTHER));
    let arguments = words.into_iter().map(std::ffi::OsString::from_vec);
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("Error: running {}: {error}; install {OTHER} beside etcdctl", program.display());
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    /// SEED3-13.
    #[test]
    fn commands_of_the_other_tool_are_found() {
        for (line, expected) in [
            ("snapshot restore a.bak --data-dir=d", "snapshot restore a.bak --data-dir=d"),
            ("--endpoints h:1 -w json snapshot status a.bak", "-w json snapshot status a.bak"),
            ("--write-out=table snapshot status a", "--write-out=table snapshot status a"),
        ] {
            assert_eq!(words(&split(line)), Some(split(expected)), "{line}");
        }
        for line in ["snapshot save a.bak", "snapshot", "get snapshot restore", ""] {
            assert_eq!(words(&split(line)), None, "{line}");
        }
    }
}
