//! URLs at which a member listens or is reached: http, https, unix and unixs.
//!
//! Checked once, when read: a [`MemberUrl`] always has a form the listeners and the cluster
//! understand. Not a general URL: no path, query or user on http and https.
//! Source: etcd client/pkg/types/urls.go (rules and texts), Go's net/url (texts of parse errors).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::quote::quote;

/// What is spoken at a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain, over TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// Plain, over a Unix socket.
    Unix,
    /// TLS over a Unix socket.
    Unixs,
}

impl Scheme {
    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }

    /// As written before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }
}

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A host name or IP address without brackets, possibly empty, and a port, 0 meaning "any".
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A socket file. Relative to the working directory unless it starts with a slash:
    /// `unix://localhost:2379` is the file `localhost:2379`.
    Unix(PathBuf),
}

/// A checked URL. Ordered and compared by its text, as etcd sorts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberUrl {
    text: String,
    scheme: Scheme,
    address: Address,
}

/// Why a text is no member URL, in etcd's and Go's wording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither http, https, unix nor unixs.
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    /// http or https without a port.
    #[error("URL address does not have the form \"host:port\": {0}")]
    HostPort(String),
    /// http or https with something behind the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
    /// Not a URL at all.
    #[error("parse {}: {why}", quote(.text))]
    Parse {
        /// The whole text.
        text: String,
        /// What is wrong, in Go's words.
        why: String,
    },
}

impl MemberUrl {
    /// Reads one URL; blanks around it are dropped.
    ///
    /// # Errors
    ///
    /// [`UrlError`] naming the text.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let fail = |why: &str| UrlError::Parse { text: text.to_owned(), why: why.to_owned() };
        if text.starts_with(':') {
            return Err(fail("missing protocol scheme"));
        }
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(fail("net/url: invalid control character in URL"));
        }
        if let Some(escape) = wrong_escape(text) {
            return Err(fail(&format!("invalid URL escape {}", quote(escape))));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(UrlError::Scheme(text.to_owned()));
        };
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(fail("first path segment in URL cannot contain colon"));
        }
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(UrlError::Scheme(text.to_owned())),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        check_authority(authority).map_err(|why| fail(&why))?;
        let address = match scheme {
            Scheme::Http | Scheme::Https => tcp_address(text, authority, path)?,
            Scheme::Unix | Scheme::Unixs => {
                Address::Unix(PathBuf::from(format!("{authority}{path}")))
            }
        };
        Ok(Self { text: format!("{}:{rest}", scheme.as_str()), scheme, address })
    }

    /// Reads a list separated by commas; the result is sorted and has no URL twice.
    ///
    /// # Errors
    ///
    /// [`UrlError`] of the first URL that is wrong.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        let mut urls = text.split(',').map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// The same URL with another host.
    #[must_use]
    pub fn with_host(&self, host: &str, port: u16) -> Self {
        let host_text = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self {
            text: format!("{}://{host_text}:{port}", self.scheme.as_str()),
            scheme: self.scheme,
            address: Address::Tcp { host: host.to_owned(), port },
        }
    }

    /// The text, in the form every member hashes and compares.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What is spoken there.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The TCP address to bind; `localhost` is the IPv4 loopback, as Go prefers it.
    /// `None` for Unix sockets and for hosts that are not IP addresses, which
    /// validation refuses for listeners.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        let Address::Tcp { host, port } = &self.address else {
            return None;
        };
        let ip = if host == "localhost" {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            host.parse().ok()?
        };
        Some(SocketAddr::new(ip, *port))
    }
}

impl fmt::Display for MemberUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The texts of URLs joined by commas.
#[must_use]
pub fn join_urls(urls: &[MemberUrl]) -> String {
    urls.iter().map(MemberUrl::as_str).collect::<Vec<_>>().join(",")
}

fn tcp_address(text: &str, authority: &str, path: &str) -> Result<Address, UrlError> {
    let host_port = || UrlError::HostPort(text.to_owned());
    let (host, port) = authority.rsplit_once(':').ok_or_else(host_port)?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']').ok_or_else(host_port)?,
        // Without brackets a second colon leaves it open where the port begins.
        None if host.contains(':') => return Err(host_port()),
        None => host,
    };
    if !path.is_empty() {
        return Err(UrlError::Path(text.to_owned()));
    }
    let port = match port {
        "" => 0,
        digits => digits.parse().map_err(|_| UrlError::Parse {
            text: text.to_owned(),
            why: format!("port {} is above 65535", quote(digits)),
        })?,
    };
    Ok(Address::Tcp { host: host.to_owned(), port })
}

/// The first `%` that two hex digits do not follow, with the two characters after it.
fn wrong_escape(text: &str) -> Option<&str> {
    let is_hex =
        |escape: &str| escape.len() == 3 && escape[1..].chars().all(|c| c.is_ascii_hexdigit());
    text.match_indices('%')
        .map(|(start, _)| text.get(start..start + 3).unwrap_or_else(|| &text[start..]))
        .find(|escape| !is_hex(escape))
}

/// What Go's URL parser checks of `host:port`.
fn check_authority(authority: &str) -> Result<(), String> {
    if authority.contains('@') {
        return Err("user information is not accepted here".to_owned());
    }
    let port = if authority.starts_with('[') {
        let Some(end) = authority.rfind(']') else {
            return Err("missing ']' in host".to_owned());
        };
        &authority[end + 1..]
    } else {
        authority.rfind(':').map_or("", |colon| &authority[colon..])
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !digits.chars().all(|c| c.is_ascii_digit()) || (!port.is_empty() && !port.starts_with(':')) {
        return Err(format!("invalid port {} after host", quote(port)));
    }
    match authority.chars().find(|c| c.is_ascii() && !may_stand_in_host(*c)) {
        Some(wrong) => Err(format!("invalid character {} in host name", quote(&wrong.to_string()))),
        None => Ok(()),
    }
}

fn may_stand_in_host(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B2 and the texts measured on etcd 3.5.30.
    #[test]
    fn wrong_urls_are_refused_in_the_known_words() {
        for (text, error) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("ftp://a:1", "URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            ("http://foo", "URL address does not have the form \"host:port\": http://foo"),
            ("http://a:1/p", "URL must not contain a path: http://a:1/p"),
            ("http://a b:1", "parse \"http://a b:1\": invalid character \" \" in host name"),
            (
                "http://127.0.0.1:abc",
                "parse \"http://127.0.0.1:abc\": invalid port \":abc\" after host",
            ),
            ("http://[::1:22", "parse \"http://[::1:22\": missing ']' in host"),
            (
                "127.0.0.1:1",
                "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon",
            ),
            ("http://%zz:1", "parse \"http://%zz:1\": invalid URL escape \"%zz\""),
            (":foo", "parse \":foo\": missing protocol scheme"),
        ] {
            assert_eq!(MemberUrl::parse(text).unwrap_err().to_string(), error);
        }
    }

    /// SRV-152: the file of a Unix socket.
    #[test]
    fn unix_urls_name_a_file() {
        for (text, file) in [
            ("unix://localhost:2379", "localhost:2379"),
            ("unixs:///run/etcd.sock", "/run/etcd.sock"),
            ("unix:/run/etcd.sock", "/run/etcd.sock"),
            ("unix://run/etcd:1", "run/etcd:1"),
        ] {
            let url = MemberUrl::parse(text).unwrap();
            assert_eq!(*url.address(), Address::Unix(PathBuf::from(file)));
            assert_eq!(url.as_str(), text);
            assert_eq!(url.socket_address(), None);
        }
    }

    #[test]
    fn lists_are_sorted_and_unique() {
        let urls = MemberUrl::parse_list("http://b:1, http://a:1,http://b:1").unwrap();
        assert_eq!(join_urls(&urls), "http://a:1,http://b:1");
    }

    #[test]
    fn tcp_urls_resolve_to_socket_addresses() {
        for (text, address) in [
            ("http://localhost:2379", Some("127.0.0.1:2379")),
            ("http://[::1]:22", Some("[::1]:22")),
            ("https://10.0.0.1:0", Some("10.0.0.1:0")),
            ("http://host:1", None),
        ] {
            let url = MemberUrl::parse(text).unwrap();
            assert_eq!(url.socket_address(), address.map(|text| text.parse().unwrap()));
        }
        let url = MemberUrl::parse("HTTP://localhost:1").unwrap();
        assert_eq!(url.with_host("10.1.1.1", 5).as_str(), "http://10.1.1.1:5");
    }
}
