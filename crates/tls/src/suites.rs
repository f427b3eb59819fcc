//! Versions and cipher suites, as a provider that knows no others.
//!
//! Go's names are taken. Suites with CBC, RC4, 3DES or without forward secrecy are not spoken; a
//! list that also has others goes on without them, with a warning.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};

use crate::error::PolicyError;
use crate::settings::{Settings, Version};

/// What both sides may choose from.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    /// The order was given, and is to be kept.
    pub(crate) ordered: bool,
}

impl Choice {
    pub(crate) fn new(settings: &Settings) -> Result<Self, PolicyError> {
        let (min, max) = (settings.version_min, settings.version_max);
        let allowed = |version: Version| {
            min.is_none_or(|min| min <= version) && max.is_none_or(|max| version <= max)
        };
        let mut provider = aws_lc_rs::default_provider();
        let ordered = !settings.cipher_suites.is_empty();
        if ordered {
            provider.cipher_suites = chosen(&settings.cipher_suites);
        }
        let has_old = provider.cipher_suites.iter().any(is_for_tls12);
        let mut versions = Vec::new();
        if allowed(Version::V13) {
            versions.push(&rustls::version::TLS13);
        }
        if allowed(Version::V12) && has_old {
            versions.push(&rustls::version::TLS12);
        }
        if versions.is_empty() {
            return Err(PolicyError::NoSuite { suites: settings.cipher_suites.clone() });
        }
        Ok(Self { provider: Arc::new(provider), versions, ordered })
    }
}

fn is_for_tls12(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_none()
}

/// The suites of TLS 1.3, which nobody chooses, then the named ones.
fn chosen(names: &[String]) -> Vec<SupportedCipherSuite> {
    let known = aws_lc_rs::ALL_CIPHER_SUITES;
    let mut suites: Vec<_> = known.iter().filter(|suite| !is_for_tls12(suite)).copied().collect();
    for name in names {
        let found =
            suite(name).and_then(|wanted| known.iter().find(|suite| suite.suite() == wanted));
        match found {
            Some(found) if !suites.contains(found) => suites.push(*found),
            Some(_) => {}
            None => tracing::warn!(
                "cipher-suite" = name,
                "cipher suite is not spoken: it has CBC, RC4, 3DES or no forward secrecy; going on without it"
            ),
        }
    }
    suites
}

fn suite(name: &str) -> Option<CipherSuite> {
    Some(match name {
        "TLS_AES_128_GCM_SHA256" => CipherSuite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => CipherSuite::TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"
        | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        }
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        }
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(suites: &[&str], min: Version, max: Option<Version>) -> Settings {
        Settings {
            cipher_suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            version_min: Some(min),
            version_max: max,
            ..Settings::default()
        }
    }

    #[test]
    fn versions_and_suites_fit_together() {
        let cbc = "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA";
        let gcm = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        let versions = |suites: &[&str], min, max| {
            Choice::new(&settings(suites, min, max)).map(|choice| choice.versions.len())
        };
        assert_eq!(versions(&[], Version::V12, None).unwrap(), 2);
        assert_eq!(versions(&[], Version::V13, None).unwrap(), 1);
        assert_eq!(versions(&[gcm], Version::V12, Some(Version::V12)).unwrap(), 1);
        // Only TLS 1.3 is left.
        assert_eq!(versions(&[cbc], Version::V12, None).unwrap(), 1);
        assert!(versions(&[cbc], Version::V12, Some(Version::V12)).is_err());
        let choice = Choice::new(&settings(&[cbc, gcm, gcm], Version::V12, None)).unwrap();
        let old = choice.provider.cipher_suites.iter().filter(|suite| is_for_tls12(suite));
        assert_eq!(old.count(), 1);
    }
}
