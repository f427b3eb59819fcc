//! How long tests wait for what must happen, on a machine that is busy with other tests.

use std::time::{Duration, Instant};

/// Longer than anything takes that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What [`eventually`] asks for: yes or no, or an error that ends the wait.
pub trait Condition {
    /// Whether it holds.
    ///
    /// # Errors
    ///
    /// It never will.
    fn holds(self) -> anyhow::Result<bool>;
}

impl Condition for bool {
    fn holds(self) -> anyhow::Result<bool> {
        Ok(self)
    }
}

impl Condition for anyhow::Result<bool> {
    fn holds(self) -> anyhow::Result<bool> {
        self
    }
}

/// Waits until it is so.
///
/// # Errors
///
/// It never was, or asking failed.
pub fn eventually<C: Condition>(what: &str, mut ask: impl FnMut() -> C) -> anyhow::Result<()> {
    let began = Instant::now();
    while !ask().holds()? {
        anyhow::ensure!(began.elapsed() < PATIENCE, "it never happened: {what}");
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
