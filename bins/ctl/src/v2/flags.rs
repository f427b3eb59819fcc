//! Flags of the second generation: `--long`, `-long` and `-x` are the same (CTL2-02).
//!
//! Texts of errors are those of Go's `flag`.

use cli::number::{parse_bool, parse_int};
use cli::quote::quote;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Text,
    /// May be given several times.
    Texts,
    Duration,
}

/// A flag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// The one that it is asked for by first.
    pub(super) names: &'static [&'static str],
    pub(super) kind: Kind,
    /// What help shows as the value if none is given; "" for nothing.
    pub(super) default: &'static str,
    /// What stands between backquotes first is the name of the value.
    pub(super) usage: &'static str,
}

impl Flag {
    const fn new(names: &'static [&'static str], kind: Kind, usage: &'static str) -> Self {
        Self { names, kind, default: "", usage }
    }

    pub(super) const fn bool(names: &'static [&'static str], usage: &'static str) -> Self {
        Self::new(names, Kind::Bool, usage)
    }

    pub(super) const fn int(names: &'static [&'static str], usage: &'static str) -> Self {
        Self::new(names, Kind::Int, usage).or("0")
    }

    pub(super) const fn text(names: &'static [&'static str], usage: &'static str) -> Self {
        Self::new(names, Kind::Text, usage)
    }

    pub(super) const fn texts(names: &'static [&'static str], usage: &'static str) -> Self {
        Self::new(names, Kind::Texts, usage)
    }

    pub(super) const fn duration(names: &'static [&'static str], usage: &'static str) -> Self {
        Self::new(names, Kind::Duration, usage)
    }

    pub(super) const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// Whether a text can be its value, as an error behind the text and the name if not.
    fn check(&self, name: &str, value: &str) -> Result<(), String> {
        let is_right = match self.kind {
            Kind::Text | Kind::Texts => true,
            Kind::Bool => parse_bool(value).is_ok(),
            Kind::Duration => cli::duration::parse(value).is_ok(),
            Kind::Int => parse_int(value, 0).is_ok(),
        };
        if is_right {
            return Ok(());
        }
        let value_shown = quote(value.as_bytes());
        let is_out_of_range = self.kind == Kind::Int
            && parse_int(value, 0).is_err_and(|error| error.to_string().ends_with("range"));
        let why = if is_out_of_range { "value out of range" } else { "parse error" };
        Err(if self.kind == Kind::Bool {
            format!("invalid boolean value {value_shown} for -{name}: {why}")
        } else {
            format!("invalid value {value_shown} for flag -{name}: {why}")
        })
    }
}

/// Every command has it; only lists of commands show it.
pub(super) const HELP: Flag = Flag::bool(&["help", "h"], "show help");

/// Where flags may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Before everything else: what is behind the first other word is not looked at.
    First,
    /// Anywhere before `--`; a word behind another one that is no known flag is none.
    Anywhere,
    /// As anywhere, up to the second word that is no flag; what follows is a command line.
    CommandLine,
}

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

    /// All values of a flag.
    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        let found = self.values.iter().filter(|(found, _)| *found == name);
        found.map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| parse_bool(value) == Ok(true))
    }

    /// A number; 0 if it is not given.
    pub(super) fn int(&self, name: &str) -> i64 {
        self.text(name).and_then(|text| parse_int(text, 0).ok()).unwrap_or_default()
    }
}

/// Takes words apart.
///
/// # Errors
///
/// A flag that does not exist, has no value, or a wrong one; in Go's words.
pub(super) fn parse(words: &[String], flags: &[Flag], order: Order) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.rest.extend(words.cloned());
            break;
        }
        let flag = word.strip_prefix('-').filter(|name| !name.is_empty());
        let name = flag.map(|name| name.strip_prefix('-').unwrap_or(name));
        let (name, value) = match name.map(|name| (name, name.split_once('='))) {
            Some((_, Some((name, value)))) => (Some(name), Some(value.to_owned())),
            Some((name, None)) => (Some(name), None),
            None => (None, None),
        };
        let known = name.and_then(|name| {
            let mut all = flags.iter().chain([&HELP]);
            all.find(|flag| flag.names.contains(&name))
        });
        match (name, known) {
            (Some(name), Some(flag)) => {
                let value = match value {
                    Some(value) => value,
                    None if flag.kind == Kind::Bool => "true".to_owned(),
                    None => words
                        .next()
                        .cloned()
                        .ok_or_else(|| format!("flag needs an argument: -{name}"))?,
                };
                flag.check(name, &value)?;
                parsed.values.push((flag.names[0], value));
            }
            (Some(name), None) if parsed.rest.is_empty() => {
                if name.is_empty() || name.starts_with(['-', '=']) {
                    return Err(format!("bad flag syntax: {word}"));
                }
                return Err(format!("flag provided but not defined: -{name}"));
            }
            (Some(_) | None, _) => {
                parsed.rest.push(word.clone());
                let is_end = match order {
                    Order::First => true,
                    Order::Anywhere => false,
                    Order::CommandLine => parsed.rest.len() == 2,
                };
                if is_end {
                    parsed.rest.extend(words.cloned());
                    break;
                }
            }
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 3] = [
        Flag::int(&["ttl"], ""),
        Flag::bool(&["recursive", "r"], ""),
        Flag::duration(&["timeout"], ""),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(ToOwned::to_owned).collect()
    }

    fn rest(text: &str, order: Order) -> Vec<String> {
        parse(&words(text), &FLAGS, order).unwrap().rest
    }

    /// CTL2-02.
    #[test]
    fn flags_are_spelled_in_three_ways_and_stand_anywhere() {
        for text in ["--ttl 5 -r key value", "-ttl=5 key --recursive value", "key value -r -ttl 5"]
        {
            let parsed = parse(&words(text), &FLAGS, Order::Anywhere).unwrap();
            assert_eq!(parsed.rest, ["key", "value"], "{text}");
            assert_eq!(parsed.int("ttl"), 5);
            assert!(parsed.is_set("recursive"));
        }
        assert_eq!(rest("-- -r", Order::Anywhere), ["-r"]);
        // A value that looks like a flag.
        assert_eq!(rest("key -5", Order::Anywhere), ["key", "-5"]);
        assert_eq!(rest("-r - x", Order::Anywhere), ["-", "x"]);
        assert_eq!(rest("-r ls -r", Order::First), ["ls", "-r"]);
    }

    /// CTL2-41.
    #[test]
    fn command_line_behind_a_key_is_taken_as_it_is() {
        for text in ["-r key cmd -r", "key -r cmd -r", "-r key -- cmd -r", "-- key cmd -r"] {
            assert_eq!(rest(text, Order::CommandLine), ["key", "cmd", "-r"], "{text}");
        }
    }

    /// CTL2-02.
    #[test]
    fn wrong_flags_are_told_in_gos_words() {
        for (text, expected) in [
            ("-x", "flag provided but not defined: -x"),
            ("--ttl", "flag needs an argument: -ttl"),
            ("--ttl abc", "invalid value \"abc\" for flag -ttl: parse error"),
            (
                "--ttl 99999999999999999999",
                "invalid value \"99999999999999999999\" for flag -ttl: value out of range",
            ),
            ("-r=maybe", "invalid boolean value \"maybe\" for -r: parse error"),
            ("--timeout 2", "invalid value \"2\" for flag -timeout: parse error"),
            ("---x", "bad flag syntax: ---x"),
        ] {
            assert_eq!(parse(&words(text), &FLAGS, Order::Anywhere).unwrap_err(), expected);
        }
    }
}
