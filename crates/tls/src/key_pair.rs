//! A certificate with its key, checked to belong together.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use crate::error::{FileError, FileKind, FileProblem};
use crate::identity::{self, Validity};
use crate::pem;
use crate::reload::{Content, Reloaded};

/// The pair in use; files replaced one after the other are taken once they fit.
pub(crate) struct KeyPair {
    pub(crate) certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
    path: PathBuf,
}

impl KeyPair {
    fn load(
        certificate: (&Path, FileKind),
        key: (&Path, FileKind),
        provider: &CryptoProvider,
    ) -> Result<Self, FileError> {
        let failed = |(path, kind): (&Path, FileKind)| {
            let path = path.to_owned();
            move |problem| FileError { kind, path, problem }
        };
        let chain = pem::certificates(&pem::read(certificate.0, certificate.1)?)
            .map_err(failed(certificate))?;
        let secret = pem::key(&pem::read(key.0, key.1)?).map_err(failed(key))?;
        let loaded = provider.key_provider.load_private_key(secret.clone_key());
        let signing = loaded.map_err(|error| failed(key)(FileProblem::Key(error.to_string())))?;
        // The library's own comparison does not read certificates of version 1.
        let of_certificate = chain.first().and_then(identity::parse);
        let of_certificate = of_certificate.map(|parsed| parsed.public_key().raw.to_vec());
        let of_key = signing.public_key();
        if of_key.is_some_and(|of_key| Some(of_key.as_ref()) != of_certificate.as_deref()) {
            let certificate = certificate.0.to_owned();
            return Err(failed(key)(FileProblem::Mismatch { certificate }));
        }
        let certified = CertifiedKey::new(chain, signing);
        Ok(Self { certified: Arc::new(certified), key: secret, path: certificate.0.to_owned() })
    }

    /// The pair in these files, and later what they are replaced with.
    pub(crate) fn reloaded(
        certificate: (&Path, FileKind),
        key: (&Path, FileKind),
        provider: Arc<CryptoProvider>,
    ) -> Result<Reloaded<Self>, FileError> {
        let paths = vec![certificate.0.to_owned(), key.0.to_owned()];
        let load = {
            let (certificate_path, key_path) = (paths[0].clone(), paths[1].clone());
            move || Self::load((&certificate_path, certificate.1), (&key_path, key.1), &provider)
        };
        Reloaded::new(paths, load)
    }
}

impl PartialEq for KeyPair {
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert && self.key == other.key
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyPair").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Content for KeyPair {
    /// B25.
    fn warn(&self) {
        for certificate in &self.certified.cert {
            if let Some(validity) = Validity::of(certificate) {
                validity.warn(&self.path);
            }
        }
    }
}
