//! Passwords that were found right, so that whoever says one with every request need not wait for
//! the slow comparison each time, nor behind those that say wrong ones.
//!
//! Neither a password nor a hash of it that could be tried elsewhere is kept: only a keyed digest of
//! user, stored hash and password, whose key lives as long as the process. A changed password has
//! another stored hash, so what was known of the old one finds nothing any more. Bounded.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;

/// Users that may be known at a time; those that said nothing for longest are forgotten.
const KNOWN_MAX: usize = 1024;

const DIGEST_BYTES: usize = 32;

type Digest = [u8; DIGEST_BYTES];

/// Digests, and when each was last asked for.
pub(super) struct Known {
    key: hmac::Key,
    uses: u64,
    last_use: BTreeMap<Digest, u64>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("count", &self.last_use.len()).finish_non_exhaustive()
    }
}

impl Known {
    pub(super) fn new() -> Self {
        let mut key = [0; DIGEST_BYTES];
        aws_lc_rs::rand::fill(&mut key).expect("the operating system gives random bytes");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), uses: 0, last_use: BTreeMap::new() }
    }

    fn digest(&self, user: &str, hash: &str, password: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        // With its length none of them can end in the next.
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// Whether this was found right before.
    pub(super) fn has(&mut self, user: &str, hash: &str, password: &[u8]) -> bool {
        let digest = self.digest(user, hash, password);
        self.uses += 1;
        let uses = self.uses;
        self.last_use.get_mut(&digest).map(|last| *last = uses).is_some()
    }

    /// Remembers what was found right.
    pub(super) fn add(&mut self, user: &str, hash: &str, password: &[u8]) {
        let digest = self.digest(user, hash, password);
        if KNOWN_MAX <= self.last_use.len() {
            let oldest = self.last_use.iter().min_by_key(|(_, last)| **last);
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                self.last_use.remove(&oldest);
            }
        }
        self.uses += 1;
        self.last_use.insert(digest, self.uses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// V2-165.
    #[test]
    fn only_what_was_found_right_is_known() {
        let mut known = Known::new();
        known.add("user", "hash", b"secret");
        assert!(known.has("user", "hash", b"secret"));
        for (user, hash, password) in
            [("user", "hash", "Secret"), ("user", "other", "secret"), ("userh", "ash", "secret")]
        {
            assert!(!known.has(user, hash, password.as_bytes()), "{user} {hash} {password}");
        }
        assert!(!Known::new().last_use.contains_key(&known.digest("user", "hash", b"secret")));
    }

    /// V2-165.
    #[test]
    fn who_said_nothing_for_longest_is_forgotten() {
        let mut known = Known::new();
        for number in 0..KNOWN_MAX {
            known.add(&number.to_string(), "hash", b"secret");
        }
        assert!(known.has("0", "hash", b"secret"));
        known.add("more", "hash", b"secret");
        assert!(known.has("0", "hash", b"secret") && known.has("more", "hash", b"secret"));
        assert!(!known.has("1", "hash", b"secret"));
        assert_eq!(known.last_use.len(), KNOWN_MAX);
    }
}
