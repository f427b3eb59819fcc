//! Ours and real etcd answer the same.
//!
//! `DIFFERENTIAL_SEQUENCES` says how many sequences are run, `DIFFERENTIAL_SEED` where they begin.

use std::path::Path;

use retcd_conformance::differential::{self, Side};
use retcd_conformance::{Server, ServerOptions, real_etcd};

const OURS: &str = env!("CARGO_BIN_EXE_etcd");

/// Sequences of a run that is not told otherwise.
const SEQUENCES: u64 = 60;

/// Calls of one sequence.
const CALLS: usize = 40;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// KV-*, L-*, W-*: every response equals that of etcd 3.5.
#[tokio::test]
async fn every_response_equals_that_of_real_etcd() -> anyhow::Result<()> {
    let Some(real) = real_etcd("3.5") else { return Ok(()) };
    let temporary = tempfile::tempdir()?;
    let start = |program: &Path, name: &str| {
        Server::start(program, &temporary.path().join(name), ServerOptions::default())
    };
    let theirs = start(&real.join("etcd"), "theirs")?;
    let ours = start(Path::new(OURS), "ours")?;
    let mut left = Side::connect(&theirs.endpoint()).await?;
    let mut right = Side::connect(&ours.endpoint()).await?;
    let first = number("DIFFERENTIAL_SEED", 0);
    for seed in first..first + number("DIFFERENTIAL_SEQUENCES", SEQUENCES) {
        differential::run(&mut left, &mut right, seed, CALLS).await?;
    }
    Ok(())
}
