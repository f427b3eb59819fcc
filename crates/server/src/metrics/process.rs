//! The process as the operating system sees it (MET-71, MET-72), from `/proc`.

use std::fs;

use prometheus::{Counter, Gauge, IntCounter, IntGauge};

use super::register::Register;

/// Clock ticks a second in `/proc`; the kernel's interface fixes it.
const TICKS_PER_SECOND: f64 = 100.0;

/// What Prometheus' own libraries say about a process.
#[derive(Debug)]
pub(super) struct Process {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    virtual_bytes_max: Gauge,
    start_seconds: Gauge,
    open_files: IntGauge,
    open_files_max: IntGauge,
    used_files: IntGauge,
    files_limit: IntGauge,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
}

impl Process {
    pub(super) fn new(register: &Register<'_>) -> Self {
        Self {
            cpu_seconds: register.real_counter(
                "process_cpu_seconds_total",
                "Seconds of processor time, for the program and for the kernel.",
            ),
            resident_bytes: register
                .gauge("process_resident_memory_bytes", "Bytes of memory in use."),
            virtual_bytes: register
                .gauge("process_virtual_memory_bytes", "Bytes of address space."),
            virtual_bytes_max: register.real_gauge(
                "process_virtual_memory_max_bytes",
                "Bytes of address space that may be used.",
            ),
            start_seconds: register
                .real_gauge("process_start_time_seconds", "When it started, in Unix seconds."),
            open_files: register.gauge("process_open_fds", "Open file descriptors."),
            open_files_max: register.gauge("process_max_fds", "File descriptors that may be open."),
            used_files: register.gauge("os_fd_used", "Open file descriptors."),
            files_limit: register.gauge("os_fd_limit", "File descriptors that may be open."),
            received_bytes: register.counter(
                "process_network_receive_bytes_total",
                "Bytes received, by all processes that share this one's network.",
            ),
            sent_bytes: register.counter(
                "process_network_transmit_bytes_total",
                "Bytes sent, by all processes that share this one's network.",
            ),
        }
    }

    /// Looks again; what cannot be read stays as it was.
    pub(super) fn refresh(&self) {
        if let Some(stat) = Stat::read() {
            let grown = stat.cpu_seconds - self.cpu_seconds.get();
            if 0.0 < grown {
                self.cpu_seconds.inc_by(grown);
            }
            self.virtual_bytes.set(stat.virtual_bytes);
            if let Some(boot) = boot_seconds() {
                self.start_seconds.set(boot + stat.start_seconds_after_boot);
            }
        }
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes);
        }
        if let Some(open) = open_files() {
            self.open_files.set(open);
            self.used_files.set(open);
        }
        if let Some(limit) = limit("Max open files") {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            self.open_files_max.set(limit);
            self.files_limit.set(limit);
        }
        if let Some((received, sent)) = network_bytes() {
            self.received_bytes.inc_by(received.saturating_sub(self.received_bytes.get()));
            self.sent_bytes.inc_by(sent.saturating_sub(self.sent_bytes.get()));
        }
        #[allow(clippy::cast_precision_loss, reason = "a limit of 2^64 is as good as any")]
        let address_space = limit("Max address space").unwrap_or(u64::MAX) as f64;
        self.virtual_bytes_max.set(address_space);
    }
}

/// How many file descriptors this process may have open; `None` if that cannot be read.
pub(crate) fn open_files_max() -> Option<u64> {
    limit("Max open files")
}

/// Bytes of memory in use.
pub(crate) fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// Octets of the Internet protocol in and out.
fn network_bytes() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let names = lines.next()?.split_whitespace();
    let fields: Vec<(&str, &str)> = names.zip(lines.next()?.split_whitespace()).collect();
    let number = |wanted: &str| {
        let (_, text) = fields.iter().find(|(name, _)| *name == wanted)?;
        text.parse().ok()
    };
    Some((number("InOctets")?, number("OutOctets")?))
}

struct Stat {
    cpu_seconds: f64,
    start_seconds_after_boot: f64,
    virtual_bytes: i64,
}

impl Stat {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in parentheses, which may hold spaces.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (number(14)? + number(15)?) / TICKS_PER_SECOND,
            start_seconds_after_boot: number(22)? / TICKS_PER_SECOND,
            virtual_bytes: fields.get(23 - 3)?.parse().ok()?,
        })
    }
}

fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// How many file descriptors this process has open; `None` if that cannot be read.
pub(crate) fn open_files() -> Option<i64> {
    // The directory that is read is one of them.
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    i64::try_from(open).ok()
}

/// A soft limit by its name in `/proc/self/limits`; `None` for no limit.
fn limit(name: &str) -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
