//! Access keys: what they are, and whether a caller has one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::scope::Scope;
use super::vault;
use crate::clock::{self, microseconds};
use crate::ids::KeyId;

/// Random bytes of a secret; it is written in hexadecimal digits.
const SECRET_BYTES: usize = 20;
/// How exactly the last use is known: a key that is used at every request is not written to at every request.
const USE_INTERVAL_US: u64 = 1_000_000;

/// An access key at one time. A change makes a new value of it.
pub struct Key {
    /// Names it; no secret.
    pub id: KeyId,
    /// What it may do.
    pub scope: Scope,
    /// For people.
    pub description: String,
    /// Calls of functions that it may make in a second; none: any number.
    pub requests_per_second: Option<NonZeroU32>,
    /// When it was made.
    pub created: SystemTime,
    /// When its secret was last replaced.
    pub rotated: Option<SystemTime>,
    /// When it expires.
    pub expires: Option<SystemTime>,
    pub(super) secret: Secret,
    /// The secret before the last rotation, and until when it still works.
    pub(super) previous: Option<(Secret, SystemTime)>,
    pub(super) uses: Arc<Uses>,
}

/// What is known of a key's use; all values of one key share it.
pub(super) struct Uses {
    /// Microseconds since 1970; 0: never.
    last_us: AtomicU64,
    /// The last one that was stored.
    pub(super) stored_us: AtomicU64,
    limit: Option<DefaultDirectRateLimiter>,
}

/// What is kept of a secret in memory.
#[derive(Clone)]
pub(super) struct Secret {
    /// The secret is as random as its digest, so that this tells nothing about it.
    digest: [u8; 32],
    /// The secret as it is stored; it is decrypted to check signatures.
    pub(super) sealed: Arc<[u8]>,
}

/// Why a caller's key is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// There is no such key, or the secret is wrong.
    #[error("the key is wrong: it was revoked or rotated, or it never was one of this host")]
    Unknown,
    /// Its time is over.
    #[error("the key {id} expired at {at}; an operator makes another with `dormouse keys create`", at = humantime::format_rfc3339_seconds(*.at))]
    Expired {
        /// The key.
        id: KeyId,
        /// When.
        at: SystemTime,
    },
    /// It makes more calls than it may.
    #[error("the key {id} may call functions {limit} times a second; try again later")]
    TooManyCalls {
        /// The key.
        id: KeyId,
        /// What it may make.
        limit: u32,
    },
}

impl Uses {
    pub(super) fn new(last: Option<SystemTime>, requests_per_second: Option<NonZeroU32>) -> Arc<Uses> {
        let last_us = last.map_or(0, microseconds);
        let limit = requests_per_second.map(|limit| RateLimiter::direct(Quota::per_second(limit)));
        Arc::new(Uses { last_us: AtomicU64::new(last_us), stored_us: AtomicU64::new(last_us), limit })
    }

    pub(super) fn last_us(&self) -> u64 {
        self.last_us.load(Ordering::Relaxed)
    }

    fn note(&self, now: SystemTime) {
        let (now, last) = (microseconds(now), self.last_us());
        if now.abs_diff(last) >= USE_INTERVAL_US {
            self.last_us.store(now, Ordering::Relaxed);
        }
    }
}

impl Secret {
    pub(super) fn of(secret: &str, sealed: Vec<u8>) -> Secret {
        Secret { digest: Sha256::digest(secret).into(), sealed: sealed.into() }
    }

    /// Compares in a time that does not depend on where they differ.
    pub(super) fn is_of(&self, secret: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        self.digest.ct_eq(&digest).into()
    }
}

impl Key {
    /// When it was last used, to the second.
    pub fn last_used(&self) -> Option<SystemTime> {
        Some(self.uses.last_us()).filter(|us| *us > 0).map(clock::from_microseconds)
    }

    /// Until when the secret before the last rotation still works.
    pub fn previous_until(&self) -> Option<SystemTime> {
        self.previous.as_ref().map(|(_, until)| *until)
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Takes the key, if the secret is right and it has not ended.
    pub(super) fn take(&self, secret: &str, now: SystemTime) -> Result<(), BadKey> {
        self.take_if(now, |own| own.is_of(secret))
    }

    /// Takes the key, if what is shown is right for one of its secrets and it has not ended.
    pub(super) fn take_if(&self, now: SystemTime, is_right: impl Fn(&Secret) -> bool) -> Result<(), BadKey> {
        let is_previous = || self.previous.as_ref().is_some_and(|(previous, until)| now < *until && is_right(previous));
        if !is_right(&self.secret) && !is_previous() {
            return Err(BadKey::Unknown);
        }
        if let Some(at) = self.expires.filter(|_| self.has_expired(now)) {
            return Err(BadKey::Expired { id: self.id, at });
        }
        self.uses.note(now);
        Ok(())
    }

    /// Counts a call of a function.
    pub fn count_call(&self) -> Result<(), BadKey> {
        match (&self.uses.limit, self.requests_per_second) {
            (Some(limit), Some(bound)) if limit.check().is_err() => {
                Err(BadKey::TooManyCalls { id: self.id, limit: bound.get() })
            }
            _ => Ok(()),
        }
    }
}

/// A new secret.
pub(super) fn new_secret() -> anyhow::Result<String> {
    Ok(hex::encode(vault::random::<SECRET_BYTES>()?))
}

/// A key as callers send it: `dmk-0123456789abcdef.SECRET`.
pub(super) fn token(id: KeyId, secret: &str) -> String {
    format!("{id}.{secret}")
}

/// The parts of a key as callers send it. None: it has not the form of one.
pub(super) fn parts(token: &str) -> Option<(Option<KeyId>, &str)> {
    if !KeyId::begins(token) {
        return None;
    }
    let (id, secret) = token.split_once('.').unwrap_or((token, ""));
    Some((id.parse().ok(), secret))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn key(secret: &str) -> Key {
        Key {
            id: KeyId::random(),
            scope: Scope::everything(),
            description: String::new(),
            requests_per_second: None,
            created: UNIX_EPOCH,
            rotated: None,
            expires: None,
            secret: Secret::of(secret, Vec::new()),
            previous: None,
            uses: Uses::new(None, None),
        }
    }

    const AT: fn(u64) -> SystemTime = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);

    #[test]
    fn a_secret_before_a_rotation_is_taken_until_its_time_is_over() {
        let key = Key { previous: Some((Secret::of("old", Vec::new()), AT(10))), ..key("new") };
        assert!(key.take("new", AT(1)).is_ok() && key.take("new", AT(11)).is_ok());
        assert!(key.take("old", AT(9)).is_ok());
        assert_eq!(key.take("old", AT(10)), Err(BadKey::Unknown));
        assert_eq!(key.take("", AT(1)), Err(BadKey::Unknown));
    }

    #[test]
    fn an_expired_key_says_so_only_to_who_has_its_secret() {
        let key = Key { expires: Some(AT(10)), ..key("s") };
        assert!(key.take("s", AT(9)).is_ok());
        assert_eq!(key.take("s", AT(10)), Err(BadKey::Expired { id: key.id, at: AT(10) }));
        assert_eq!(key.take("x", AT(10)), Err(BadKey::Unknown));
    }

    #[test]
    fn the_last_use_is_noted_once_a_second() {
        let key = key("s");
        assert_eq!(key.last_used(), None);
        for now in [AT(5), AT(5) + Duration::from_millis(999)] {
            key.take("s", now).unwrap();
            assert_eq!(key.last_used(), Some(AT(5)));
        }
        key.take("s", AT(6)).unwrap();
        assert_eq!(key.last_used(), Some(AT(6)));
        assert!(key.take("x", AT(9)).is_err());
        assert_eq!(key.last_used(), Some(AT(6)));
    }

    #[test]
    fn a_key_with_a_limit_makes_no_more_calls_than_that() {
        let limit = NonZeroU32::new(3);
        let key = Key { requests_per_second: limit, uses: Uses::new(None, limit), ..key("s") };
        let taken = (0..100).filter(|_| key.count_call().is_ok()).count();
        assert!((3..=4).contains(&taken), "{taken}");
        assert_eq!(key.count_call(), Err(BadKey::TooManyCalls { id: key.id, limit: 3 }));
        assert!(key.take("s", AT(1)).is_ok(), "to look is no call");
    }

    #[test]
    fn a_token_is_an_identifier_and_a_secret() {
        let id = KeyId::random();
        assert_eq!(parts(&token(id, "abc")), Some((Some(id), "abc")));
        assert_eq!(parts("dmk-xyz.abc"), Some((None, "abc")));
        assert_eq!(parts("dmk-"), Some((None, "")));
        assert_eq!(parts("eyJhbGciOi.x.y"), None);
    }
}
