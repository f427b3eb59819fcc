//! Where a member listens, as users write it.
//!
//! etcd: `client/v3/internal/endpoint/endpoint.go`.

use std::path::PathBuf;

/// The parsed form of `host:port`, `http://host:port`, `https://…`, `unix://path`, `unixs://path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As it was written: what results are labelled with.
    pub text: String,
    /// What to connect to.
    pub address: Address,
    /// Whether with TLS.
    pub security: Security,
}

/// What a scheme says about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// `https`, `unixs`.
    Always,
    /// `http`, whatever the options say.
    Never,
    /// `unix` or no scheme: if the options ask for TLS.
    IfAsked,
}

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host and port.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// An endpoint that names nothing to connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {text:?} names no address")]
pub struct EndpointError {
    /// As it was written.
    pub text: String,
}

impl Endpoint {
    /// Reads what a user wrote.
    ///
    /// # Errors
    ///
    /// Nothing is left behind the scheme.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError { text: text.to_owned() };
        let (scheme, rest) = split_scheme(text);
        let security = match scheme {
            "https" | "unixs" => Security::Always,
            "http" => Security::Never,
            _ => Security::IfAsked,
        };
        let address = match scheme {
            "unix" | "unixs" if rest.is_empty() => return Err(error()),
            "unix" | "unixs" => Address::Unix(PathBuf::from(rest)),
            "http" | "https" | "" => {
                let host = rest.split('/').next().unwrap_or_default();
                if host.is_empty() {
                    return Err(error());
                }
                Address::Tcp(host.to_owned())
            }
            _ => return Err(error()),
        };
        Ok(Self { text: text.to_owned(), address, security })
    }

    /// The name that a server's certificate must carry: the host, or a socket's file name; what
    /// follows a colon is a port.
    pub(crate) fn server_name(&self) -> String {
        let name = match &self.address {
            Address::Tcp(host) => host.clone(),
            Address::Unix(path) => {
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
        };
        match name.rsplit_once(':') {
            // More colons are those of an address without brackets and without port.
            Some((host, _)) if !host.contains(':') || host.ends_with(']') => host.to_owned(),
            Some(_) | None => name,
        }
    }

    /// The authority that requests carry.
    pub(crate) fn authority(&self) -> &str {
        match &self.address {
            Address::Tcp(host) => host,
            Address::Unix(_) => "localhost",
        }
    }
}

/// `unix:path` without slashes is a path as well; everything else needs `://` to have a scheme.
fn split_scheme(text: &str) -> (&str, &str) {
    if let Some((scheme, rest)) = text.split_once("://") {
        return (scheme, rest);
    }
    for scheme in ["unix", "unixs"] {
        if let Some(rest) = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(':')) {
            return (scheme, rest);
        }
    }
    ("", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> (Address, Security) {
        let endpoint = Endpoint::parse(text).unwrap();
        (endpoint.address, endpoint.security)
    }

    /// CTL3-06.
    #[test]
    fn schemes_are_optional() {
        let tcp = Address::Tcp("127.0.0.1:2379".to_owned());
        assert_eq!(address("127.0.0.1:2379"), (tcp.clone(), Security::IfAsked));
        assert_eq!(address("http://127.0.0.1:2379"), (tcp.clone(), Security::Never));
        assert_eq!(address("https://127.0.0.1:2379/"), (tcp, Security::Always));
    }

    /// CTL3-06.
    #[test]
    fn unix_sockets_are_relative_or_absolute() {
        assert_eq!(address("unix:///run/s"), (Address::Unix("/run/s".into()), Security::IfAsked));
        assert_eq!(address("unix://m0:1"), (Address::Unix("m0:1".into()), Security::IfAsked));
        assert_eq!(address("unix:m0"), (Address::Unix("m0".into()), Security::IfAsked));
        assert_eq!(address("unixs:///run/s"), (Address::Unix("/run/s".into()), Security::Always));
    }

    #[test]
    fn a_servers_name_has_no_port() {
        for (text, name) in [
            ("https://localhost:2379", "localhost"),
            ("https://host", "host"),
            ("https://[::1]:2379", "[::1]"),
            ("unixs:///run/localhost:1", "localhost"),
            ("unixs://m0", "m0"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().server_name(), name);
        }
    }

    #[test]
    fn empty_addresses_are_errors() {
        for text in ["", "http://", "unix://", "ftp://x"] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
