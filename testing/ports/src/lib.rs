//! Ports for the servers that tests start: each number is given once in a long while, whichever
//! processes ask, so that two tests never start servers on the same.
//!
//! A port that the system chose (port 0) and that was let go again belongs to whoever is next: the
//! system gives it to another listener or to an outgoing connection while the server it was meant
//! for still starts. The ports here lie below those that the system gives away, and a file in the
//! system's folder for temporary files counts which one is next.

use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::Path;

/// The lowest port that is given.
const LOWEST: u16 = 11_000;

/// Ends the ports that are given where the system does not say which ones it gives itself.
const HIGHEST: u16 = 32_000;

/// Fewer ports go round too fast to be given once.
const COUNT_MIN: u16 = 1_000;

/// A port on which nothing listens and which nobody was given recently.
///
/// # Errors
///
/// All ports are in use.
pub fn free() -> io::Result<u16> {
    Ok(listener()?.local_addr()?.port())
}

/// As [`free`], as the address of this machine that only its own processes reach.
///
/// # Errors
///
/// As [`free`].
pub fn free_address() -> io::Result<SocketAddr> {
    listener()?.local_addr()
}

/// As [`free_address`], as a URL of plain HTTP.
///
/// # Errors
///
/// As [`free`].
pub fn free_url() -> io::Result<String> {
    Ok(format!("http://{}", free_address()?))
}

/// As [`free_address`], and listens there already.
///
/// # Errors
///
/// As [`free`].
pub fn listener() -> io::Result<TcpListener> {
    let ports = given(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range"));
    listener_among(&ports, &std::env::temp_dir())
}

fn listener_among(ports: &Range<u16>, folder: &Path) -> io::Result<TcpListener> {
    for _ in ports.clone() {
        let port = next(folder, ports);
        // Whoever listens on all addresses holds the port as well.
        let is_free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        if is_free && let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// The ports below those that the system says it gives to outgoing connections.
fn given(system: &io::Result<String>) -> Range<u16> {
    let lowest = system.as_ref().ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
    let end = lowest.map_or(HIGHEST, |lowest: u16| lowest.min(HIGHEST));
    // A system that gives nearly all leaves no better choice.
    if end < LOWEST + COUNT_MIN { LOWEST..HIGHEST } else { LOWEST..end }
}

/// The next number of the counter in `folder`; a random one if there can be no counter.
fn next(folder: &Path, ports: &Range<u16>) -> u16 {
    let counted = count(&folder.join(format!("retcd-ports-{}", user())), ports);
    counted.unwrap_or_else(|_| random(ports))
}

/// Takes the number behind the one in the file, which is written as text and a line's end.
fn count(path: &Path, ports: &Range<u16>) -> io::Result<u16> {
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    // Released as the file is closed, also by the end of a process.
    file.lock()?;
    let mut text = String::new();
    // What is no text is no number.
    let read = file.read_to_string(&mut text);
    let last = read.ok().and_then(|_| text.trim_end().parse::<u16>().ok());
    let port = match last.filter(|last| ports.contains(last)) {
        Some(last) if last + 1 < ports.end => last + 1,
        Some(_) => ports.start,
        None => random(ports),
    };
    file.rewind()?;
    file.set_len(0)?;
    writeln!(file, "{port}")?;
    Ok(port)
}

fn random(ports: &Range<u16>) -> u16 {
    let chance = std::hash::RandomState::new().build_hasher().finish();
    let offset = chance % u64::from(ports.end - ports.start);
    ports.start + u16::try_from(offset).expect("less than a port")
}

/// Another user's file may not be writable.
fn user() -> String {
    #[cfg(unix)]
    if let Ok(own) = fs::metadata("/proc/self") {
        return std::os::unix::fs::MetadataExt::uid(&own).to_string();
    }
    std::env::var("USER").unwrap_or_else(|_| "nobody".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A folder of the test's own, gone with this value.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("retcd-ports-test-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // What is left is the system's to remove.
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn many_who_ask_at_once_are_given_different_ports() {
        let ask = || (0..50).map(|_| free().unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(ask)).collect();
        let given = threads.into_iter().flat_map(|thread| thread.join().unwrap());
        let given: BTreeSet<u16> = given.collect();
        assert_eq!(given.len(), 400);
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let folder = Folder::new("taken");
        for host in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            let taken = free().unwrap();
            let held = TcpListener::bind((host, taken)).unwrap();
            let error = listener_among(&(taken..taken + 1), &folder.0).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            drop(held);
        }
    }

    #[test]
    fn the_counter_goes_round_and_survives_what_it_cannot_read() {
        let folder = Folder::new("counter");
        let (path, ports) = (folder.0.join("counter"), 20..23);
        let first = count(&path, &ports).unwrap();
        assert!(ports.contains(&first));
        fs::write(&path, "21\n").unwrap();
        let counted: Vec<u16> = (0..4).map(|_| count(&path, &ports).unwrap()).collect();
        assert_eq!(counted, [22, 20, 21, 22]);
        for unreadable in [&b"99999999999"[..], b"", b"\xff\xfe", b"7\n", b"one"] {
            fs::write(&path, unreadable).unwrap();
            assert!(ports.contains(&count(&path, &ports).unwrap()));
        }
        assert!(ports.contains(&next(&folder.0.join("missing"), &ports)));
    }

    #[test]
    fn ports_lie_below_those_of_the_system() {
        let range = |text: &str| given(&Ok(text.to_owned()));
        assert_eq!(range("32768\t60999\n"), 11_000..32_000);
        assert_eq!(range("20000 60999"), 11_000..20_000);
        assert_eq!(range("1024 65535"), 11_000..32_000);
        assert_eq!(range("nonsense"), 11_000..32_000);
        assert_eq!(given(&Err(io::ErrorKind::NotFound.into())), 11_000..32_000);
    }
}
