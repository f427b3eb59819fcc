//! Addresses of host names, from the operating system.

use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// How long a name may be unknown: where containers are started together, names come up late.
const RESOLVE_MAX: Duration = Duration::from_secs(30);

/// Between two attempts to resolve a name.
const RESOLVE_PAUSE: Duration = Duration::from_secs(1);

/// Asks the operating system for the addresses of a host, for up to 30 seconds. Blocks its thread.
#[must_use]
pub fn resolve_host(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let began = Instant::now();
    let mut told = String::new();
    loop {
        let error = match (host, port).to_socket_addrs() {
            Ok(addresses) => return Some(addresses.collect()),
            Err(error) => error.to_string(),
        };
        if told != error {
            tracing::warn!(host, error, "failed to resolve URL Host; trying again");
            told = error;
        }
        if RESOLVE_MAX <= began.elapsed() {
            return None;
        }
        thread::sleep(RESOLVE_PAUSE);
    }
}
