//! Paths: slash-separated, beginning with one, without empty or dotted parts.
//!
//! Source: Go's `path.Clean` of a rooted path, which etcd cleans every path with.

/// The cleaned path: always rooted, never with a slash at the end but for the root's.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut cleaned = String::with_capacity(path.len() + 1);
    for part in parts {
        cleaned.push('/');
        cleaned.push_str(part);
    }
    if cleaned.is_empty() {
        cleaned.push('/');
    }
    cleaned
}

/// Parent and name of a cleaned path; the root is its own parent without a name.
pub(crate) fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(split) => split,
        None => unreachable!("{path:?} is not rooted"),
    }
}

/// The path of a child.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

/// The path itself and every directory above it, from the root down.
pub(crate) fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let inner = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    let whole = (path != "/").then_some(path);
    std::iter::once("/").chain(inner.map(|at| &path[..at])).chain(whole)
}

/// Whether a path is a directory or below it.
pub(crate) fn is_within(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a listing of the parent leaves this name out (V2-062).
pub(crate) fn is_hidden_name(name: &str) -> bool {
    name.starts_with('_')
}

/// Whether someone who watches `watched` must not see a change of `changed`: it, or a directory
/// between the two, is hidden.
pub(crate) fn is_hidden_from(watched: &str, changed: &str) -> bool {
    // Who watches below a directory that goes away is told of it.
    if watched.len() > changed.len() {
        return false;
    }
    let below = changed[watched.len()..].trim_start_matches('/');
    below.split('/').any(is_hidden_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("a", "/a"),
            ("/a//b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../..", "/"),
            ("/1/../0", "/0"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!(split("/a"), ("/", "a"));
        assert_eq!(split("/a/b"), ("/a", "b"));
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(prefixes("/a/b").collect::<Vec<_>>(), ["/", "/a", "/a/b"]);
        assert_eq!(prefixes("/").collect::<Vec<_>>(), ["/"]);
    }

    /// V2-062.
    #[test]
    fn a_name_with_an_underscore_hides_what_is_below_it() {
        assert!(is_hidden_from("/", "/_a"));
        assert!(is_hidden_from("/a", "/a/_b/c"));
        assert!(!is_hidden_from("/a/_b", "/a/_b/c"));
        assert!(!is_hidden_from("/a", "/a/b_c"));
        assert!(!is_hidden_from("/a/_b", "/a"));
    }
}
