//! Which dialect a command line is in, and what to say to those who have the wrong one.
//!
//! `ETCDCTL_API=2` and `=3` ask for one dialect and nothing else. Without the variable both are
//! understood: a verb that only the second generation has is that generation's, every other one is
//! the third's; flags and variables of the third generation then serve the second as well.

use cli::flag::Kind as OtherKind;

use super::app::GLOBAL;
use super::flags::Kind;

/// Verbs that only this dialect has, and what comes closest in the other; "" for nothing.
const ONLY_HERE: [(&str, &str); 13] = [
    ("backup", "snapshot save"),
    ("cluster-health", "endpoint health"),
    ("exec-watch", "watch KEY -- COMMAND"),
    ("import", ""),
    ("ls", "get --prefix --keys-only"),
    ("mk", "put"),
    ("mkdir", ""),
    ("rm", "del"),
    ("rmdir", ""),
    ("set", "put"),
    ("setdir", ""),
    ("update", "put"),
    ("updatedir", ""),
];

/// Verbs that only the other dialect has, and what comes closest in this one.
const ONLY_THERE: [(&str, &str); 18] = [
    ("alarm", ""),
    ("check", ""),
    ("compaction", ""),
    ("completion", ""),
    ("defrag", ""),
    ("del", "rm"),
    ("downgrade", ""),
    ("elect", ""),
    ("endpoint", "cluster-health"),
    ("lease", ""),
    ("lock", ""),
    ("make-mirror", ""),
    ("move-leader", ""),
    ("options", ""),
    ("put", "set"),
    ("snapshot", "backup"),
    ("txn", ""),
    ("version", "--version"),
];

/// Commands of the third generation's dialect that documents name without the word before them.
const BELOW: [(&str, &str); 7] = [
    ("keep-alive", "lease"),
    ("grant", "lease"),
    ("revoke", "lease"),
    ("timetolive", "lease"),
    ("save", "snapshot"),
    ("restore", "snapshot"),
    ("health", "endpoint"),
];

/// Global flags of the other dialect that mean the same as one of this.
const SYNONYMS: [(&str, &str); 8] = [
    ("cacert", "ca-file"),
    ("cert", "cert-file"),
    ("key", "key-file"),
    ("user", "username"),
    ("command-timeout", "total-timeout"),
    ("dial-timeout", "timeout"),
    ("write-out", "output"),
    ("w", "output"),
];

/// Whether the words are for this dialect; `api` is the variable `ETCDCTL_API`.
pub(crate) fn is_wanted(words: &[Vec<u8>], api: &str) -> bool {
    if !api.is_empty() {
        return api == "2";
    }
    let words = text(words);
    let Some(at) = verb_at(&words) else {
        // The other dialect has no such flag.
        return words.iter().any(|word| word == "-v" || word == "--version");
    };
    let verb = words[at].as_str();
    let topic = words.get(at + 1).map(String::as_str).unwrap_or_default();
    is_only_here(verb) || (["help", "h"].contains(&verb) && is_only_here(topic))
}

fn is_only_here(verb: &str) -> bool {
    ONLY_HERE.iter().any(|(name, _)| *name == verb)
}

/// What to tell somebody whose command line the other dialect refused.
pub(crate) fn hint(words: &[Vec<u8>], api: &str) -> Option<String> {
    let words = text(words);
    let verb = &words[verb_at(&words)?];
    let above = BELOW.iter().find(|(name, _)| name == verb).map(|(_, above)| above);
    match above {
        Some(above) => Some(format!("hint: the command is \"etcdctl {above} {verb}\"")),
        None => hint_for(verb, api),
    }
}

/// Where the command's name is among the words.
pub(crate) fn verb(words: &[Vec<u8>]) -> Option<usize> {
    verb_at(&text(words))
}

/// What to tell about a verb that the dialect of `api` does not have.
pub(super) fn hint_for(verb: &str, api: &str) -> Option<String> {
    let (list, own, other) = match api {
        "2" => (&ONLY_THERE[..], "2", "3"),
        "3" => (&ONLY_HERE[..], "3", "2"),
        _ => return None,
    };
    let (_, instead) = list.iter().find(|(name, _)| *name == verb)?;
    let instead = match *instead {
        "" => String::new(),
        instead => format!("use \"etcdctl {instead}\", or "),
    };
    Some(format!(
        "hint: \"{verb}\" is a command of the v{other} API, and ETCDCTL_API={own} asks for the \
         v{own} API; {instead}ETCDCTL_API={other} etcdctl {verb} ..., or leave ETCDCTL_API unset for \
         both"
    ))
}

/// As text; what is not becomes what it can.
pub(super) fn text(words: &[Vec<u8>]) -> Vec<String> {
    words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The name of a flag, and its value if it is in the same word.
fn flag(word: &str) -> Option<(&str, Option<&str>)> {
    let name = word.strip_prefix('-').filter(|name| !name.is_empty())?;
    let name = name.strip_prefix('-').unwrap_or(name);
    Some(match name.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (name, None),
    })
}

/// Whether a global flag of either dialect takes the next word.
fn takes_word(name: &str) -> bool {
    let here = GLOBAL.iter().any(|flag| flag.kind != Kind::Bool && flag.names.contains(&name));
    here || cli::global::flags().iter().any(|flag| {
        let is_short = flag.shorthand.is_some_and(|letter| name == letter.to_string());
        flag.kind != OtherKind::Bool && (flag.name == name || is_short)
    })
}

/// Where the command's name is.
fn verb_at(words: &[String]) -> Option<usize> {
    let mut at = 0;
    while let Some((name, value)) = flag(words.get(at)?) {
        at += if value.is_none() && takes_word(name) { 2 } else { 1 };
    }
    Some(at)
}

/// The words with the global flags in front, wherever they stood, under the names that this dialect
/// has for them. Behind `--`, and in what `exec-watch` runs, nothing is changed.
pub(super) fn in_this_dialect(words: &[String]) -> Vec<String> {
    let verb_at = verb_at(words).unwrap_or(words.len());
    let is_command_line = words.get(verb_at).is_some_and(|verb| verb == "exec-watch");
    let (mut front, mut rest) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        let is_over = word == "--" || (is_command_line && verb_at < at);
        let found = flag(word).filter(|_| !is_over).and_then(|(name, value)| {
            let same = SYNONYMS.iter().find(|(other, _)| *other == name).map(|(_, own)| *own);
            let known = GLOBAL.iter().find(|flag| flag.names.contains(&same.unwrap_or(name)))?;
            // Behind the verb a single dash may be the command's own, or a value.
            let is_global = at <= verb_at || (word.starts_with("--") && name.len() > 1);
            is_global.then_some((known, value))
        });
        match found {
            Some((known, value)) => {
                let name = known.names[0];
                match value {
                    Some(value) => front.push(format!("--{name}={value}")),
                    None if known.kind == Kind::Bool => front.push(format!("--{name}")),
                    None => {
                        front.push(format!("--{name}"));
                        front.extend(words.get(at).cloned());
                        at += 1;
                    }
                }
            }
            None if at <= verb_at => front.push(word.clone()),
            None => rest.push(word.clone()),
        }
        if is_over {
            rest.extend_from_slice(&words[at..]);
            break;
        }
    }
    front.extend(rest);
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    /// CTL2-01, CTL3-01, SEEDX-01.
    #[test]
    fn verb_decides_where_the_variable_does_not() {
        for (line, expected) in [
            ("set key value", true),
            ("--endpoints http://h:1 --no-sync ls", true),
            ("--cacert=ca.pem -w json --user a:b rm key", true),
            ("help set", true),
            ("-v", true),
            ("get key", false),
            ("put key set", false),
            ("member list", false),
            ("help get", false),
            ("-h", false),
            ("", false),
        ] {
            assert_eq!(is_wanted(&words(line), ""), expected, "{line}");
            assert!(is_wanted(&words(line), "2"));
            assert!(!is_wanted(&words(line), "3"));
        }
    }

    #[test]
    fn flags_of_both_dialects_serve_where_the_variable_is_unset() {
        for (line, expected) in [
            ("set k v --endpoints=http://h:1", "--endpoints=http://h:1 set k v"),
            ("--cacert ca --debug ls / --sort", "--ca-file ca --debug ls / --sort"),
            ("set k -- --endpoints", "set k -- --endpoints"),
            ("set k -u", "set k -u"),
            ("-w json ls", "--output json ls"),
            ("exec-watch k etcdctl --endpoints x", "exec-watch k etcdctl --endpoints x"),
            ("ls --command-timeout 3s /", "--total-timeout 3s ls /"),
        ] {
            assert_eq!(in_this_dialect(&text(&words(line))).join(" "), expected, "{line}");
        }
    }

    /// SEED1-24.
    #[test]
    fn hint_names_the_word_that_was_left_out() {
        let hint = hint(&words("--debug keep-alive 2be7547fbc6a5afa"), "3");
        assert_eq!(hint.as_deref(), Some("hint: the command is \"etcdctl lease keep-alive\""));
    }

    /// SEED0-47.
    #[test]
    fn hint_names_the_variable_and_both_ways_out() {
        let hint = hint(&words("--debug set a b"), "3").unwrap();
        for part in ["ETCDCTL_API=3", "etcdctl put", "ETCDCTL_API=2 etcdctl set", "unset"] {
            assert!(hint.contains(part), "{hint}");
        }
        assert!(hint_for("put", "2").unwrap().contains("etcdctl set"));
        assert_eq!(hint_for("get", "2"), None);
        assert_eq!(hint_for("set", ""), None);
    }
}
