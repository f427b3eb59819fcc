//! Every flag of the table does something or says that it does nothing.
//!
//! A flag does something if giving it another value changes what the server is built from, is
//! refused, or is answered with a notice. That the parts use what they are given is the compiler's
//! matter: it tells of fields that nobody reads.

use super::*;
use crate::auth::Authentication;
use crate::config::flags::{self, Role};
use crate::config::value::Kind;
use crate::options::Options;

/// The line of a flag that does nothing.
const NO_EFFECT: &str = "flag is accepted but has no effect";

/// What the flags of v3 discovery need besides.
const DISCOVERY: &[&str] = &["--discovery-token=t", "--discovery-endpoints=http://127.0.0.1:7001"];

/// Flags whose other value does not follow from their kind, or which need others besides.
const SPECIAL: &[(&str, &[&str], &str)] = &[
    ("auto-compaction-mode", &["--auto-compaction-retention=5"], "revision"),
    ("auto-compaction-retention", &[], "5m"),
    ("auth-token", &[], "jwt,sign-method=HS256"),
    ("backend-bbolt-freelist-type", &[], "array"),
    ("cors", &[], "http://other.example:80"),
    ("discovery-fallback", &[], "proxy"),
    ("discovery-insecure-transport", DISCOVERY, "false"),
    ("discovery-proxy", &["--discovery=http://d.example/token"], "http://localhost:7001"),
    ("discovery-password", &[DISCOVERY[0], DISCOVERY[1], "--discovery-user=a"], "other"),
    ("discovery-srv-name", &["--discovery-srv=other.example"], "other"),
    ("enable-log-rotation", &["--log-outputs=etcd.log"], "true"),
    ("feature-gates", &[], "InitialCorruptCheck=true"),
    ("initial-cluster", &[], "default=http://localhost:2380,b=http://localhost:7002"),
    ("initial-cluster-state", &[], "existing"),
    (
        "listen-client-urls",
        &["--advertise-client-urls=http://localhost:7002"],
        "http://127.0.0.1:7001",
    ),
    ("log-format", &[], "console"),
    ("log-level", &[], "debug"),
    (
        "log-rotation-config-json",
        &["--log-outputs=etcd.log", "--enable-log-rotation"],
        "{\"maxsize\": 100, \"compress\": true}",
    ),
    ("metrics", &[], "extensive"),
    ("proxy", &[], "on"),
    ("tls-max-version", &[], "TLS1.3"),
    ("tls-min-version", &[], "TLS1.3"),
    ("v2-deprecation", &[], "gone"),
];

/// Flags of which `start` itself takes the value out of the [`Config`], see [`taken`].
fn taken(config: &Config) -> String {
    let (listen, bootstrap) = (&config.listen, &config.bootstrap);
    let cluster = match bootstrap {
        Bootstrap::Static(text) => InitialCluster::parse(text).expect("the default is a cluster"),
        Bootstrap::Discovery(_) | Bootstrap::DiscoveryUrl { .. } | Bootstrap::Srv { .. } => {
            InitialCluster::default()
        }
    };
    // Shown by nobody, and so not by its debug form.
    let password = match bootstrap {
        Bootstrap::Discovery(discovery) => discovery.password.reveal(),
        Bootstrap::Static(_) | Bootstrap::DiscoveryUrl { .. } | Bootstrap::Srv { .. } => "",
    };
    let (state, logging, tls) = (config.cluster.state, &config.logging.settings, &config.tls);
    let auth = &config.auth;
    let simple = Auth { token: "simple".to_owned(), ..auth.clone() };
    let authentication = Authentication::new(&simple, config.tls.client.client_cert_auth).unwrap();
    let options = Options::new(config, cluster, authentication);
    let reused = (listen.reuse_port, listen.reuse_address);
    let bound = [&listen.peers, &listen.clients, &listen.clients_http, &listen.metrics];
    let (advertised, proxy) = (&config.advertise.peers, &config.proxy);
    let (locked, traced) = (config.storage.memory_mlock, &config.tracing);
    let (in_options, outside) = (
        format!("{options:?}"),
        format!(
            "{bound:?} {reused:?} {advertised:?} {state:?} {logging:?} {tls:?} {bootstrap:?} {password} {proxy:?} {locked} {traced:?} {}",
            auth.token,
        ),
    );
    in_options + &outside
}

fn other_value(flag: &flags::Flag) -> String {
    if let Some((_, _, value)) = SPECIAL.iter().find(|(name, ..)| *name == flag.name) {
        return (*value).to_owned();
    }
    let number = || flag.default.parse::<i64>().expect("the default is a number");
    match flag.kind {
        Kind::Bool => (flag.default == "false").to_string(),
        // Twice as much keeps elections longer than heartbeats.
        Kind::Unsigned | Kind::Unsigned32 | Kind::Signed if number() == i64::from(u32::MAX) => {
            "7".to_owned()
        }
        Kind::Unsigned | Kind::Unsigned32 | Kind::Signed => (number() * 2 + 1).to_string(),
        Kind::Duration => "7s".to_owned(),
        Kind::Urls => "http://127.0.0.1:7001".to_owned(),
        Kind::Origins => "http://other.example".to_owned(),
        Kind::Text | Kind::Words | Kind::WordSet => "other".to_owned(),
        Kind::Choice(_) | Kind::Choices(_) | Kind::Level | Kind::Gates | Kind::Ignored => {
            panic!("--{} needs a value in the table of this test", flag.name)
        }
    }
}

/// What a command line leads to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Refused,
    Accepted { taken: String, notices: Vec<String> },
}

fn outcome(arguments: &[&str]) -> Outcome {
    let reading = Given::flags(arguments).read();
    let Ok(Invocation::Start(config)) = reading.outcome else { return Outcome::Refused };
    let notices = reading.notices.iter().map(shown);
    // The line that repeats the arguments differs by itself.
    let notices = notices.filter(|line| !line.contains("Running: ")).collect();
    Outcome::Accepted { taken: taken(&config), notices }
}

fn says_no_effect(outcome: &Outcome, name: &str) -> bool {
    let Outcome::Accepted { notices, .. } = outcome else { return false };
    let field = format!("flag=\"--{name}\"");
    notices.iter().any(|line| line.contains(NO_EFFECT) && line.contains(&field))
}

/// SRV-040 to SRV-131.
#[test]
fn every_flag_acts_or_says_that_it_does_not() {
    let mut wrong = Vec::new();
    for flag in flags::all().iter().filter(|flag| flag.role == Role::Setting) {
        let special = SPECIAL.iter().find(|(name, ..)| *name == flag.name);
        let of_discovery = flag.name.starts_with("discovery-") && !flag.name.contains("-srv");
        let usual = if of_discovery { DISCOVERY } else { &[] };
        let besides = special.map_or(usual, |(_, besides, _)| besides);
        let given = format!("--{}={}", flag.name, other_value(flag));
        let without = outcome(besides);
        let with = outcome(&[besides, &[given.as_str()]].concat());
        assert_ne!(without, Outcome::Refused, "--{}", flag.name);
        let says = says_no_effect(&with, flag.name);
        let acts = match (&without, &with) {
            (_, Outcome::Refused) => true,
            (Outcome::Accepted { taken: before, .. }, Outcome::Accepted { taken: after, .. }) => {
                before != after || (!says && without != with)
            }
            (Outcome::Refused, Outcome::Accepted { .. }) => false,
        };
        if acts == says {
            wrong.push(format!("{given}: acts: {acts}, says that it does not: {says}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The blocks of a file around a key with dots, and its value.
fn file_of(flags: &[&str]) -> String {
    let mut tree = serde_json::Map::new();
    for flag in flags {
        let (name, value) = flag.trim_start_matches("--").split_once('=').unwrap();
        let flag = flags::find(name).unwrap();
        let value = match flag.kind {
            Kind::Bool | Kind::Unsigned | Kind::Unsigned32 | Kind::Signed => {
                serde_json::from_str(value).unwrap()
            }
            Kind::Duration
            | Kind::Text
            | Kind::Urls
            | Kind::Origins
            | Kind::Words
            | Kind::WordSet
            | Kind::Choice(_)
            | Kind::Choices(_)
            | Kind::Level
            | Kind::Gates
            | Kind::Ignored => serde_json::Value::from(value),
        };
        let mut place = &mut tree;
        let mut keys: Vec<_> = file::key_of(flag).split('.').collect();
        let last = keys.pop().unwrap();
        for key in keys {
            let block = place.entry(key).or_insert_with(|| serde_json::Map::new().into());
            place = block.as_object_mut().unwrap();
        }
        place.insert(last.to_owned(), value);
    }
    serde_json::Value::Object(tree).to_string()
}

/// SRV-003 to SRV-006: what a flag sets, its key in a file sets.
#[test]
fn every_flag_has_its_place_in_a_file() {
    for flag in flags::all().iter().filter(|flag| flag.role == Role::Setting) {
        if flag.name == "config-file" {
            continue;
        }
        let special = SPECIAL.iter().find(|(name, ..)| *name == flag.name);
        let of_discovery = flag.name.starts_with("discovery-") && !flag.name.contains("-srv");
        let usual = if of_discovery { DISCOVERY } else { &[] };
        let besides = special.map_or(usual, |(_, besides, _)| besides);
        let besides: Vec<String> = besides
            .iter()
            .map(
                |flag| {
                    if flag.contains('=') { (*flag).to_owned() } else { format!("{flag}=true") }
                },
            )
            .collect();
        let given = format!("--{}={}", flag.name, other_value(flag));
        let mut all: Vec<_> = besides.iter().map(String::as_str).collect();
        all.push(&given);
        let by_flags = Given::flags(&all).read();
        let by_file = Given::file(&file_of(&all)).read();
        let told = by_file.notices.iter().map(shown).find(|line| line.contains("unknown key"));
        assert_eq!(told, None, "{given}");
        match (by_flags.outcome, by_file.outcome) {
            (Ok(Invocation::Start(by_flags)), Ok(Invocation::Start(by_file))) => {
                assert_eq!(taken(&by_flags), taken(&by_file), "{given}");
            }
            (by_flags, by_file) => {
                assert_eq!(by_flags.is_err(), by_file.is_err(), "{given}");
            }
        }
    }
}

/// SRV-131: an older name sets what the flag of today sets, or the gate.
#[test]
fn every_older_name_does_what_the_newer_does() {
    for flag in flags::all() {
        let newer = match flag.role {
            Role::Alias(target) => {
                let target = flags::find(target).expect("older names lead to flags");
                let value = other_value(target);
                [format!("--{}={value}", flag.name), format!("--{}={value}", target.name)]
            }
            Role::Gate(gate) => {
                let on = flag.default == "false";
                [format!("--{}={on}", flag.name), format!("--feature-gates={gate}={on}")]
            }
            Role::Setting | Role::Ignored => continue,
        };
        // Persisting needs checkpoints to persist.
        let persists = flag.role == Role::Gate("LeaseCheckpointPersist");
        let besides =
            if persists { "--experimental-enable-lease-checkpoint" } else { "--log-level=info" };
        let [old, new] = newer.map(|given| match outcome(&[besides, &given]) {
            Outcome::Accepted { taken, .. } => taken,
            Outcome::Refused => panic!("{given} is refused"),
        });
        assert_eq!(old, new, "--{}", flag.name);
    }
}

/// SRV-140 to SRV-147.
#[test]
fn every_gate_acts_or_says_that_it_does_not() {
    for gate in Gate::ALL {
        let on = Given::flags(&[]).config().0.features.gates.is_enabled(gate);
        let given = format!("--feature-gates={}={}", gate.name(), !on);
        // Persisting needs checkpoints to persist.
        let besides = "--feature-gates=LeaseCheckpoint=true";
        let besides = if gate == Gate::LeaseCheckpointPersist { besides } else { "--name=a" };
        let outcome = outcome(&[besides, "--initial-cluster=a=http://localhost:2380", &given]);
        assert_ne!(outcome, Outcome::Refused, "{given}");
        let Outcome::Accepted { notices, .. } = &outcome else { continue };
        let shown = format!("feature gate has no effect feature-gate=\"{}={}\"", gate.name(), !on);
        let says = notices.iter().any(|line| line.contains(&shown));
        assert_eq!(says, gate.fixed().is_some_and(|(fixed, _)| fixed == on), "{given}");
    }
}
