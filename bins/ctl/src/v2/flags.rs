//! Flags of the second generation: `--long`, `-long` and `-x` are the same (CTL2-02).

/// A flag: its names, the long one first, and whether a value follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    pub(super) names: &'static [&'static str],
    takes_value: bool,
}

impl Flag {
    pub(super) const fn bool(names: &'static [&'static str]) -> Self {
        Self { names, takes_value: false }
    }

    pub(super) const fn value(names: &'static [&'static str]) -> Self {
        Self { names, takes_value: true }
    }
}

/// Before the command (CTL2-03 to CTL2-11).
pub(super) const GLOBAL: &[Flag] = &[
    Flag::bool(&["debug"]),
    Flag::bool(&["no-sync"]),
    Flag::value(&["output", "o"]),
    Flag::value(&["discovery-srv", "D"]),
    Flag::bool(&["insecure-discovery"]),
    Flag::value(&["peers", "C"]),
    Flag::value(&["endpoint"]),
    Flag::value(&["endpoints"]),
    Flag::value(&["cert-file"]),
    Flag::value(&["key-file"]),
    Flag::value(&["ca-file"]),
    Flag::value(&["username", "u"]),
    Flag::value(&["timeout"]),
    Flag::value(&["total-timeout"]),
    Flag::bool(&["help", "h"]),
    Flag::bool(&["version", "v"]),
];

/// What was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    values: Vec<(&'static str, String)>,
    /// What is no flag, in its order.
    pub(super) rest: Vec<String>,
}

impl Parsed {
    /// A flag's value; the last one counts.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.values.iter().rev().find(|(found, _)| *found == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value != "false")
    }

    /// A number; 0 if it is not given or none.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

/// Takes words apart. After `verbatim_after` words that are no flags the rest is taken as it is; 0
/// is for never.
pub(super) fn parse(
    words: &[String],
    flags: &[Flag],
    verbatim_after: usize,
) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.rest.extend(words.cloned());
            break;
        }
        let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
            parsed.rest.push(word.clone());
            if parsed.rest.len() == verbatim_after {
                parsed.rest.extend(words.cloned());
                break;
            }
            continue;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let flag = flags.iter().find(|flag| flag.names.contains(&name));
        let flag = flag.ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
        let value = match value {
            Some(value) => value,
            None if flag.takes_value => {
                words.next().cloned().ok_or_else(|| format!("flag needs an argument: -{name}"))?
            }
            None => "true".to_owned(),
        };
        parsed.values.push((flag.names[0], value));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(ToOwned::to_owned).collect()
    }

    /// CTL2-02.
    #[test]
    fn flags_are_spelled_in_three_ways_and_stand_anywhere() {
        let flags = [Flag::value(&["ttl"]), Flag::bool(&["recursive", "r"])];
        for text in ["--ttl 5 -r key value", "-ttl=5 key --recursive value", "key value -r -ttl 5"]
        {
            let parsed = parse(&words(text), &flags, 0).unwrap();
            assert_eq!(parsed.rest, ["key", "value"], "{text}");
            assert_eq!(parsed.number("ttl"), 5);
            assert!(parsed.is_set("recursive"));
        }
        assert_eq!(parse(&words("-- -a"), &flags, 0).unwrap().rest, ["-a"]);
        let error = parse(&words("-x"), &flags, 0).unwrap_err();
        assert_eq!(error, "flag provided but not defined: -x");
        // CTL2-41.
        for text in ["key cmd -r", "key -- cmd -r"] {
            assert_eq!(parse(&words(text), &flags, 2).unwrap().rest, ["key", "cmd", "-r"]);
        }
    }
}
