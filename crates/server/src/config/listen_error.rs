//! An address that cannot be listened on, in the words Go's programs use.

use std::io;

use base::member_url::{Address, MemberUrl};

/// Binding a listener failed. B15, SRV-037.
#[derive(Debug, thiserror::Error)]
#[error("listen {network} {address}: bind: {why}")]
pub struct ListenError {
    /// `tcp` or `unix`.
    network: &'static str,
    address: String,
    /// The system's answer in Go's words.
    why: String,
    /// The flag the address came from, without dashes.
    flag: &'static str,
    kind: io::ErrorKind,
}

impl ListenError {
    /// From the system's answer to binding `url`, which `flag` gave.
    #[must_use]
    pub fn new(flag: &'static str, url: &MemberUrl, answer: &io::Error) -> Self {
        let network = match url.address() {
            Address::Tcp { .. } => "tcp",
            Address::Unix(_) => "unix",
        };
        let address = match (url.socket_address(), url.address()) {
            (Some(address), _) => address.to_string(),
            (None, Address::Tcp { host, port }) => format!("{host}:{port}"),
            (None, Address::Unix(path)) => path.display().to_string(),
        };
        // Rust's text begins with a capital and ends with the number of the error.
        let text = answer.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        Self { network, address, why: text.to_lowercase(), flag, kind: answer.kind() }
    }

    /// How to put it right, as one line.
    #[must_use]
    pub fn remedy(&self) -> String {
        let flag = self.flag;
        let address = &self.address;
        // Only these three have a known cause.
        if self.kind == io::ErrorKind::AddrInUse {
            format!("stop what listens on {address}, or set --{flag} to another port")
        } else if self.kind == io::ErrorKind::AddrNotAvailable {
            format!("set --{flag} to an address of this machine")
        } else if self.kind == io::ErrorKind::PermissionDenied {
            format!("set --{flag} to a port above 1023, or to a path this user may write")
        } else {
            format!("correct --{flag}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B15, SRV-037.
    #[test]
    fn an_address_in_use_is_named_with_its_flag() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let url = MemberUrl::parse(&format!("http://{address}")).unwrap();
        let answer = std::net::TcpListener::bind(address).unwrap_err();
        let error = ListenError::new("listen-peer-urls", &url, &answer);
        assert_eq!(
            error.to_string(),
            format!("listen tcp {address}: bind: address already in use")
        );
        assert!(error.remedy().contains("--listen-peer-urls"));
    }
}
