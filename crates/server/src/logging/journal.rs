//! The systemd journal, by its native protocol: one datagram of `NAME=value` lines per entry.

use std::io;
use std::os::unix::net::UnixDatagram;

use super::Level;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A way to the journal.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    pub(super) fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self(socket))
    }

    pub(super) fn send(&self, level: Level, line: &str) -> io::Result<()> {
        self.0.send(entry(level, line.trim_end()).as_bytes()).map(|_| ())
    }
}

/// A line of ours never holds a line end, so that the short form of a field is enough.
fn entry(level: Level, line: &str) -> String {
    let priority = match level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warn => 4,
        Level::Error => 3,
        Level::Panic | Level::Fatal => 2,
    };
    let message = line.replace('\n', " ");
    format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=etcd\nMESSAGE={message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_priority_and_message() {
        assert_eq!(entry(Level::Warn, "a\nb"), "PRIORITY=4\nSYSLOG_IDENTIFIER=etcd\nMESSAGE=a b\n");
    }
}
