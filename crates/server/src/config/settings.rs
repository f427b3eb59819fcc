//! The values of all flags, whatever they were read from.
//!
//! Invariant: every flag of the table has a value of its kind, so that the typed readers below
//! cannot fail. Meaning is given to the values in `build`.

use std::collections::BTreeMap;

use super::flags::{self, Flag, Role};
use super::gates::{FeatureGates, Gate};
use super::value::{Value, ValueError};
use crate::logging::Level;
use base::member_url::MemberUrl;

/// Values by flag name, and which flags were given.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, Value>,
    /// Names as they were given, older names too, in order.
    given: Vec<&'static str>,
    /// Older names of gates that were given.
    older_gates: BTreeMap<&'static str, bool>,
    /// Whether they come from a file, in which what is left out has its default whatever else is
    /// given.
    pub(crate) from_file: bool,
}

impl Settings {
    /// Every flag at its default.
    pub(crate) fn defaults() -> Self {
        let values = flags::all()
            .iter()
            .filter(|flag| flag.role == Role::Setting)
            .map(|flag| (flag.name, default_of(flag)))
            .collect();
        Self { values, given: Vec::new(), older_gates: BTreeMap::new(), from_file: false }
    }

    /// Gives a flag the value that `text` means; a later value replaces an earlier one.
    pub(crate) fn assign(&mut self, flag: &'static Flag, text: &str) -> Result<(), ValueError> {
        match flag.role {
            Role::Setting => self.read(flag, text)?,
            Role::Alias(target) => {
                self.read(flags::find(target).expect("older names lead to flags"), text)?;
                self.mark(target);
            }
            Role::Gate(name) => {
                let Value::Bool(on) = flag.kind.read(text, None)? else {
                    unreachable!("older names of gates are booleans");
                };
                let mut gates = self.gates("feature-gates").clone();
                gates.set(Gate::find(name).expect("older names lead to gates"), on);
                self.older_gates.insert(flag.name, on);
                self.values.insert("feature-gates", Value::Gates(gates));
            }
            Role::Ignored => {}
        }
        self.mark(flag.name);
        Ok(())
    }

    /// Replaces a value that was not given by one that follows from others.
    pub(crate) fn derive(&mut self, name: &'static str, value: Value) {
        self.values.insert(name, value);
    }

    /// Whether the flag was given under this name.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    /// Older names of gates that were given, and their values.
    pub(crate) fn older_gates(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.older_gates.iter().map(|(name, on)| (*name, *on))
    }

    /// The flags that were given, in order.
    pub(crate) fn given(&self) -> impl Iterator<Item = &'static Flag> {
        self.given.iter().map(|name| flags::find(name).expect("only flags are given"))
    }

    /// Whether a flag has another value than it has by default.
    pub(crate) fn is_changed(&self, flag: &Flag) -> bool {
        match flag.role {
            Role::Setting => self.values[flag.name] != default_of(flag),
            Role::Alias(_) | Role::Gate(_) | Role::Ignored => false,
        }
    }

    pub(crate) fn value(&self, name: &str) -> &Value {
        self.values.get(name).expect("every flag has a value")
    }

    fn read(&mut self, flag: &'static Flag, text: &str) -> Result<(), ValueError> {
        let value = flag.kind.read(text, self.values.get(flag.name))?;
        self.values.insert(flag.name, value);
        Ok(())
    }

    fn mark(&mut self, name: &'static str) {
        if !self.is_given(name) {
            self.given.push(name);
        }
    }
}

/// Readers by kind. Each panics when the table gives the flag another kind, which the test
/// `every_setting_can_be_built` would show.
impl Settings {
    pub(crate) fn bool(&self, name: &str) -> bool {
        let Value::Bool(on) = self.value(name) else {
            panic!("{name} is read as a boolean and is {:?}", self.value(name));
        };
        *on
    }

    pub(crate) fn unsigned(&self, name: &str) -> u64 {
        let Value::Unsigned(number) = self.value(name) else {
            panic!("{name} is read as an unsigned number and is {:?}", self.value(name));
        };
        *number
    }

    pub(crate) fn signed(&self, name: &str) -> i64 {
        let Value::Signed(number) = self.value(name) else {
            panic!("{name} is read as a signed number and is {:?}", self.value(name));
        };
        *number
    }

    /// Nanoseconds.
    pub(crate) fn duration(&self, name: &str) -> i64 {
        let Value::Duration(nanoseconds) = self.value(name) else {
            panic!("{name} is read as a duration and is {:?}", self.value(name));
        };
        *nanoseconds
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        let Value::Text(text) = self.value(name) else {
            panic!("{name} is read as text and is {:?}", self.value(name));
        };
        text
    }

    pub(crate) fn urls(&self, name: &str) -> &[MemberUrl] {
        let Value::Urls(urls) = self.value(name) else {
            panic!("{name} is read as URLs and is {:?}", self.value(name));
        };
        urls
    }

    pub(crate) fn words(&self, name: &str) -> &[String] {
        let Value::Words(words) = self.value(name) else {
            panic!("{name} is read as words and is {:?}", self.value(name));
        };
        words
    }

    pub(crate) fn level(&self, name: &str) -> Level {
        let Value::Level(level) = self.value(name) else {
            panic!("{name} is read as a level and is {:?}", self.value(name));
        };
        *level
    }

    pub(crate) fn gates(&self, name: &str) -> &FeatureGates {
        let Value::Gates(gates) = self.value(name) else {
            panic!("{name} is read as gates and is {:?}", self.value(name));
        };
        gates
    }
}

fn default_of(flag: &Flag) -> Value {
    flag.kind.read(flag.default, None).expect("defaults of the table can be read")
}
