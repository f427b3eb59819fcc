//! Terms: what a failpoint does when it is passed, `[N*|P%]action[(value)]` chained by `->`.
//!
//! The first term that is allowed acts; one with a count is allowed so often, one with a percentage
//! by chance.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::config::parse_duration;

/// A failpoint's terms.
#[derive(Debug)]
pub(super) struct Terms {
    text: String,
    chain: Vec<Term>,
    passed: u64,
}

/// Why a text is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TermsError {
    #[error("failpoint: could not parse {0:?}")]
    Syntax(String),
    #[error("failpoint: no such action: {0:?}")]
    Action(String),
    #[error("failpoint: no time to sleep: {0:?}")]
    Sleep(String),
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Return(String),
    Sleep(Duration),
    Print,
    Panic,
}

#[derive(Debug)]
struct Term {
    /// How often it may still act.
    left: Option<u64>,
    /// With which chance.
    percent: Option<f64>,
    effect: Effect,
}

impl Terms {
    pub(super) fn parse(text: &str) -> Result<Self, TermsError> {
        let chain = text.split("->").map(|term| Term::parse(term.trim())).collect::<Result<_, _>>();
        Ok(Self { text: text.to_owned(), chain: chain?, passed: 0 })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// How often a term acted.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// What happens now.
    pub(super) fn pass(&mut self) -> Effect {
        match self.chain.iter_mut().find_map(Term::act) {
            Some(effect) => {
                self.passed += 1;
                effect
            }
            None => Effect::None,
        }
    }
}

impl Term {
    fn parse(text: &str) -> Result<Self, TermsError> {
        let syntax = || TermsError::Syntax(text.to_owned());
        let (mut left, mut percent, mut rest) = (None, None, text);
        loop {
            let len = rest.find(|one: char| !one.is_ascii_digit() && one != '.').unwrap_or(0);
            let (number, behind) = rest.split_at(len);
            if let Some(behind) = behind.strip_prefix('*').filter(|_| !number.is_empty()) {
                left = Some(number.parse().map_err(|_| syntax())?);
                rest = behind;
            } else if let Some(behind) = behind.strip_prefix('%').filter(|_| !number.is_empty()) {
                percent = Some(number.parse().map_err(|_| syntax())?);
                rest = behind;
            } else {
                break;
            }
        }
        let (action, value) = match rest.split_once('(') {
            Some((action, value)) => (action, Some(value.strip_suffix(')').ok_or_else(syntax)?)),
            None => (rest, None),
        };
        let value = value.map(|value| value.trim_matches('"').to_owned());
        let effect = match action {
            // Nobody debugs this process: a break is nothing, as in gofail without a debugger.
            "off" | "break" => Effect::None,
            "return" => Effect::Return(value.unwrap_or_default()),
            "sleep" => Effect::Sleep(sleep(&value.unwrap_or_default())?),
            "print" => Effect::Print,
            "panic" => Effect::Panic,
            other => return Err(TermsError::Action(other.to_owned())),
        };
        Ok(Self { left, percent, effect })
    }

    /// What it does, if it is allowed to.
    fn act(&mut self) -> Option<Effect> {
        if self.percent.is_some_and(|percent| percent <= chance()) {
            return None;
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        Some(self.effect.clone())
    }
}

/// Milliseconds as a number, or a duration as Go writes them.
fn sleep(text: &str) -> Result<Duration, TermsError> {
    let refused = || TermsError::Sleep(text.to_owned());
    if let Ok(millis) = text.parse() {
        return Ok(Duration::from_millis(millis));
    }
    let nanos = parse_duration(text).map_err(|_| refused())?;
    Ok(Duration::from_nanos(u64::try_from(nanos).map_err(|_| refused())?))
}

/// Some number from 0 up to 100.
fn chance() -> f64 {
    // Every hasher begins with keys of its own.
    let random = RandomState::new().hash_one(0) % 10_000;
    f64::from(u16::try_from(random).expect("it is below ten thousand")) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_act_in_turn_and_as_often_as_they_say() {
        let mut terms = Terms::parse(r#"2*sleep(100)->1*return("x")->sleep("1.5s")"#).unwrap();
        let effects: Vec<Effect> = (0..4).map(|_| terms.pass()).collect();
        let sleep = |millis| Effect::Sleep(Duration::from_millis(millis));
        assert_eq!(effects, [sleep(100), sleep(100), Effect::Return("x".into()), sleep(1500)]);
        assert_eq!(terms.passed(), 4);
        let mut never = Terms::parse("0%panic").unwrap();
        assert_eq!((never.pass(), never.passed()), (Effect::None, 0));
        let mut once = Terms::parse("1*panic").unwrap();
        assert_eq!((once.pass(), once.pass()), (Effect::Panic, Effect::None));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Terms::parse("explode").unwrap_err(), TermsError::Action("explode".into()));
        assert!(matches!(Terms::parse("sleep(\"x\")"), Err(TermsError::Sleep(_))));
        assert!(matches!(Terms::parse("return(\"x\""), Err(TermsError::Syntax(_))));
    }
}
