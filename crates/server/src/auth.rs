//! Who calls: tokens, certificates and passwords.
//!
//! Users and what they may are replicated (`state::auth`); here is what a member does to know that
//! a caller is the user it says it is. A token is made by whoever checked the password, and believed
//! by every member: a simple one because the log told of it, a signed one by its signature.
//!
//! Source: etcd: server/auth/{store,simple_token,jwt}.go.

mod caller;
pub(crate) mod jwt;
mod known;
mod passwords;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use state::{Identity, Reads};

use crate::config;

pub(crate) use caller::{Caller, is_of_proxy};
use jwt::Jwt;
pub(crate) use passwords::Passwords;
pub use words::TokenError;
use words::TokenWords;

/// How a member knows callers.
#[derive(Clone)]
pub(crate) struct Authentication {
    pub(crate) provider: Arc<Provider>,
    pub(crate) passwords: Passwords,
    /// Whether the common name of a client's certificate is its user (CB-77).
    pub(crate) by_certificate: bool,
    /// What the times of simple tokens are counted from.
    origin: Instant,
}

/// Where tokens come from (SRV-107).
#[derive(Debug)]
pub(crate) enum Provider {
    /// Random words that the log tells of.
    Simple {
        /// How long an unused one lasts.
        ttl: Duration,
    },
    /// Signed claims.
    Jwt(Box<Jwt>),
    /// There are none.
    Nothing,
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { provider, passwords, by_certificate, origin: _ } = self;
        let mut shown = f.debug_struct("Authentication");
        shown.field("provider", provider).field("passwords", passwords);
        shown.field("by_certificate", by_certificate).finish_non_exhaustive()
    }
}

/// How long a simple token lasts if the flag says nothing of use.
const SIMPLE_TTL_DEFAULT: Duration = Duration::from_secs(300);

impl Authentication {
    /// Reads `--auth-token` and the key files it names.
    ///
    /// # Errors
    ///
    /// See [`TokenError`].
    pub(crate) fn new(auth: &config::Auth, by_certificate: bool) -> Result<Self, TokenError> {
        let config::Auth { token, token_ttl: ttl, bcrypt_cost } = auth;
        let provider = match TokenWords::parse(token)? {
            TokenWords::Simple => {
                tracing::warn!("simple token is not cryptographically signed");
                Provider::Simple { ttl: if ttl.is_zero() { SIMPLE_TTL_DEFAULT } else { *ttl } }
            }
            TokenWords::Jwt(options) => Provider::Jwt(Box::new(Jwt::load(&options)?)),
            TokenWords::Nothing => Provider::Nothing,
        };
        Ok(Self {
            provider: Arc::new(provider),
            passwords: Passwords::new(*bcrypt_cost),
            by_certificate,
            origin: Instant::now(),
        })
    }

    /// Whom a token stands for, as far as this member has applied the log; `None` if for nobody.
    pub(crate) fn identify(&self, reads: &Reads, token: &str) -> Option<Identity> {
        match &*self.provider {
            Provider::Simple { ttl } => {
                // Before the token is looked at: what takes it away raises the revision, and a
                // request that was let in just before is refused where it is applied.
                let revision = reads.auth().revision();
                let user = reads.tokens().user(token, self.now_millis(), millis(*ttl))?;
                let user = String::from_utf8_lossy(&user).into_owned();
                Some(Identity { user, revision })
            }
            Provider::Jwt(jwt) => jwt.verify(token, wall_seconds()),
            Provider::Nothing => None,
        }
    }

    /// The entry that a simple token came with; `None` for what is no such token.
    pub(crate) fn index_of(&self, token: &str) -> Option<u64> {
        match &*self.provider {
            Provider::Simple { .. } => {
                let (_, index) = token.split_once('.')?;
                index.parse().ok()
            }
            Provider::Jwt(_) | Provider::Nothing => Some(0),
        }
    }

    /// The word that a login is proposed with.
    pub(crate) fn new_word(&self) -> String {
        match &*self.provider {
            Provider::Simple { .. } => random_word(),
            Provider::Jwt(_) | Provider::Nothing => String::new(),
        }
    }

    /// Forgets simple tokens whose time is over, once a second, as long as there is somebody.
    pub(crate) async fn sweep(self, reads: Reads) {
        let Provider::Simple { ttl } = *self.provider else { return };
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if reads.auth_enabled() {
                reads.tokens().sweep(self.now_millis(), millis(ttl));
            }
        }
    }

    fn now_millis(&self) -> u64 {
        millis(self.origin.elapsed())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970.
pub(crate) fn wall_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Letters of a simple token.
const WORD_LEN: usize = 16;

/// Sixteen letters, as etcd's.
fn random_word() -> String {
    const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut word = String::with_capacity(WORD_LEN);
    while word.len() < WORD_LEN {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
        // The rest of a byte's values would make some letters more likely.
        let even = bytes.iter().filter(|byte| usize::from(**byte) < LETTERS.len() * 4);
        let letters = even.map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
        word.extend(letters.take(WORD_LEN - word.len()));
    }
    word
}

/// What the log may say of a token, which is as good as a password (CB-81).
pub(crate) fn fingerprint(token: &str) -> String {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(token.as_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CB-75, CB-81.
    #[test]
    fn words_are_sixteen_letters() {
        let words: Vec<String> = (0..64).map(|_| random_word()).collect();
        for word in &words {
            assert_eq!(word.len(), WORD_LEN);
            assert!(word.bytes().all(|byte| byte.is_ascii_alphabetic()), "{word}");
        }
        assert_ne!(words[0], words[1]);
        assert_eq!(fingerprint("token"), "3c469e9d6c58");
    }

    #[test]
    fn only_a_word_with_an_index_is_a_simple_token() {
        let of = |token: &str| {
            let token = token.to_owned();
            let auth = config::Auth { token, token_ttl: Duration::ZERO, bcrypt_cost: 4 };
            Authentication::new(&auth, false).unwrap()
        };
        let simple = of("simple");
        assert_eq!(simple.index_of("word.12"), Some(12));
        assert_eq!(simple.index_of("word"), None);
        assert_eq!(simple.index_of("word.12.3"), None);
        assert_eq!(simple.index_of("word.-1"), None);
        assert_eq!(simple.new_word().len(), WORD_LEN);
        let nothing = of("");
        assert_eq!(nothing.new_word(), "");
    }
}
