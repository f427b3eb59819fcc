//! Whether a client connects from where its certificate says that it is. CB-72.
//!
//! Source: etcd client/pkg/transport/listener_tls.go (checkCertSAN).

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use crate::identity::Identity;

/// Who knows the names of an address.
pub trait ReverseLookup: std::fmt::Debug + Send + Sync {
    /// Every name of `address`.
    fn names_of(
        &self,
        address: IpAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<String>>> + Send + '_>>;
}

/// A client that is somewhere else, in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Elsewhere {
    /// It has only addresses.
    #[error("x509: certificate is valid for {valid}, not {remote}")]
    Address {
        /// The addresses.
        valid: String,
        /// Where it is.
        remote: IpAddr,
    },
    /// It has names.
    #[error("tls: {remote:?} does not match any of DNSNames [{names}]{why}", remote = .remote.to_string())]
    Names {
        /// Where it is.
        remote: IpAddr,
        /// The names, quoted.
        names: String,
        /// What the last look-up said, in brackets.
        why: String,
    },
}

/// Compares addresses, then the names of `remote`, then the addresses of names. A certificate
/// without either may be used anywhere.
pub(crate) async fn check(
    identity: &Identity,
    remote: IpAddr,
    reverse: Option<&dyn ReverseLookup>,
) -> Result<(), Elsewhere> {
    let remote = remote.to_canonical();
    if identity.ip_addresses.is_empty() && identity.dns_names.is_empty() {
        return Ok(());
    }
    if identity.ip_addresses.iter().any(|address| address.to_canonical() == remote) {
        return Ok(());
    }
    if identity.dns_names.is_empty() {
        let valid: Vec<_> = identity.ip_addresses.iter().map(ToString::to_string).collect();
        return Err(Elsewhere::Address { valid: valid.join(", "), remote });
    }
    match look_up(&identity.dns_names, remote, reverse).await {
        Ok(true) => Ok(()),
        answer => {
            let names: Vec<_> = identity.dns_names.iter().map(|name| format!("{name:?}")).collect();
            let why = answer.err().map_or_else(String::new, |error| format!(" ({error})"));
            Err(Elsewhere::Names { remote, names: names.join(" "), why })
        }
    }
}

/// Whether `remote` has one of the names; an error says what the last look-up failed with.
async fn look_up(
    names: &[String],
    remote: IpAddr,
    reverse: Option<&dyn ReverseLookup>,
) -> io::Result<bool> {
    let mut answer = Ok(false);
    if let Some(reverse) = reverse {
        match reverse.names_of(remote).await {
            Ok(found) => {
                if found.iter().any(|found| is_one_of(found.trim_end_matches('.'), names)) {
                    return Ok(true);
                }
            }
            Err(error) => answer = Err(error),
        }
    }
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        match tokio::net::lookup_host((name.as_str(), 0)).await {
            Ok(mut found) => {
                if found.any(|found| found.ip().to_canonical() == remote) {
                    return Ok(true);
                }
            }
            Err(error) => answer = Err(error),
        }
    }
    answer
}

fn is_one_of(found: &str, names: &[String]) -> bool {
    names.iter().any(|name| match name.strip_prefix('*') {
        Some(end) if end.starts_with('.') => found.ends_with(end),
        Some(_) | None => found == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Zone(&'static [&'static str]);

    impl ReverseLookup for Zone {
        fn names_of(
            &self,
            _address: IpAddr,
        ) -> Pin<Box<dyn Future<Output = io::Result<Vec<String>>> + Send + '_>> {
            let names = self.0.iter().map(|name| (*name).to_owned()).collect();
            Box::pin(async { Ok(names) })
        }
    }

    fn identity(addresses: &[&str], names: &[&str]) -> Identity {
        Identity {
            ip_addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Identity::default()
        }
    }

    /// CB-72.
    #[tokio::test]
    async fn a_client_is_where_its_certificate_says() {
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let zone = Zone(&["m1.example.test."]);
        let cases: [(&[&str], &[&str], bool); 8] = [
            (&[], &[], true),
            (&["127.0.0.1"], &[], true),
            (&["::ffff:127.0.0.1"], &[], true),
            (&["10.0.0.9"], &[], false),
            (&["10.0.0.9"], &["m1.example.test"], true),
            (&[], &["*.example.test"], true),
            (&[], &["example.test", "*.test.example"], false),
            (&[], &["localhost"], true),
        ];
        for (addresses, names, fits) in cases {
            let checked = check(&identity(addresses, names), here, Some(&zone)).await;
            assert_eq!(checked.is_ok(), fits, "{addresses:?} {names:?}: {checked:?}");
        }
        let refused = check(&identity(&["10.0.0.9"], &[]), here, None).await.unwrap_err();
        assert_eq!(refused.to_string(), "x509: certificate is valid for 10.0.0.9, not 127.0.0.1");
    }
}
