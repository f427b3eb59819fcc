//! Hashing and comparing passwords, which is slow on purpose: on threads of its own, few at a time,
//! and with a bounded queue, so that a flood of logins costs others nothing (L7).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::known::Known;
use crate::handle::ProposeError;

/// Passwords that may wait to be compared or hashed.
const WAITING_MAX: usize = 256;

/// Wrong passwords that cost their callers nothing but the comparison, until some time without any.
const FAILURES_FREE: u32 = 32;

/// In which one of those comes back.
const FAILURE_FORGIVEN: Duration = Duration::from_secs(1);

/// Go's default cost of a hash.
const V2_COST: u32 = 10;

/// What bcrypt takes.
const PASSWORD_BYTES_MAX: usize = 72;

/// Where passwords are hashed; clones share it.
#[derive(Clone)]
pub(crate) struct Passwords {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cost: u32,
    waiting: AtomicUsize,
    turn: Arc<Semaphore>,
    failures: parking_lot::Mutex<Failures>,
    known: parking_lot::Mutex<Known>,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").field("cost", &self.shared.cost).finish_non_exhaustive()
    }
}

/// How many wrong passwords there were lately.
#[derive(Debug)]
struct Failures {
    free: u32,
    since: Instant,
}

/// One that waits, counted until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// `cost` is bcrypt's, from 4 to 31.
    pub(crate) fn new(cost: u32) -> Self {
        let failures = Failures { free: FAILURES_FREE, since: Instant::now() };
        Self {
            shared: Arc::new(Shared {
                cost,
                waiting: AtomicUsize::new(0),
                turn: Arc::new(Semaphore::new(1)),
                failures: parking_lot::Mutex::new(failures),
                known: parking_lot::Mutex::new(Known::new()),
            }),
        }
    }

    /// The hash of a password, in the form in which it is proposed.
    ///
    /// # Errors
    ///
    /// `PasswordTooLong`, `Overloaded`.
    pub(crate) async fn hash(&self, password: String) -> Result<String, ProposeError> {
        if PASSWORD_BYTES_MAX < password.len() {
            return Err(ProposeError::PasswordTooLong);
        }
        let cost = self.shared.cost;
        let hashed = self.work(move || bcrypt::hash_with_result(password, cost)).await?;
        let hashed = hashed.map_err(|_| ProposeError::PasswordTooLong)?;
        Ok(STANDARD.encode(hashed.format_for_version(bcrypt::Version::TwoA)))
    }

    /// The hash of a password in the form in which the v2 tree has it, with Go's default cost; of a
    /// long password its first bytes count.
    ///
    /// # Errors
    ///
    /// `Overloaded`.
    pub(crate) async fn hash_for_v2(&self, password: &str) -> Result<String, ProposeError> {
        let password = Self::what_counts(password);
        let hashed = self.work(move || bcrypt::hash_with_result(password, V2_COST)).await?;
        let hashed = hashed.map_err(|_| ProposeError::Stopped)?;
        Ok(hashed.format_for_version(bcrypt::Version::TwoA))
    }

    /// As [`Passwords::is_right`], for who says a password with every request: one that was found
    /// right before is not compared again, and waits for nobody.
    ///
    /// # Errors
    ///
    /// `Overloaded`.
    pub(crate) async fn is_known_or_right(
        &self,
        user: &str,
        password: &str,
        hash: &str,
    ) -> Result<bool, ProposeError> {
        let password = Self::what_counts(password);
        if self.shared.known.lock().has(user, hash, &password) {
            return Ok(true);
        }
        let is_right = self.is_right(password.clone(), hash.to_owned().into()).await?;
        if is_right {
            self.shared.known.lock().add(user, hash, &password);
        }
        Ok(is_right)
    }

    /// What counts of a password that is compared: bcrypt looks at no more, and whoever waits for
    /// the comparison must not hold megabytes.
    pub(crate) fn what_counts(password: &str) -> Box<[u8]> {
        let bytes = password.as_bytes();
        bytes[..bytes.len().min(PASSWORD_BYTES_MAX)].into()
    }

    /// Whether a password, of which this counts, has this hash.
    ///
    /// # Errors
    ///
    /// `Overloaded`.
    pub(crate) async fn is_right(
        &self,
        password: Box<[u8]>,
        hash: Bytes,
    ) -> Result<bool, ProposeError> {
        self.work(move || {
            let hash = str::from_utf8(&hash).ok();
            hash.is_some_and(|hash| bcrypt::verify(password, hash).unwrap_or(false))
        })
        .await
    }

    /// Does one piece of work when its turn comes, to its end even if the caller goes away: else
    /// callers that go away could have any number done at once. Wrong passwords beyond a few make
    /// the next piece wait four times as long as they took, so that they cost a fifth of a core.
    async fn work<T>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ProposeError>
    where
        T: Worked + Send + 'static,
    {
        let before = self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.shared.waiting);
        if WAITING_MAX <= before {
            return Err(ProposeError::Overloaded);
        }
        let turn = Arc::clone(&self.shared.turn).acquire_owned().await;
        let turn = turn.expect("nobody closes the semaphore");
        let (tell, told) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let began = Instant::now();
            let Ok(worked) = tokio::task::spawn_blocking(work).await else { return };
            let pause = began.elapsed() * 4;
            let is_slowed = worked.is_failure() && !shared.failures.lock().take(Instant::now());
            // Nobody waits for it if the caller went away.
            drop(tell.send(worked));
            if is_slowed {
                tokio::time::sleep(pause).await;
            }
            drop(turn);
        });
        told.await.map_err(|_| ProposeError::Stopped)
    }
}

impl Failures {
    /// Whether one more is free.
    fn take(&mut self, now: Instant) -> bool {
        let forgiven = now.duration_since(self.since).as_secs() / FAILURE_FORGIVEN.as_secs();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven > 0 {
            self.free = self.free.saturating_add(forgiven).min(FAILURES_FREE);
            self.since = now;
        }
        let is_free = self.free > 0;
        self.free = self.free.saturating_sub(1);
        is_free
    }
}

/// What may tell that a password was wrong.
trait Worked {
    fn is_failure(&self) -> bool;
}

impl Worked for bool {
    fn is_failure(&self) -> bool {
        !self
    }
}

impl<E> Worked for Result<bcrypt::HashParts, E> {
    fn is_failure(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(password: &str) -> Box<[u8]> {
        Passwords::what_counts(password)
    }

    /// L7: whoever waits holds little, and hears the same; a hash that is none stops nobody.
    #[tokio::test]
    async fn only_the_bytes_that_count_are_kept() {
        let long = "é".repeat(40) + &"x".repeat(1 << 20);
        assert_eq!(of(&long).len(), 72);
        let passwords = Passwords::new(4);
        let hash = bcrypt::hash(&long, 4).unwrap();
        assert!(passwords.is_right(of(&long), hash.into()).await.unwrap());
        let odd = format!("$2a$04${}é{}", "a".repeat(21), "a".repeat(30));
        assert!(!passwords.is_right(of("secret"), odd.into()).await.unwrap());
    }

    /// CB-80.
    #[tokio::test]
    async fn a_password_is_right_or_wrong() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash("secret".to_owned()).await.unwrap();
        let hash = Bytes::from(STANDARD.decode(hash).unwrap());
        assert!(hash.starts_with(b"$2a$04$"));
        assert!(passwords.is_right(of("secret"), hash.clone()).await.unwrap());
        assert!(!passwords.is_right(of("Secret"), hash).await.unwrap());
        assert!(!passwords.is_right(of(""), Bytes::new()).await.unwrap());
        let long = passwords.hash("x".repeat(73)).await;
        assert_eq!(long, Err(ProposeError::PasswordTooLong));
    }

    /// V2-165, L7: whoever was right before waits for nobody, however many wait.
    #[tokio::test]
    async fn a_known_password_does_not_wait() {
        let passwords = Passwords::new(4);
        let hash = bcrypt::hash("secret", 4).unwrap();
        assert!(passwords.is_known_or_right("u", "secret", &hash).await.unwrap());
        let _others = Arc::clone(&passwords.shared.turn).acquire_owned().await.unwrap();
        assert!(passwords.is_known_or_right("u", "secret", &hash).await.unwrap());
        passwords.shared.waiting.store(WAITING_MAX, Ordering::Relaxed);
        let unknown = passwords.is_known_or_right("u", "wrong", &hash).await;
        assert_eq!(unknown, Err(ProposeError::Overloaded));
        assert!(passwords.is_known_or_right("u", "secret", &hash).await.unwrap());
    }

    /// L7: wrong passwords get slower, but never stop those that are right for good.
    #[tokio::test]
    async fn many_wrong_passwords_take_their_time() {
        let now = Instant::now();
        let mut failures = Failures { free: 2, since: now };
        assert!(failures.take(now) && failures.take(now));
        assert!(!failures.take(now));
        assert!(failures.take(now + FAILURE_FORGIVEN));
        let passwords = Passwords::new(4);
        let hash = passwords.hash("secret".to_owned()).await.unwrap();
        let hash = Bytes::from(STANDARD.decode(hash).unwrap());
        for _ in 0..=FAILURES_FREE {
            assert!(!passwords.is_right(of("wrong"), hash.clone()).await.unwrap());
        }
        assert!(passwords.is_right(of("secret"), hash).await.unwrap());
    }
}
