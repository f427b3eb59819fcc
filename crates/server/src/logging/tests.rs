//! Lines as they are written, with a clock that stands still.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::*;
use crate::config::GoDuration;

fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_366_245_000_001)
}

/// Runs `code` with a log of its own and returns what it wrote.
fn logged(level: Level, format: Format, code: impl FnOnce(&'static Log)) -> String {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log: &'static Log =
        Box::leak(Box::new(Log::new(level, format, Sink::memory(Arc::clone(&lines)), clock)));
    let subscriber = tracing_subscriber::registry().with(LogLayer { log });
    tracing::subscriber::with_default(subscriber, || code(log));
    let lines = lines.lock().unwrap();
    let text = String::from_utf8(lines.clone()).unwrap();
    // The line number of this file is of no interest.
    let parts: Vec<_> = text
        .split("logging/tests.rs:")
        .enumerate()
        .map(|(position, part)| match position {
            0 => part,
            _ => part.trim_start_matches(|c: char| c.is_ascii_digit()),
        })
        .collect();
    parts.join("logging/tests.rs:N")
}

/// Process contract, section 4.
#[test]
fn a_line_has_level_time_caller_message_and_fields_in_order() {
    let text = logged(Level::Info, Format::Json, |_| {
        tracing::info!(
            "snapshot-catchup-entries" = 1000_u64,
            took = %GoDuration::from(Duration::from_millis(100)),
            negative = -5,
            "member-initialized" = false,
            urls = ?List::of(["http://a:1", "http://b:2"]),
            text = "quo\"te\n",
            "starting an etcd server"
        );
    });
    assert_eq!(
        text,
        concat!(
            r#"{"level":"info","ts":"2026-01-02T15:04:05.000001Z","caller":"logging/tests.rs:N","msg":"starting an etcd server","#,
            r#""snapshot-catchup-entries":1000,"took":"100ms","negative":-5,"member-initialized":false,"#,
            r#""urls":["http://a:1","http://b:2"],"text":"quo\"te\n"}"#,
            "\n"
        )
    );
}

#[test]
fn console_lines_have_tabs() {
    let text = logged(Level::Info, Format::Console, |_| {
        tracing::warn!(target: "logger:raft", a = 1, list = ?List::of(["x", "y"]), "text");
        tracing::info!("no fields");
    });
    assert_eq!(
        text,
        "2026-01-02T15:04:05.000001Z\twarn\traft\tlogging/tests.rs:N\ttext\t{\"a\": 1, \"list\": [\"x\", \"y\"]}\n\
         2026-01-02T15:04:05.000001Z\tinfo\tlogging/tests.rs:N\tno fields\n"
    );
}

#[test]
fn fatal_and_named_lines_say_so() {
    let text = logged(Level::Fatal, Format::Json, |_| {
        tracing::error!("not important enough");
        tracing::error!(target: FATAL, "discovery failed");
    });
    assert!(text.starts_with(r#"{"level":"fatal","#), "{text}");
    assert_eq!(text.lines().count(), 1);
    let text = logged(Level::Info, Format::Json, |_| tracing::info!(target: "logger:raft", "x"));
    assert!(text.contains(r#"Z","logger":"raft","caller":"#), "{text}");
}

#[test]
fn the_level_can_be_changed_while_running() {
    let text = logged(Level::Info, Format::Json, |log| {
        for level in [Level::Info, Level::Debug, Level::Error] {
            log.level.set(level);
            tracing::callsite::rebuild_interest_cache();
            tracing::debug!(at = level.name(), "seen");
        }
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(r#""at":"debug""#), "{text}");
}

#[test]
fn other_crates_are_heard_from_warn_upwards() {
    let text = logged(Level::Debug, Format::Json, |_| {
        tracing::debug!(target: "h2::codec", "noise");
        tracing::info!(target: "hyper", "noise");
        tracing::warn!(target: "hyper", "heard");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// An error's causes follow it.
#[test]
fn error_chains_stand_in_one_field() {
    #[derive(Debug, thiserror::Error)]
    #[error("opening the log")]
    struct Outer(#[source] std::io::Error);

    let error = Outer(std::io::Error::other("disk gone"));
    let text = logged(Level::Info, Format::Json, |_| {
        tracing::error!(error = &error as &dyn std::error::Error, "failed");
        tracing::error!(error = %Chain(&error), "failed");
    });
    assert_eq!(text.matches(r#""error":"opening the log: disk gone""#).count(), 2, "{text}");
}

/// A client's text that looks like JSON stays text.
#[test]
fn text_is_never_taken_for_json() {
    let text = logged(Level::Info, Format::Json, |_| {
        let hostile = "[1,2]";
        tracing::info!(hostile = %hostile, spread = %"{\"level\":\"fatal\"}", "x");
    });
    assert!(text.contains(r#""hostile":"[1,2]""#), "{text}");
    assert!(text.contains(r#""spread":"{\"level\":\"fatal\"}""#), "{text}");
}

#[test]
fn spread_fields_become_fields_of_the_line() {
    let text = logged(Level::Info, Format::Json, |_| {
        let fields = Spread::new([("a", 1.into()), ("b", "x".into())]);
        tracing::info!(spread = ?fields, "{}", "text");
    });
    assert!(text.ends_with("\"msg\":\"text\",\"a\":1,\"b\":\"x\"}\n"), "{text}");
}

/// A broken invariant is a line like any other.
#[test]
fn a_panic_is_a_line() {
    let caught = Arc::new(Mutex::new(String::new()));
    let hook = std::panic::take_hook();
    let seen = Arc::clone(&caught);
    std::panic::set_hook(Box::new(move |info| {
        *seen.lock().unwrap() = Format::Json.line(&panic::record_of(info));
    }));
    let unwound = std::panic::catch_unwind(|| panic!("commit goes back: {} to {}", 5, 3));
    std::panic::set_hook(hook);
    assert!(unwound.is_err());
    let line = caught.lock().unwrap().clone();
    assert!(line.starts_with(r#"{"level":"panic","ts":""#), "{line}");
    assert!(line.contains(r#""caller":"logging/tests.rs:"#), "{line}");
    assert!(line.contains(r#""error":"commit goes back: 5 to 3""#), "{line}");
}
