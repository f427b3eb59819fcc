//! Signed tokens: JSON claims of a user's name and the auth revision, in compact JWS form (CB-76).
//!
//! Every method that etcd takes is here; ES512 is why this is not a library's. A member without a
//! private key only checks signatures. What signs and checks is `aws-lc`, as for TLS.
//!
//! Source: etcd: server/auth/{jwt,options}.go; RFC 7515, 7518, 7519.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use aws_lc_rs::{hmac, signature::UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use state::Identity;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo, X509Certificate};

use super::words::{JwtWords, TokenError};
use crate::handle::ProposeError;

/// Makes and checks tokens.
#[derive(Debug)]
pub(crate) struct Jwt {
    method: Method,
    key: Key,
    ttl: Duration,
}

/// One way of signing, by its name in tokens.
#[derive(Clone, Copy, Debug)]
struct Method {
    name: &'static str,
    family: Family,
}

#[derive(Clone, Copy)]
enum Family {
    Hmac(hmac::Algorithm),
    Rsa {
        signs: &'static dyn signature::RsaEncoding,
        checks: &'static signature::RsaParameters,
    },
    Ecdsa {
        signs: &'static signature::EcdsaSigningAlgorithm,
        checks: &'static signature::EcdsaVerificationAlgorithm,
    },
    Ed25519,
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hmac(_) => "Hmac",
            Self::Rsa { .. } => "Rsa",
            Self::Ecdsa { .. } => "Ecdsa",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// What signs; the key itself is never shown.
#[derive(Debug)]
enum Private {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

#[derive(Debug)]
enum Key {
    Secret(Box<hmac::Key>),
    Pair {
        /// `None` for a member that only checks.
        private: Option<Private>,
        /// As the checking algorithm wants it.
        public: Vec<u8>,
    },
}

/// Every method.
fn methods() -> [Method; 13] {
    let hmac = |name, algorithm| Method { name, family: Family::Hmac(algorithm) };
    let rsa = |name, signs, checks| Method { name, family: Family::Rsa { signs, checks } };
    let ecdsa = |name, signs, checks| Method { name, family: Family::Ecdsa { signs, checks } };
    [
        hmac("HS256", hmac::HMAC_SHA256),
        hmac("HS384", hmac::HMAC_SHA384),
        hmac("HS512", hmac::HMAC_SHA512),
        rsa("RS256", &signature::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256),
        rsa("RS384", &signature::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384),
        rsa("RS512", &signature::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512),
        rsa("PS256", &signature::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256),
        rsa("PS384", &signature::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384),
        rsa("PS512", &signature::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512),
        ecdsa(
            "ES256",
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &signature::ECDSA_P256_SHA256_FIXED,
        ),
        ecdsa(
            "ES384",
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            &signature::ECDSA_P384_SHA384_FIXED,
        ),
        ecdsa(
            "ES512",
            &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
            &signature::ECDSA_P521_SHA512_FIXED,
        ),
        Method { name: "EdDSA", family: Family::Ed25519 },
    ]
}

impl Jwt {
    /// Reads the keys that the options name.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub(super) fn load(words: &JwtWords) -> Result<Self, TokenError> {
        let method = methods().into_iter().find(|method| method.name == words.method);
        let method = method.ok_or_else(|| TokenError::Method(words.method.clone()))?;
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TokenError::File { path: path.to_owned(), source })
        };
        let missing = |needed| TokenError::KeyMissing { method: method.name.to_owned(), needed };
        if let Family::Hmac(algorithm) = method.family {
            let path = words.private_key.as_deref();
            let secret = read(path.ok_or_else(|| missing("priv-key"))?)?;
            if secret.is_empty() {
                return Err(missing("a priv-key that is not empty"));
            }
            let key = Key::Secret(Box::new(hmac::Key::new(algorithm, &secret)));
            return Ok(Self { method, key, ttl: words.ttl });
        }
        let wrong = |path: &Path, kind| TokenError::Key {
            path: path.to_owned(),
            kind,
            method: method.name.to_owned(),
        };
        let mut private = None;
        if let Some(path) = &words.private_key {
            let found = Private::find(method.family, &read(path)?);
            private = Some(found.ok_or_else(|| wrong(path, "private"))?);
        }
        let mut public = private.as_ref().map(Private::public);
        if let Some(path) = &words.public_key {
            let given = public_key(method.family, &read(path)?);
            let given = given.ok_or_else(|| wrong(path, "public"))?;
            if public.as_ref().is_some_and(|own| *own != given) {
                return Err(TokenError::KeyMismatch);
            }
            public = Some(given);
        }
        let public = public.ok_or_else(|| missing("pub-key or priv-key"))?;
        Ok(Self { method, key: Key::Pair { private, public }, ttl: words.ttl })
    }

    /// A token for a user. `now_seconds` is since 1970.
    ///
    /// # Errors
    ///
    /// `VerifyOnly` without a private key.
    pub(crate) fn sign(&self, who: &Identity, now_seconds: u64) -> Result<String, ProposeError> {
        let header = json!({ "alg": self.method.name, "typ": "JWT" });
        let claims = json!({
            "exp": now_seconds.saturating_add(self.ttl.as_secs()),
            "revision": who.revision,
            "username": who.user,
        });
        let mut token = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.signature(token.as_bytes()).ok_or(ProposeError::VerifyOnly)?;
        token.push('.');
        token.push_str(&encode(signature));
        Ok(token)
    }

    /// Whom a token stands for; `None` if it is not good. `now_seconds` is since 1970.
    pub(crate) fn verify(&self, token: &str, now_seconds: u64) -> Option<Identity> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header = object(header)?;
        // A token that chooses its method could choose the one with the key everybody knows.
        if header.get("alg")?.as_str()? != self.method.name {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !self.is_signature(signed.as_bytes(), &signature) {
            return None;
        }
        let claims = object(claims)?;
        let now = now_seconds as f64;
        if claims.get("exp").is_some_and(|until| !until.as_f64().is_some_and(|until| now < until)) {
            return None;
        }
        if claims.get("nbf").is_some_and(|from| !from.as_f64().is_some_and(|from| from <= now)) {
            return None;
        }
        let user = claims.get("username")?.as_str()?.to_owned();
        let revision = whole(claims.get("revision")?)?;
        Some(Identity { user, revision })
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match (&self.key, self.method.family) {
            (Key::Secret(key), _) => Some(hmac::sign(key, message).as_ref().to_vec()),
            (Key::Pair { private: Some(Private::Rsa(pair)), .. }, Family::Rsa { signs, .. }) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(signs, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            (Key::Pair { private: Some(Private::Ecdsa(pair)), .. }, _) => {
                Some(pair.sign(&random, message).ok()?.as_ref().to_vec())
            }
            (Key::Pair { private: Some(Private::Ed25519(pair)), .. }, _) => {
                Some(pair.sign(message).as_ref().to_vec())
            }
            (Key::Pair { .. }, _) => None,
        }
    }

    fn is_signature(&self, message: &[u8], given: &[u8]) -> bool {
        let checks: &dyn signature::VerificationAlgorithm = match self.method.family {
            Family::Hmac(_) => {
                let Key::Secret(key) = &self.key else { return false };
                return hmac::verify(key, message, given).is_ok();
            }
            Family::Rsa { checks, .. } => checks,
            Family::Ecdsa { checks, .. } => checks,
            Family::Ed25519 => &signature::ED25519,
        };
        match &self.key {
            Key::Pair { public, .. } => {
                UnparsedPublicKey::new(checks, public).verify(message, given).is_ok()
            }
            Key::Secret(_) => false,
        }
    }
}

impl Private {
    /// The first key of a file that is of this kind.
    fn find(family: Family, file: &[u8]) -> Option<Self> {
        blocks(file).find_map(|der| match family {
            Family::Hmac(_) => None,
            Family::Rsa { .. } => {
                let pair = RsaKeyPair::from_der(&der).or_else(|_| RsaKeyPair::from_pkcs8(&der));
                pair.ok().map(|pair| Self::Rsa(Box::new(pair)))
            }
            Family::Ecdsa { signs, .. } => {
                EcdsaKeyPair::from_private_key_der(signs, &der).ok().map(Self::Ecdsa)
            }
            Family::Ed25519 => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok().map(Self::Ed25519)
            }
        })
    }

    fn public(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }
}

/// The DER of every block of a PEM file.
fn blocks(file: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    Pem::iter_from_buffer(file).filter_map(|block| block.ok().map(|block| block.contents))
}

/// The first public key of a file: bare, of a certificate, or RSA's own form.
fn public_key(family: Family, file: &[u8]) -> Option<Vec<u8>> {
    let of_info = |info: &SubjectPublicKeyInfo<'_>| info.subject_public_key.data.to_vec();
    let found = blocks(file).find_map(|der| {
        if let Ok((_, info)) = SubjectPublicKeyInfo::from_der(&der) {
            return Some(of_info(&info));
        }
        if let Ok((_, certificate)) = X509Certificate::from_der(&der) {
            return Some(of_info(certificate.public_key()));
        }
        matches!(family, Family::Rsa { .. }).then_some(der)
    })?;
    // What cannot be a key of the method is found now, not with the first token.
    let checks: &dyn signature::VerificationAlgorithm = match family {
        Family::Hmac(_) => return None,
        Family::Rsa { checks, .. } => checks,
        Family::Ecdsa { checks, .. } => checks,
        Family::Ed25519 => &signature::ED25519,
    };
    let is_key = signature::ParsedPublicKey::new(checks, &found).is_ok();
    is_key.then_some(found)
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// A number that Go, which knows only floating ones here, would make a revision of.
fn whole(number: &Value) -> Option<u64> {
    if let Some(number) = number.as_u64() {
        return Some(number);
    }
    let number = number.as_f64().filter(|number| (0.0..9e15).contains(number))?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was looked at above; Go truncates, too"
    )]
    Some(number as u64)
}

#[cfg(test)]
mod tests;
