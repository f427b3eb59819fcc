//! Some lives, each with other faults; more of them: `cargo xtask sim`.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use retcd_sim::{Counts, Report, run};

/// As many as a debug build lives in half a minute; `cargo xtask ci sim` lives more.
const LIVES: u64 = 80;

fn live(seed: u64) -> Report {
    match run(seed) {
        Ok(report) => report,
        Err(failure) => panic!("{}", failure.told()),
    }
}

/// A seed is worth nothing if it cannot be repeated: each life twice (G35).
///
/// G1, G2, G3, G4, G5, G6, G9; C1, C8, C9; D1 to D4, D22; N1 to N6, N8; M1, M2; T2, T4.
#[test]
fn promises_hold_in_every_life_and_each_can_be_repeated() {
    let (next, total) = (AtomicU64::new(0), Mutex::new(Counts::default()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if LIVES <= seed {
                        return;
                    }
                    let (first, second) = (live(seed), live(seed));
                    assert_eq!(first, second, "seed {seed}");
                    total.lock().unwrap().add(&first.counts);
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    assert!(total.snapshots > 0 && total.changes > 0 && total.watched > 0, "{total:?}");
    assert!(total.restarts > 0 && total.answered > 0, "{total:?}");
}

/// Seeds that found something, kept for ever.
///
/// Without the feature `probes` nothing is armed at a failpoint: where one was drawn, this is another
/// life than the one that failed. Those are lived by `cargo xtask sim --kept`, and so by CI.
#[test]
fn lives_that_once_failed() {
    let kept = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    for line in kept {
        let (seed, _reason) = line.split_once(' ').unwrap();
        live(seed.parse().unwrap());
    }
}
