//! Every flag of etcd is known here, and proven by a test that is named.
//!
//! `proofs.txt` names for every flag that acts the test that shows it: a file, two colons and the
//! function. `etcd-*.txt` are the flags that the `--help` of releases lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use retcd_conformance::{Server, ServerOptions};

const PROOFS: &str = include_str!("proofs.txt");

/// Flags by the release that lists them.
const LISTED: &[(&str, &str)] = &[
    ("3.4", include_str!("etcd-3.4.23.txt")),
    ("3.5", include_str!("etcd-3.5.30.txt")),
    ("3.7", include_str!("etcd-3.7.1.txt")),
];

/// SRV-012: flags of 0.4 and before that are taken and do nothing.
const IGNORED: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
];

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Flags of the document that is made from our table, and whether each acts.
fn documented() -> anyhow::Result<BTreeMap<String, bool>> {
    let document = fs::read_to_string(repository().join("docs/operating/flags.md"))?;
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `--"));
    rows.map(|row| {
        let (name, rest) = row.split_once('`').context("a name ends")?;
        let acts = rest.split(" | ").nth(4).context("a row says whether a flag acts")?;
        Ok((name.to_owned(), acts == "yes"))
    })
    .collect()
}

/// Proofs by flag.
fn proofs() -> anyhow::Result<BTreeMap<&'static str, &'static str>> {
    let lines = PROOFS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').context(line)).collect()
}

/// SRV-040 to SRV-131, VER-08: whatever a release lists, it is known here.
#[test]
fn every_flag_of_etcd_is_known() -> anyhow::Result<()> {
    let known = documented()?;
    for (release, names) in LISTED {
        for name in names.lines() {
            assert!(known.contains_key(name), "--{name} of {release} is not known");
        }
    }
    for name in IGNORED {
        assert!(!known.contains_key(*name), "--{name} does nothing and is listed");
        let taken =
            Command::new(super::OURS).args([&format!("--{name}=1"), "--version"]).output()?;
        assert!(taken.status.success(), "--{name} is not taken");
    }
    Ok(())
}

/// VER-09, VER-10: what the releases have different defaults for is here as in the newest.
#[test]
fn defaults_are_those_of_3_7() -> anyhow::Result<()> {
    let mut programs = vec![super::OURS.into()];
    programs.extend(retcd_conformance::real_etcd("3.7").map(|folder| folder.join("etcd")));
    for program in programs {
        let folder = tempfile::tempdir()?;
        let server = Server::start(&program, folder.path(), ServerOptions::default())?;
        let log = server.log();
        for fact in [
            "\"snapshot-count\":10000",
            "\"pre-vote\":true",
            "\"max-wals\":5",
            "\"heartbeat-interval\":\"100ms\"",
            "\"election-timeout\":\"1s\"",
            "\"quota-backend-bytes\":2147483648",
            "\"max-request-bytes\":1572864",
        ] {
            assert!(log.contains(fact), "{fact} is not in: {log}");
        }
    }
    Ok(())
}

/// The lists are those of the programs, where the programs are.
#[test]
fn the_lists_are_those_of_the_programs() -> anyhow::Result<()> {
    for (release, names) in LISTED {
        let Some(folder) = retcd_conformance::real_etcd(release) else { continue };
        let help = Command::new(folder.join("etcd")).arg("--help").output()?;
        let help = String::from_utf8(help.stdout)? + &String::from_utf8(help.stderr)?;
        let told = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
        let told = told.filter_map(|line| line.split([' ', '=', ')']).next());
        assert_eq!(told.collect::<BTreeSet<_>>(), names.lines().collect(), "{release}");
    }
    Ok(())
}

/// Issue 6.5: nothing is taken that does nothing, and every flag that acts is seen to.
#[test]
fn every_flag_that_acts_is_proven() -> anyhow::Result<()> {
    let proofs = proofs()?;
    let documented = documented()?;
    for (name, acts) in &documented {
        assert!(!acts || proofs.contains_key(name.as_str()), "--{name} acts and is not proven");
    }
    for (name, proof) in proofs {
        assert!(documented.contains_key(name), "--{name} is proven and not known");
        let (file, test) = proof.split_once("::").context(proof)?;
        let path = repository().join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        assert!(text.contains(&format!("fn {test}(")), "--{name}: {proof}");
    }
    Ok(())
}
