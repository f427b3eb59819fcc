//! Why a policy cannot be made: which file, and what is wrong with it. B13, B19.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A listener's certificate.
    Certificate,
    /// A listener's key.
    Key,
    /// A dialer's certificate.
    ClientCertificate,
    /// A dialer's key.
    ClientKey,
    /// Trusted authorities.
    Authorities,
    /// Revoked certificates.
    Revocations,
}

impl fmt::Display for FileKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::ClientCertificate => "client certificate",
            Self::ClientKey => "client key",
            Self::Authorities => "authorities",
            Self::Revocations => "revocation list",
        })
    }
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {kind} file {}", .path.display())]
pub struct FileError {
    /// What it is for.
    pub kind: FileKind,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: FileProblem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// The system does not give it.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Nobody needs so much.
    #[error("it has more than {max} bytes")]
    TooLong {
        /// The most that is read.
        max: u64,
    },
    /// Text that begins like PEM and goes on otherwise.
    #[error("its PEM is broken: {0}")]
    Pem(String),
    /// It holds other things.
    #[error("it holds no {wanted}")]
    Missing {
        /// What it should hold.
        wanted: &'static str,
    },
    /// A key that only a password opens.
    #[error("the key is encrypted; store it without password")]
    Encrypted,
    /// A certificate or list that cannot be decoded.
    #[error("{what} number {number} in it cannot be decoded: {why}")]
    Malformed {
        /// `certificate` or `revocation list`.
        what: &'static str,
        /// From 1.
        number: usize,
        /// The decoder's answer.
        why: String,
    },
    /// A key of a kind that is not known.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// Certificate and key belong to different pairs.
    #[error("tls: private key does not match public key of {}", .certificate.display())]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
    },
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A listener needs both.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfPair {
        /// The key's file as given.
        key: String,
        /// The certificate's file as given.
        cert: String,
    },
    /// A dialer's own pair is only half.
    #[error(
        "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]"
    )]
    HalfClientPair {
        /// The key's file as given.
        key: String,
        /// The certificate's file as given.
        cert: String,
    },
    /// No suite and no version that both sides could use is left.
    #[error("no TLS cipher suite of {} can be used with TLS 1.2, and TLS 1.3 is not allowed", .suites.join(","))]
    NoSuite {
        /// As configured.
        suites: Vec<String>,
    },
    /// The system has no file with authorities.
    #[error(
        "no authorities to trust: none are given, and the system has none where they usually are"
    )]
    NoAuthorities,
    /// The library refuses the combination.
    #[error("setting up TLS")]
    Library(#[from] rustls::Error),
}
