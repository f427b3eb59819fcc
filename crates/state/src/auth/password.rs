//! The hash of a password, as an entry brings it.
//!
//! Members since 3.5 send the hash; an entry of an older one holds the password itself. Those
//! members each hashed it with a salt of their own, and so do not agree on the bytes; here the salt
//! comes from the entry, so that applying it twice, or on two members of ours, gives the same.
//!
//! Source: etcd: server/auth/store.go (selectPassword).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha1::{Digest as _, Sha1};

use crate::Refusal;

/// The work factor of a hash that apply makes itself: etcd's default.
const COST: u32 = 10;

/// The bytes to store for a user. `salt_source` is the same on every member and different for every
/// entry.
pub(crate) fn stored(
    password: &str,
    hashed_password: &str,
    salt_source: &[&[u8]],
) -> Result<Bytes, Refusal> {
    if password.is_empty() || !hashed_password.is_empty() {
        let hash = STANDARD.decode(hashed_password);
        return hash.map(Bytes::from).map_err(|_| Refusal::NoPasswordUser);
    }
    let mut digest = Sha1::new();
    for part in salt_source {
        digest.update(part);
    }
    let mut salt = [0; 16];
    salt.copy_from_slice(&digest.finalize()[..16]);
    let hash = bcrypt::hash_with_salt(password, COST, salt);
    let hash = hash.map_err(|_| Refusal::NoPasswordUser)?;
    Ok(Bytes::from(hash.format_for_version(bcrypt::Version::TwoA)))
}

#[cfg(test)]
mod tests {
    use super::*;

    ///
    #[test]
    fn a_hash_is_stored_as_it_comes() {
        let stored_hash = stored("", "JDJhJDA0JA==", &[]).unwrap();
        assert_eq!(&stored_hash[..], b"$2a$04$");
        assert_eq!(stored("", "", &[]).unwrap(), "");
        assert_eq!(stored("", "no base64!", &[]), Err(Refusal::NoPasswordUser));
    }

    #[test]
    fn a_password_of_an_old_entry_is_hashed_alike_everywhere() {
        let [one, again, other] =
            [&b"1"[..], b"1", b"2"].map(|index| stored("secret", "", &[index]).unwrap());
        assert_eq!(one, again);
        assert_ne!(one, other);
        assert!(one.starts_with(b"$2a$10$"));
        assert!(bcrypt::verify("secret", str::from_utf8(&one).unwrap()).unwrap());
    }
}
