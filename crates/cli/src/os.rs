//! The operating system's errors in Go's words, which scripts match.

use std::io;
use std::path::Path;

/// What went wrong with a file: `open /a/b: no such file or directory`.
#[must_use]
pub fn path_error(doing: &str, path: &Path, error: &io::Error) -> String {
    format!("{doing} {}: {}", path.display(), error_text(error))
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
