//! Which process opened a connection, from the kernel's tables (Linux).
//!
//! Members dial one advertised address, whoever they are, and the first request on a connection
//! does not always say who sent it. The socket's owner does.

use std::fs;
use std::net::SocketAddr;

/// The process among `candidates` that holds the other end of a connection: its local address is
/// `from`, its remote one `to`.
pub(crate) fn owner(from: SocketAddr, to: SocketAddr, candidates: &[u32]) -> Option<u32> {
    let wanted = format!("socket:[{}]", socket_number(from, to)?);
    candidates.iter().copied().find(|process| holds(*process, &wanted))
}

/// The inode of a TCP socket.
fn socket_number(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let (local, remote) = (kernel_text(local)?, kernel_text(remote)?);
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let found = words.next()? == local && words.next()? == remote;
        // Behind the addresses: state, queues, timer, retransmissions, user, timeout, inode.
        if found { words.nth(6)?.parse().ok() } else { None }
    })
}

/// As the kernel prints addresses: hexadecimal, the host's byte order.
fn kernel_text(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let number = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{number:08X}:{:04X}", address.port()))
}

fn holds(process: u32, wanted: &str) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    entries
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn this_process_owns_its_connections() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        let own = std::process::id();
        assert_eq!(owner(peer, dialed.peer_addr().unwrap(), &[1, own]), Some(own));
        assert_eq!(owner(peer, dialed.peer_addr().unwrap(), &[]), None);
    }
}
