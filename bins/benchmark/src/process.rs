//! What a process has used, from the system's process table.
//!
//! Linux only, as the figures are. Nothing is started or stopped here (`server.rs`).
//!
//! Source: proc(5).

use std::fs;
use std::io;
use std::time::Duration;

/// A process by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    id: u32,
}

/// A figure that could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// The process is gone, or another user's.
    #[error("reading {file} of process {id}")]
    Read {
        /// The process.
        id: u32,
        /// File below its folder.
        file: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The machine's processor times cannot be read.
    #[error("reading the machine's processor times")]
    Machine(#[source] io::Error),
    /// The machine's processor times have another form than documented.
    #[error("the machine's processor times have an unknown form")]
    MachineForm,
    /// The file has another form than documented.
    #[error("{file} of process {id} has an unknown form")]
    Form {
        /// The process.
        id: u32,
        /// File below its folder.
        file: &'static str,
    },
}

/// Memory that belongs to one process alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Clean and dirty private pages, mapped files included.
    pub(crate) private_bytes: u64,
    /// The part that no file backs: heap, stacks.
    pub(crate) anonymous_bytes: u64,
}

/// Ticks in which processor times are given: part of the system's interface on x86-64 and arm64.
const TICKS_PER_SECOND: u64 = 100;

impl Process {
    /// A process by its number.
    pub(crate) const fn new(id: u32) -> Self {
        Self { id }
    }

    /// This program.
    pub(crate) fn own() -> Self {
        Self { id: std::process::id() }
    }

    /// Processor time of all its threads so far, user and system, to 10 ms.
    ///
    /// # Errors
    /// If the process is gone.
    pub(crate) fn cpu(&self) -> Result<Duration, ProcessError> {
        let text = self.read("stat")?;
        let ticks = ticks(&text).ok_or(ProcessError::Form { id: self.id, file: "stat" })?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Its private memory. Walks its page tables: milliseconds for a gigabyte.
    ///
    /// # Errors
    /// If the process is gone.
    pub(crate) fn memory(&self) -> Result<Memory, ProcessError> {
        let text = self.read("smaps_rollup")?;
        memory(&text).ok_or(ProcessError::Form { id: self.id, file: "smaps_rollup" })
    }

    fn read(&self, file: &'static str) -> Result<String, ProcessError> {
        fs::read_to_string(format!("/proc/{}/{file}", self.id))
            .map_err(|source| ProcessError::Read { id: self.id, file, source })
    }
}

/// What all processors of the machine did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineCpu {
    busy: Duration,
    total: Duration,
}

/// Reads what the machine's processors did since it started.
///
/// # Errors
/// If the system does not say.
pub(crate) fn machine_cpu() -> Result<MachineCpu, ProcessError> {
    let text = fs::read_to_string("/proc/stat").map_err(ProcessError::Machine)?;
    machine(&text).ok_or(ProcessError::MachineForm)
}

impl MachineCpu {
    /// What they did after `begin`.
    pub(crate) fn since(self, begin: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(begin.busy),
            total: self.total.saturating_sub(begin.total),
        }
    }

    /// The share of their time that went into something else than the known `used`.
    pub(crate) fn share_beside(self, used: Duration) -> f64 {
        let others = self.busy.saturating_sub(used).as_secs_f64();
        if self.total.is_zero() { 0.0 } else { others / self.total.as_secs_f64() }
    }
}

/// The first line: user, nice, system, idle, waiting for disks, interrupts, soft interrupts,
/// stolen by the host; what follows is contained in user.
fn machine(stat: &str) -> Option<MachineCpu> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Option<Vec<u64>> =
        line.split_ascii_whitespace().take(8).map(|field| field.parse().ok()).collect();
    let [user, nice, system, idle, disk, interrupts, soft, stolen] = fields?.try_into().ok()?;
    let time = |ticks: u64| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
    let busy = user + nice + system + interrupts + soft + stolen;
    Some(MachineCpu { busy: time(busy), total: time(busy + idle + disk) })
}

/// User and system time: the 14th and 15th field; the second is a name that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn memory(rollup: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(Memory {
        private_bytes: field("Private_Clean:")? + field("Private_Dirty:")?,
        anonymous_bytes: field("Anonymous:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_spaces() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("no name"), None);
    }

    #[test]
    fn private_memory_is_clean_and_dirty() {
        let rollup =
            "Rss: 100 kB\nPrivate_Clean:      8 kB\nPrivate_Dirty:  4 kB\nAnonymous: 4 kB\n";
        let wanted = Memory { private_bytes: 12 << 10, anonymous_bytes: 4 << 10 };
        assert_eq!(memory(rollup), Some(wanted));
        assert_eq!(memory("Private_Clean: 8 kB"), None);
    }

    #[test]
    fn others_are_what_is_busy_beside_the_known() {
        let begin = machine("cpu  0 0 0 0 0 0 0 0 0 0").unwrap();
        let end = machine("cpu  100 10 50 200 20 10 10 0 7 7\ncpu0 1").unwrap().since(begin);
        assert_eq!((end.busy, end.total), (Duration::from_millis(1800), Duration::from_secs(4)));
        assert!((end.share_beside(Duration::from_secs(1)) - 0.2).abs() < 1e-9);
        assert_eq!(machine("cpu  1 2"), None);
        assert!(machine_cpu().is_ok());
    }

    #[test]
    fn own_figures_can_be_read() {
        assert!(Process::own().cpu().is_ok());
        assert!(Process::own().memory().unwrap().private_bytes > 0);
    }
}
