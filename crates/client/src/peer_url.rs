//! Addresses that members reach each other at.
//!
//! They are checked before they are sent: a member that took a wrong one could not start again.
//!
//! etcd: `client/pkg/types/urls.go`.

/// What is wrong with a peer address. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerUrlError {
    /// Not a URL at all.
    #[error("parse {url:?}: first path segment in URL cannot contain colon")]
    Syntax {
        /// The address.
        url: String,
    },
    /// Another scheme.
    #[error("URL scheme must be http, https, unix, or unixs: {url}")]
    Scheme {
        /// The address.
        url: String,
    },
    /// The port is missing.
    #[error("URL address does not have the form \"host:port\": {url}")]
    HostPort {
        /// The address.
        url: String,
    },
    /// Something follows the port.
    #[error("URL must not contain a path: {url}")]
    Path {
        /// The address.
        url: String,
    },
}

/// Checks every address.
pub(crate) fn check(urls: &[String]) -> Result<(), PeerUrlError> {
    urls.iter().try_for_each(|url| check_one(url.trim()))
}

fn check_one(text: &str) -> Result<(), PeerUrlError> {
    let url = text.to_owned();
    let Some((scheme, rest)) = text.split_once("://") else {
        let is_scheme = |scheme: &str| scheme.starts_with(|first: char| first.is_alphabetic());
        let prefix = text.split_once(':').map(|(prefix, _)| prefix);
        return Err(match prefix {
            Some(prefix) if !is_scheme(prefix) => PeerUrlError::Syntax { url },
            Some(_) | None => PeerUrlError::Scheme { url },
        });
    };
    match scheme {
        "unix" | "unixs" => return Ok(()),
        "http" | "https" => {}
        _ => return Err(PeerUrlError::Scheme { url }),
    }
    let (host, path) = rest.find('/').map_or((rest, ""), |start| rest.split_at(start));
    let has_port = host.rsplit_once(':').is_some_and(|(host, _)| {
        // Only a name in brackets may have colons of its own.
        !host.contains(':') || (host.starts_with('[') && host.ends_with(']'))
    });
    if !has_port {
        return Err(PeerUrlError::HostPort { url });
    }
    if path.is_empty() { Ok(()) } else { Err(PeerUrlError::Path { url }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTL3-61.
    #[test]
    fn addresses_are_a_scheme_a_host_and_a_port() {
        for good in ["http://h:1", "https://[::1]:2", "unix://m0", " http://h:1 "] {
            assert_eq!(check(&[good.to_owned()]), Ok(()), "{good}");
        }
        let error = |url: &str| check(&[url.to_owned()]).unwrap_err().to_string();
        assert_eq!(error("h"), "URL scheme must be http, https, unix, or unixs: h");
        assert_eq!(
            error("1.2.3.4:5"),
            r#"parse "1.2.3.4:5": first path segment in URL cannot contain colon"#
        );
        assert_eq!(
            error("http://h"),
            r#"URL address does not have the form "host:port": http://h"#
        );
        assert_eq!(error("http://h:1/p"), "URL must not contain a path: http://h:1/p");
    }
}
