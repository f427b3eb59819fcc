//! Simple tokens: which user a random word stands for.
//!
//! They come and go with entries of the log, so that every member knows those of all, and are not
//! stored: a restart forgets them (CB-75). When they end is each member's own matter and reads a
//! clock, which the caller passes in; no entry's effect depends on it. Their number is bounded by
//! how fast passwords can be compared: every one costs a comparison.
//!
//! Source: etcd: server/auth/simple_token.go.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

/// The tokens that are valid here; shared by apply and by whoever asks.
#[derive(Debug, Default)]
pub struct Tokens {
    known: Mutex<BTreeMap<String, Token>>,
}

#[derive(Debug)]
struct Token {
    user: Bytes,
    /// Milliseconds; `None` until a clock has seen the token.
    ends: Option<u64>,
}

impl Tokens {
    /// Makes a token stand for a user.
    pub(crate) fn assign(&self, token: String, user: Bytes) {
        self.known.lock().insert(token, Token { user, ends: None });
    }

    /// Forgets the tokens of a user.
    pub(crate) fn forget_user(&self, user: &[u8]) {
        self.known.lock().retain(|_, token| token.user != user);
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.known.lock().clear();
    }

    /// The user of a token, which then lasts `ttl_millis` from `now_millis` on.
    #[must_use]
    pub fn user(&self, token: &str, now_millis: u64, ttl_millis: u64) -> Option<Bytes> {
        let mut known = self.known.lock();
        let token = known.get_mut(token)?;
        token.ends = Some(now_millis.saturating_add(ttl_millis));
        Some(token.user.clone())
    }

    /// Forgets those that were not used for their time.
    pub fn sweep(&self, now_millis: u64, ttl_millis: u64) {
        self.known.lock().retain(|_, token| {
            let ends = *token.ends.get_or_insert_with(|| now_millis.saturating_add(ttl_millis));
            now_millis <= ends
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CB-75, SRV-108.
    #[test]
    fn a_token_lasts_from_its_last_use() {
        let tokens = Tokens::default();
        tokens.assign("a.1".to_owned(), "alice".into());
        tokens.assign("b.2".to_owned(), "bob".into());
        tokens.sweep(1000, 300);
        assert_eq!(tokens.user("a.1", 1200, 300).as_deref(), Some(&b"alice"[..]));
        tokens.sweep(1301, 300);
        assert_eq!(tokens.user("b.2", 1301, 300), None);
        assert!(tokens.user("a.1", 1301, 300).is_some());
        tokens.forget_user(b"alice");
        assert_eq!(tokens.user("a.1", 1301, 300), None);
        tokens.assign("c.3".to_owned(), "carol".into());
        tokens.clear();
        assert_eq!(tokens.user("c.3", 0, 300), None);
    }
}
