//! Certificates for tests: an authority, what it signs, and what it takes back.
//!
//! Everything is made anew in each test, in memory; [`Pair::write`] and [`write`] make files of it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// Who signs.
#[derive(Debug)]
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: String,
}

/// What a certificate is made of.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The common name, if any.
    pub common_name: Option<String>,
    /// Addresses and names it speaks for.
    pub hosts: Vec<String>,
    /// The serial number.
    pub serial: u64,
    /// What it may be used for.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// Days from now to when it begins to be valid.
    pub from_days: i64,
    /// Days from now to when it ends to be valid.
    pub until_days: i64,
    /// It is an authority itself.
    pub is_authority: bool,
}

/// A certificate and its key as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Holder {
    /// One that is valid now, for both sides of a connection.
    #[must_use]
    pub fn new(common_name: &str, hosts: &[&str]) -> Self {
        Self {
            common_name: Some(common_name.to_owned()),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            serial: 1,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            from_days: -1,
            until_days: 30,
            is_authority: false,
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::days(self.from_days);
        params.not_after = now + Duration::days(self.until_days);
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &self.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.subject_alt_names = self.hosts.iter().map(|host| san(host)).collect();
        params.extended_key_usages = self.usages.clone();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        if self.is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages.extend([KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
        }
        params
    }

    /// Signed by itself.
    ///
    /// # Panics
    ///
    /// No key can be made.
    #[must_use]
    pub fn self_signed(&self) -> Pair {
        let key = key();
        let certificate = self.params().self_signed(&key).expect("its own key signs");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn san(host: &str) -> SanType {
    match host.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(host.try_into().expect("a host name is ASCII")),
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("the kind of key is known")
}

impl Authority {
    /// One that is valid now.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with_validity(name, -1, 30)
    }

    /// One that is valid between some days from now.
    ///
    /// # Panics
    ///
    /// No key can be made.
    #[must_use]
    pub fn with_validity(name: &str, from_days: i64, until_days: i64) -> Self {
        let mut holder = Holder::new(name, &[]);
        holder.usages = Vec::new();
        (holder.from_days, holder.until_days, holder.is_authority) = (from_days, until_days, true);
        let (params, key) = (holder.params(), key());
        let certificate = params.self_signed(&key).expect("its own key signs").pem();
        Self { params, key, certificate }
    }

    /// Its certificate as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a new certificate.
    ///
    /// # Panics
    ///
    /// No key can be made.
    #[must_use]
    pub fn issue(&self, holder: &Holder) -> Pair {
        let key = key();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let signed = holder.params().signed_by(&key, &issuer).expect("the authority signs");
        Pair { certificate: signed.pem(), key: key.serialize_pem() }
    }

    /// A list of revoked serial numbers as PEM.
    ///
    /// # Panics
    ///
    /// The authority cannot sign it.
    #[must_use]
    pub fn revocation_list(&self, serials: &[u64]) -> String {
        let list = self.list(serials);
        list.pem().expect("a list is PEM")
    }

    /// The same in binary form, which is the only one that etcd reads.
    #[must_use]
    pub fn revocation_list_der(&self, serials: &[u64]) -> Vec<u8> {
        self.list(serials).der().to_vec()
    }

    fn list(&self, serials: &[u64]) -> rcgen::CertificateRevocationList {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(30),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(&issuer).expect("the authority signs")
    }
}

impl Pair {
    /// Writes `NAME.pem` and `NAME-key.pem` into a folder.
    ///
    /// # Panics
    ///
    /// The folder cannot be written.
    #[must_use]
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let certificate = write(folder, &format!("{name}.pem"), &self.certificate);
        let key = write(folder, &format!("{name}-key.pem"), &self.key);
        (certificate, key)
    }
}

/// Writes a file, as one that is moved into place.
///
/// # Panics
///
/// The folder cannot be written.
pub fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    let new = folder.join(format!("{name}.new"));
    fs::write(&new, content).expect("the folder of a test can be written");
    fs::rename(&new, &path).expect("the folder of a test can be written");
    path
}
