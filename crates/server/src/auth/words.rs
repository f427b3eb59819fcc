//! What `--auth-token` says.
//!
//! Source: etcd: server/auth/{store,options}.go.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::parse_duration;

/// How long a signed token lasts if the flag does not say.
const JWT_TTL_DEFAULT: Duration = Duration::from_secs(300);

/// A flag, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenWords {
    Simple,
    Jwt(JwtWords),
    Nothing,
}

/// The options of signed tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JwtWords {
    pub(crate) method: String,
    pub(crate) public_key: Option<PathBuf>,
    pub(crate) private_key: Option<PathBuf>,
    pub(crate) ttl: Duration,
}

/// Why tokens cannot be made as `--auth-token` says.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Neither kind of tokens.
    #[error("--auth-token={0}: the kind of tokens must be simple or jwt")]
    Kind(String),
    /// An option that is no pair.
    #[error("--auth-token: the option {0:?} is not of the form name=value")]
    NoPair(String),
    /// An option that is given twice.
    #[error("--auth-token: the option {0} is given more than once")]
    Twice(String),
    /// A time that is none.
    #[error("--auth-token: ttl={0} is no duration, such as 10m")]
    Ttl(String),
    /// No method of signing, or an unknown one.
    #[error(
        "--auth-token: sign-method={0:?} is not known; it is one of HS256, HS384, HS512, RS256, \
         RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA"
    )]
    Method(String),
    /// A key file that cannot be read.
    #[error("--auth-token: reading the key file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No key for the method.
    #[error("--auth-token: sign-method {method} needs {needed}")]
    KeyMissing {
        /// The method.
        method: String,
        /// Which option.
        needed: &'static str,
    },
    /// A file without the key that the method needs.
    #[error("--auth-token: {path} holds no {kind} key in PEM form for sign-method {method}")]
    Key {
        /// The file.
        path: PathBuf,
        /// `private` or `public`.
        kind: &'static str,
        /// The method.
        method: String,
    },
    /// Keys of two pairs.
    #[error("--auth-token: pub-key and priv-key do not belong together")]
    KeyMismatch,
}

impl TokenWords {
    /// Takes the flag apart.
    pub(crate) fn parse(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options: Vec<(&str, &str)> = Vec::new();
        for part in parts {
            let pair = part.split_once('=').filter(|(_, value)| !value.contains('='));
            let (name, value) = pair.ok_or_else(|| TokenError::NoPair(part.to_owned()))?;
            if options.iter().any(|(known, _)| *known == name) {
                return Err(TokenError::Twice(name.to_owned()));
            }
            options.push((name, value));
        }
        match kind {
            "simple" => Ok(Self::Simple),
            "jwt" => Ok(Self::Jwt(JwtWords::of(&options)?)),
            "" => Ok(Self::Nothing),
            other => Err(TokenError::Kind(other.to_owned())),
        }
    }
}

impl JwtWords {
    fn of(options: &[(&str, &str)]) -> Result<Self, TokenError> {
        let known = ["sign-method", "pub-key", "priv-key", "ttl"];
        let unknown: Vec<_> =
            options.iter().map(|(name, _)| *name).filter(|name| !known.contains(name)).collect();
        if !unknown.is_empty() {
            tracing::warn!(keys = ?unknown, "unknown JWT options");
        }
        let option = |wanted: &str| {
            let found = options.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| *value).filter(|value| !value.is_empty())
        };
        let ttl = match option("ttl") {
            None => JWT_TTL_DEFAULT,
            Some(text) => {
                let ttl = parse_duration(text).ok().and_then(|nanos| u64::try_from(nanos).ok());
                ttl.map(Duration::from_nanos).ok_or_else(|| TokenError::Ttl(text.to_owned()))?
            }
        };
        Ok(Self {
            method: option("sign-method").unwrap_or_default().to_owned(),
            public_key: option("pub-key").map(PathBuf::from),
            private_key: option("priv-key").map(PathBuf::from),
            ttl,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRV-107, CB-76.
    #[test]
    fn the_flag_is_a_kind_and_pairs() {
        assert_eq!(TokenWords::parse("simple").unwrap(), TokenWords::Simple);
        assert_eq!(TokenWords::parse("").unwrap(), TokenWords::Nothing);
        let text = "jwt,pub-key=a.pem,priv-key=b.pem,sign-method=RS512,ttl=10m";
        let TokenWords::Jwt(words) = TokenWords::parse(text).unwrap() else { panic!() };
        assert_eq!((words.method.as_str(), words.ttl), ("RS512", Duration::from_secs(600)));
        assert_eq!(words.public_key, Some("a.pem".into()));
        let TokenWords::Jwt(words) = TokenWords::parse("jwt,sign-method=HS256,x=y").unwrap() else {
            panic!()
        };
        assert_eq!(words.ttl, JWT_TTL_DEFAULT);
        for (text, said) in [
            ("paseto", "must be simple or jwt"),
            ("jwt,ttl", "name=value"),
            ("jwt,ttl=1m,ttl=2m", "more than once"),
            ("jwt,ttl=soon", "no duration"),
        ] {
            let error = TokenWords::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
