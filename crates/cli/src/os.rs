//! The operating system's errors in Go's words, which scripts match.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What went wrong with a file: `open /a/b: no such file or directory`.
#[must_use]
pub fn path_error(doing: &str, path: &Path, error: &io::Error) -> String {
    format!("{doing} {}: {}", path.display(), error_text(error))
}

/// Keeps the process alive when a file reaches the limit of its size (`ulimit -f`), so that the write
/// fails and its error is told; by default the system ends the process without a word.
pub fn survive_file_size_limit() {
    // Nobody looks at the flag: that there is a handler is what counts. Without one the process ends
    // as it did.
    let seen = Arc::new(AtomicBool::new(false));
    drop(signal_hook::flag::register(signal_hook::consts::SIGXFSZ, seen));
}

/// What to do about a failure with this text, if a file reached the limit of its size.
#[must_use]
pub fn remedy(text: &str) -> Option<&'static str> {
    text.contains("ile too large").then_some(
        "raise the limit of the size of a file: \"ulimit -f\" in a shell, LimitFSIZE= in a unit of \
         systemd, or that of the file system",
    )
}

/// The error without Rust's number behind it, in lower case.
#[must_use]
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_in_go() {
        let error = std::fs::File::open("/no/such/file").unwrap_err();
        let text = path_error("open", Path::new("/no/such/file"), &error);
        assert_eq!(text, "open /no/such/file: no such file or directory");
    }
}
