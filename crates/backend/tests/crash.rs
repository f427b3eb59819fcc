//! Power cuts and failing devices at every point (reliability D1-D3, D9, D22, G13, G14).
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::sync::Arc;

use common::{Model, NAME, Step, assert_same, options, revision, state};
use retcd_backend::{Backend, Bucket, CommitError, Options};
use vfs::fault::{Failure, FaultDir, FaultPlan, Kind};
use vfs::memory::MemoryDir;
use vfs::{Dir, Open};

/// A life of a database in rounds; each ends with a commit.
struct Life {
    disk: MemoryDir,
    plan: Arc<FaultPlan>,
    sums: bool,
    /// What was committed, and what the commit that did not return would have made.
    durable: Model,
    in_flight: Model,
}

const ROUNDS: u64 = 9;

fn steps(round: u64, model: &Model) -> Vec<Step> {
    let put = |bucket, key: Vec<u8>, len: usize| {
        let value = vec![u8::try_from(round).unwrap(); len];
        Step { bucket, key, value: Some(value) }
    };
    let mut steps: Vec<Step> = (0..40)
        .map(|sub| {
            put(Bucket::Key, revision(round, sub).to_vec(), if sub == 7 { 2500 } else { 60 })
        })
        .collect();
    steps.push(put(Bucket::Lease, vec![u8::try_from(round % 4).unwrap() + 1], 10));
    if round.is_multiple_of(3) {
        let keys = model.rows.keys().filter(|(bucket, _)| *bucket == Bucket::Key);
        let gone = keys.skip(3).step_by(2);
        steps.extend(gone.map(|(bucket, key)| Step {
            bucket: *bucket,
            key: key.clone(),
            value: None,
        }));
    }
    steps
}

impl Life {
    fn new(sums: bool) -> Self {
        let (disk, plan) = (MemoryDir::new(), FaultPlan::new());
        let (durable, in_flight) = (Model::default(), Model::default());
        Self { disk, plan, sums, durable, in_flight }
    }

    fn open_on(&self, dir: &Arc<dyn Dir>) -> Result<Backend, Box<dyn std::error::Error>> {
        let aux = if self.sums { Some(dir.subdir("aux")?) } else { None };
        Ok(Backend::open(dir, NAME, &options(aux.as_ref()))?)
    }

    /// Lives until the end or the first failure.
    fn live(&mut self) -> Result<Backend, Box<dyn std::error::Error>> {
        let dir = FaultDir::wrap(self.disk.shared(), &self.plan);
        let db = self.open_on(&dir)?;
        for round in 1..=ROUNDS {
            let steps = steps(round, &self.in_flight);
            self.in_flight.apply(&steps);
            db.apply(self.in_flight.batch(&steps));
            db.commit()?;
            self.durable = self.in_flight.clone();
            if round.is_multiple_of(4) {
                while db.shrink_step()? {}
            }
        }
        Ok(db)
    }

    /// The checksums of the state that is found are believed: changed bytes are not served.
    fn verify_sums(&self, disk: &MemoryDir, context: &str) {
        let file = disk.shared().open(NAME, Open::Write).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let round = self.durable.applied;
        let value = [u8::try_from(round).unwrap(); 60];
        let places = (0..bytes.len() - 60).filter(|at| bytes[*at..at + 60] == value);
        for at in places.collect::<Vec<_>>() {
            file.write_at(&[0xEE], at as u64 + 30).unwrap();
        }
        drop(file);
        let Ok(db) = self.open_on(&disk.shared()) else { return };
        let found = db.get(Bucket::Key, &revision(round, 1));
        assert!(found.is_err(), "{context}: {found:?} is served");
    }

    /// What a later process must find on a disk.
    fn verify(&self, disk: &MemoryDir, context: &str) {
        let dir = disk.shared();
        let db = self.open_on(&dir).unwrap_or_else(|error| panic!("{context}: {error}"));
        let found = state(&db);
        assert!(
            found == self.durable || found == self.in_flight,
            "{context}: applied {} instead of {} or {}",
            found.applied,
            self.durable.applied,
            self.in_flight.applied
        );
        db.check().unwrap_or_else(|error| panic!("{context}: {error}"));
        // Life goes on, into pages that are really free.
        let mut model = found;
        for round in 20..23 {
            let steps = steps(round, &model);
            model.apply(&steps);
            db.apply(model.batch(&steps));
            db.commit().unwrap();
            db.check().unwrap_or_else(|error| panic!("{context}, later: {error}"));
        }
        assert_same(&db, &model);
    }
}

fn cut_at_every(kind: Kind, seeds: u64, sums: bool) {
    let mut whole = Life::new(sums);
    whole.live().unwrap();
    let count = whole.plan.count(kind);
    assert!(count > ROUNDS, "{count} operations");
    for nth in 1..=count {
        let mut life = Life::new(sums);
        if kind == Kind::Write {
            life.plan.tear(nth);
        }
        life.plan.stop_at(kind, nth);
        assert!(life.live().is_err() || kind == Kind::Write, "{kind:?} {nth} was reached");
        life.verify(&life.disk.crash_losing_all(), &format!("{kind:?} {nth}, all lost"));
        for seed in 0..seeds {
            let disk = life.disk.crash(nth * 1000 + seed);
            life.verify(&disk, &format!("{kind:?} {nth}, seed {seed}"));
            if sums && life.durable.applied > 0 {
                let disk = life.disk.crash(nth * 1000 + seed);
                life.verify_sums(&disk, &format!("{kind:?} {nth}, seed {seed}"));
            }
        }
    }
}

/// A process ended in this life; the next one opens what is there, and the power goes at some sync of
/// it: what it found, or committed then, is whole.
fn cut_the_next(ended: &Life, context: &str) {
    for later in 1..=4 {
        let (disk, plan) = (ended.disk.copy(), FaultPlan::new());
        plan.stop_at(Kind::Sync, later);
        let dir = FaultDir::wrap(disk.shared(), &plan);
        let (durable, in_flight) = (ended.durable.clone(), ended.in_flight.clone());
        let mut next = Life { disk, plan, sums: ended.sums, durable, in_flight };
        // The last commit may be there or not.
        if let Ok(db) = next.open_on(&dir) {
            next.durable = state(&db);
            next.in_flight = next.durable.clone();
            for round in 30..32 {
                let steps = steps(round, &next.in_flight);
                next.in_flight.apply(&steps);
                db.apply(next.in_flight.batch(&steps));
                if db.commit().is_err() {
                    break;
                }
                next.durable = next.in_flight.clone();
            }
        }
        next.verify(&next.disk.crash_losing_all(), &format!("{context}, {later}, all lost"));
        for seed in 0..3 {
            next.verify(&next.disk.crash(seed), &format!("{context}, {later}, seed {seed}"));
        }
    }
}

/// G13: what a killed process wrote may not be durable yet when the next one uses the free pages.
#[test]
fn power_cut_after_a_kill_leaves_a_whole_state() {
    let mut whole = Life::new(false);
    whole.live().unwrap();
    for nth in 3..=whole.plan.count(Kind::Sync) {
        let mut killed = Life::new(false);
        killed.plan.stop_at(Kind::Sync, nth);
        assert!(killed.live().is_err());
        cut_the_next(&killed, &format!("sync {nth}"));
    }
}

/// D9, G13: nor is what a failed sync did not write, however often it is synced.
#[test]
fn power_cut_after_a_failed_sync_leaves_a_whole_state() {
    for sums in [false, true] {
        let mut whole = Life::new(sums);
        whole.live().unwrap();
        for nth in 5..=whole.plan.count(Kind::Sync) {
            for seed in 0..4 {
                let mut failed = Life::new(sums);
                failed.plan.forget_at_failed_syncs(&failed.disk, seed);
                failed.plan.fail_at(Kind::Sync, nth, Failure::InputOutput);
                if failed.live().is_err() {
                    cut_the_next(&failed, &format!("sums {sums}, sync {nth}, seed {seed}"));
                }
            }
        }
    }
}

/// D1, D3.
#[test]
fn power_cut_at_every_sync_leaves_a_whole_state() {
    cut_at_every(Kind::Sync, 12, false);
}

/// D1, D3, G11.
#[test]
fn power_cut_at_every_sync_raises_no_false_alarm() {
    cut_at_every(Kind::Sync, 12, true);
}

/// D3, D4.
#[test]
fn power_cut_at_every_write_leaves_a_whole_state() {
    cut_at_every(Kind::Write, 2, true);
}

/// D9, G13.
#[test]
fn failed_sync_ends_the_use_of_the_file() {
    let mut whole = Life::new(true);
    whole.live().unwrap();
    for nth in 1..=whole.plan.count(Kind::Sync) {
        let mut life = Life::new(true);
        life.plan.fail_at(Kind::Sync, nth, Failure::InputOutput);
        let dir = FaultDir::wrap(life.disk.shared(), &life.plan);
        let Ok(db) = life.open_on(&dir) else { continue };
        let mut failed = false;
        for round in 1..=ROUNDS {
            let steps = steps(round, &life.in_flight);
            life.in_flight.apply(&steps);
            db.apply(life.in_flight.batch(&steps));
            match db.commit() {
                Ok(_) => {
                    assert!(!failed, "a commit succeeded after a failed sync");
                    life.durable = life.in_flight.clone();
                }
                Err(CommitError::Io(_)) => {
                    failed = true;
                    break;
                }
                Err(error) => panic!("sync {nth}: {error}"),
            }
        }
        if !failed {
            // The failure was in what the other life does between its commits.
            continue;
        }
        assert!(matches!(db.commit(), Err(CommitError::Io(_))), "the file is used again");
        assert_same(&db, &life.in_flight);
        for seed in 0..4 {
            life.verify(&life.disk.crash(seed), &format!("sync {nth} failed, seed {seed}"));
        }
    }
}

fn no_space_at_every_write(sums: bool, tear: bool) {
    let mut whole = Life::new(sums);
    whole.live().unwrap();
    for nth in 1..=whole.plan.count(Kind::Write) {
        let mut life = Life::new(sums);
        if tear {
            life.plan.tear(nth);
        }
        life.plan.fail_from(Kind::Write, nth, Failure::NoSpace);
        let dir = FaultDir::wrap(life.disk.shared(), &life.plan);
        let Ok(db) = life.open_on(&dir) else {
            life.plan.clear();
            life.verify(&life.disk.copy(), "no space while making the file");
            continue;
        };
        for round in 1..=ROUNDS {
            let steps = steps(round, &life.in_flight);
            life.in_flight.apply(&steps);
            db.apply(life.in_flight.batch(&steps));
            for attempt in 0..3 {
                match db.commit() {
                    Ok(_) => break,
                    Err(CommitError::NoSpace(_)) if attempt < 2 => {
                        assert_same(&db, &life.in_flight);
                        let context = format!("write {nth}, attempt {attempt}");
                        life.verify(&life.disk.crash(nth), &context);
                        if attempt == 1 {
                            life.plan.clear();
                        }
                    }
                    Err(error) => panic!("write {nth}, attempt {attempt}: {error:?}"),
                }
            }
            life.durable = life.in_flight.clone();
            db.check().unwrap();
            assert_same(&db, &life.durable);
        }
        drop(db);
        life.verify(&life.disk.copy(), &format!("write {nth}, reopened"));
    }
}

/// D22, G14.
#[test]
fn no_space_at_every_write_is_survived() {
    no_space_at_every_write(true, false);
}

/// D22, G14.
#[test]
fn no_space_with_torn_writes_is_survived() {
    no_space_at_every_write(false, true);
}

/// D22: a meta page that was written although the disk said that it was full may be found later; what
/// it leads to must still be there.
#[test]
fn state_of_a_refused_meta_page_stays_whole() {
    let mut whole = Life::new(false);
    whole.live().unwrap();
    for nth in 1..=whole.plan.count(Kind::Write) {
        let mut life = Life::new(false);
        life.plan.tear(nth);
        life.plan.fail_at(Kind::Write, nth, Failure::NoSpace);
        let dir = FaultDir::wrap(life.disk.shared(), &life.plan);
        let Ok(db) = life.open_on(&dir) else { continue };
        for round in 1..=ROUNDS {
            let more = steps(round, &life.in_flight);
            life.in_flight.apply(&more);
            db.apply(life.in_flight.batch(&more));
            if db.commit().is_ok() {
                life.durable = life.in_flight.clone();
                continue;
            }
            let mut later = life.in_flight.clone();
            let more = steps(round + 50, &later);
            later.apply(&more);
            db.apply(later.batch(&more));
            life.plan.clear();
            life.plan.stop_at(Kind::Sync, life.plan.count(Kind::Sync) + 1);
            assert!(db.commit().is_err(), "write {nth}: the machine is off");
            break;
        }
        for seed in 0..8 {
            life.verify(&life.disk.crash(seed), &format!("write {nth} refused, seed {seed}"));
        }
    }
}

/// D12, for the database: a read that fails is an error, not "not found", and ends nothing.
#[test]
fn failed_read_is_an_error_and_can_be_tried_again() {
    let mut count = 1;
    let mut nth = 0;
    while nth < count {
        nth += 1;
        let mut life = Life::new(true);
        let dir = FaultDir::wrap(life.disk.shared(), &life.plan);
        life.plan.fail_at(Kind::Read, nth, Failure::InputOutput);
        let aux = dir.subdir("aux").unwrap();
        let options = Options { cache_bytes_max: 0, ..options(Some(&aux)) };
        let Ok(db) = Backend::open(&dir, NAME, &options) else {
            count += 1;
            continue;
        };
        for round in 1..=5 {
            let steps = steps(round, &life.in_flight);
            life.in_flight.apply(&steps);
            db.apply(life.in_flight.batch(&steps));
            if let Err(error) = db.commit() {
                assert!(matches!(error, CommitError::Read(_)), "read {nth}: {error:?}");
                db.commit().unwrap();
            }
            let key = revision(round.max(2) - 1, 5);
            let expected = life.in_flight.rows.get(&(Bucket::Key, key.to_vec()));
            for attempt in 0..2 {
                match db.get(Bucket::Key, &key) {
                    Ok(value) => {
                        assert_eq!(value.as_deref(), expected.map(|value| &value[..]));
                        break;
                    }
                    Err(error) => assert!(attempt == 0, "read {nth}: {error}"),
                }
            }
        }
        life.durable = life.in_flight.clone();
        // The failure may come as late as here.
        let checked = db.check().or_else(|_| db.check());
        checked.unwrap_or_else(|error| panic!("read {nth}: {error}"));
        count = count.max(life.plan.count(Kind::Read).min(400));
        drop(db);
        life.verify(&life.disk.copy(), &format!("read {nth} failed"));
    }
    assert!(count > 30, "only {count} reads were made to fail");
}
