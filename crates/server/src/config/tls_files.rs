//! Certificate files looked at before anything listens. B13, B19.
//!
//! Only whether they can be read and hold what their flag says: what is inside a certificate is
//! checked where it is used. Files of listeners without TLS are not needed and not looked at.

use std::fs;
use std::path::PathBuf;

use super::model::{Config, TransportSecurity};
use super::refusal::Refusal;
use base::member_url::MemberUrl;

/// What a PEM file should hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Certificate,
    Key,
    RevocationList,
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
            Self::RevocationList => "revocation list",
        }
    }

    /// How the section's head ends.
    fn head(self) -> &'static str {
        match self {
            Self::Certificate => "BEGIN CERTIFICATE-----",
            Self::Key => "PRIVATE KEY-----",
            Self::RevocationList => "BEGIN X509 CRL-----",
        }
    }
}

/// Looks at every certificate, key and revocation list that a TLS listener needs.
///
/// # Errors
///
/// [`Refusal::UnreadableFile`], [`Refusal::WrongPem`] and [`Refusal::EncryptedKey`].
pub fn check_tls_files(config: &Config) -> Result<(), Refusal> {
    let listen = &config.listen;
    let is_tls = |urls: &[MemberUrl]| urls.iter().any(|url| url.scheme().is_tls());
    if is_tls(&listen.clients) || is_tls(&listen.clients_http) || is_tls(&listen.metrics) {
        check("", &config.tls.client)?;
    }
    if is_tls(&listen.peers) || is_tls(&config.advertise.peers) {
        check("peer-", &config.tls.peer)?;
    }
    Ok(())
}

fn check(role: &str, files: &TransportSecurity) -> Result<(), Refusal> {
    let crl_flag = if role.is_empty() { "client-crl-file" } else { "peer-crl-file" };
    let flag = |name: &'static str| {
        let full = format!("{role}{name}");
        super::flags::find(&full).map_or(name, |flag| flag.name)
    };
    check_file(flag("cert-file"), files.cert_file.as_ref(), Wanted::Certificate)?;
    check_file(flag("key-file"), files.key_file.as_ref(), Wanted::Key)?;
    check_file(flag("client-cert-file"), files.client_cert_file.as_ref(), Wanted::Certificate)?;
    check_file(flag("client-key-file"), files.client_key_file.as_ref(), Wanted::Key)?;
    check_file(flag("trusted-ca-file"), files.trusted_ca_file.as_ref(), Wanted::Certificate)?;
    // etcd also takes a revocation list in binary form, which has no head to look for.
    let crl = files.crl_file.as_ref();
    if crl.is_some_and(|path| fs::read(path).is_ok_and(|bytes| !bytes.starts_with(b"-----"))) {
        return Ok(());
    }
    check_file(crl_flag, crl, Wanted::RevocationList)
}

fn check_file(flag: &'static str, path: Option<&PathBuf>, wanted: Wanted) -> Result<(), Refusal> {
    let Some(path) = path else {
        return Ok(());
    };
    let bytes = fs::read(path).map_err(|source| Refusal::UnreadableFile {
        flag,
        path: path.clone(),
        source,
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let is_encrypted = text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("4,ENCRYPTED");
    if wanted == Wanted::Key && is_encrypted {
        return Err(Refusal::EncryptedKey { flag, path: path.clone() });
    }
    if !text.contains(wanted.head()) {
        let wanted = wanted.name();
        return Err(Refusal::WrongPem { flag, path: path.clone(), wanted });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(files: TransportSecurity) -> String {
        check("peer-", &files).unwrap_err().to_string()
    }

    /// B13, B19.
    #[test]
    fn files_are_read_and_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let cert = || file("cert.pem", "-----BEGIN CERTIFICATE-----\n");
        let key = || file("key.pem", "-----BEGIN EC PRIVATE KEY-----\n");
        let good = TransportSecurity {
            cert_file: cert(),
            key_file: key(),
            crl_file: file("crl.der", "\u{30}\u{1}"),
            ..TransportSecurity::default()
        };
        assert!(check("", &good).is_ok());
        let missing =
            TransportSecurity { trusted_ca_file: Some(folder.path().join("nope")), ..good.clone() };
        assert!(refused(missing).starts_with("cannot read --peer-trusted-ca-file "));
        let swapped = TransportSecurity { cert_file: key(), ..good.clone() };
        assert!(refused(swapped).ends_with("key.pem holds no certificate"));
        let encrypted = file("secret.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
        let encrypted = TransportSecurity { key_file: encrypted, ..good };
        assert!(refused(encrypted).ends_with("secret.pem is encrypted"));
    }
}
