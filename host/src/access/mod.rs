//! Who may do what, and who did what: access keys with their scopes, and the audit log.
//!
//! `scope.rs` is what a key may do, `key.rs` whether a caller has one, `vault.rs` encrypts secrets for `store.rs`, and
//! `audit.rs` remembers changes. The planes ask [`Access::recognise`] who sends a request; what that one may do is for the
//! door (`invoke`) and for the admin plane's guard to check.

mod audit;
mod key;
mod scope;
mod store;
mod vault;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

pub use self::audit::{Change, Entry};
pub use self::key::{BadKey, Key};
use self::key::{Secret, Uses, new_secret, parts, token};
pub use self::scope::{FunctionPattern, InvalidPattern, Right, Scope};
pub use self::store::EntryId;
use self::store::Store;
use self::vault::Vault;
use crate::clock;
use crate::ids::KeyId;

/// Characters of a key's description.
const DESCRIPTION_MAX: usize = 256;
/// Patterns that a key's scope may have.
const PATTERNS_MAX: usize = 100;

/// What callers of a function must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Nothing.
    None,
    /// An access key that may invoke the function.
    Key,
}

impl Auth {
    /// Its name in the API and in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Auth::None => "none",
            Auth::Key => "key",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Auth> {
        [Auth::None, Auth::Key].into_iter().find(|auth| auth.as_str() == name)
    }
}

/// What a host is told about keys.
#[derive(Clone, Debug)]
pub struct AccessOptions {
    /// The admin token, which is a key for everything.
    pub admin_token: Option<String>,
    /// Where the key is that secrets are encrypted under; none: in the state directory.
    pub key_file: Option<PathBuf>,
    /// Keys at once.
    pub keys_max: usize,
    /// Entries of the audit log.
    pub audit_entries_max: u64,
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What it may do.
    pub scope: Scope,
    /// For people.
    pub description: String,
    /// Calls of functions that it may make in a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// When it expires.
    pub expires: Option<SystemTime>,
}

/// A key that was made or rotated, with its secret, which nobody is told again.
pub struct WithSecret {
    /// The key.
    pub key: Arc<Key>,
    /// What callers send: identifier and secret.
    pub token: String,
}

/// Why keys were not changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyChangeError {
    /// There is no such key.
    #[error("there is no key `{0}`; it may have been revoked")]
    NotFound(KeyId),
    /// The key is the admin token.
    #[error(
        "the admin token is a setting of the host: change `--admin-token` or DORMOUSE_ADMIN_TOKEN, and start it again"
    )]
    AdminToken,
    /// There are as many keys as there may be.
    #[error("the host has {0} keys, which is the most that `keys-max` allows; revoke one, or raise it")]
    TooMany(usize),
    /// What was asked for makes no sense.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// A fault of the host.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

type Keys = HashMap<KeyId, Arc<Key>>;

/// The keys and the audit log. Methods that change something block.
pub struct Access {
    store: Store,
    vault: Vault,
    keys: ArcSwap<Keys>,
    changing: Mutex<()>,
    admin_token: Option<Arc<Key>>,
    keys_max: usize,
    audit_entries_max: u64,
}

impl Access {
    /// Opens keys and audit log in the state directory.
    pub fn open(state_dir: &Path, options: &AccessOptions) -> anyhow::Result<Access> {
        let store = Store::open(&state_dir.join("access.sqlite"))?;
        let key_file = options.key_file.clone().unwrap_or_else(|| state_dir.join("secret.key"));
        let vault = Vault::open(&key_file, store.has_no_keys()?)?;
        let admin_token = options.admin_token.as_deref().map(|token| admin_token(token, &vault)).transpose()?;
        let keys: Keys = store.keys(&vault)?.into_iter().map(|key| (key.id, Arc::new(key))).collect();
        Ok(Access {
            store,
            vault,
            keys: ArcSwap::from_pointee(keys),
            changing: Mutex::default(),
            admin_token,
            keys_max: options.keys_max,
            audit_entries_max: options.audit_entries_max,
        })
    }

    /// The key that somebody shows. None: it has not the form of a key of this host, and may be meant
    /// for somebody else.
    pub fn recognise(&self, token: &str) -> Result<Option<Arc<Key>>, BadKey> {
        let now = clock::date();
        let Some((id, secret)) = parts(token) else {
            // It has no end and no limit, so it is this one or it is none.
            return Ok(self.admin_token.clone().filter(|key| key.take(token, now).is_ok()));
        };
        let key = id.and_then(|id| self.keys.load().get(&id).cloned()).ok_or(BadKey::Unknown)?;
        key.take(secret, now)?;
        Ok(Some(key))
    }

    /// The key of that identifier, if what somebody sends is signed with its secret: `is_right` is asked about each that it has.
    pub fn check_signature(&self, id: KeyId, is_right: impl Fn(&str) -> bool) -> Result<Arc<Key>, BadKey> {
        let stored = || self.keys.load().get(&id).cloned();
        let key = self.admin_token.clone().filter(|token| token.id == id).or_else(stored).ok_or(BadKey::Unknown)?;
        // A secret that cannot be decrypted signs nothing.
        key.take_if(clock::date(), |own| self.vault.unseal(id, &own.sealed).is_ok_and(|secret| is_right(&secret)))?;
        Ok(key)
    }

    /// Whether there is any key, or an admin token.
    pub fn has_keys(&self) -> bool {
        self.admin_token.is_some() || !self.keys.load().is_empty()
    }

    /// Whether a key that was taken before is still what it was then: not revoked, rotated or expired.
    pub fn is_current(&self, key: &Arc<Key>) -> bool {
        let now = self.keys.load().get(&key.id).is_some_and(|now| Arc::ptr_eq(now, key));
        (now || key.id == KeyId::ADMIN_TOKEN) && !key.has_expired(clock::date())
    }

    /// All keys, the oldest first; the admin token is the first of all.
    pub fn list(&self) -> Vec<Arc<Key>> {
        let mut keys: Vec<Arc<Key>> = self.keys.load().values().cloned().collect();
        keys.sort_by_key(|key| (key.created, key.id));
        self.admin_token.iter().cloned().chain(keys).collect()
    }

    /// Makes a key. The entry of the audit log that is about it names it from the same moment on.
    pub fn create(&self, new: NewKey, entry: Option<EntryId>) -> Result<WithSecret, KeyChangeError> {
        let faults = faults(&new);
        if !faults.is_empty() {
            return Err(KeyChangeError::Refused(faults));
        }
        let _changing = self.changing();
        let count = self.keys.load().len();
        if count >= self.keys_max {
            return Err(KeyChangeError::TooMany(count));
        }
        let (id, secret) = (KeyId::random(), new_secret()?);
        let sealed = self.vault.seal(id, &secret)?;
        let key = Key {
            id,
            scope: new.scope,
            description: new.description,
            requests_per_second: new.requests_per_second,
            created: clock::date(),
            rotated: None,
            expires: new.expires,
            secret: Secret::of(&secret, sealed.clone()),
            previous: None,
            uses: Uses::new(None, new.requests_per_second),
        };
        self.store.add(&key, &sealed, entry)?;
        Ok(WithSecret { key: self.show(key), token: token(id, &secret) })
    }

    /// Gives a key another secret. The old one still works for `grace`.
    pub fn rotate(&self, id: KeyId, grace: Duration) -> Result<WithSecret, KeyChangeError> {
        let _changing = self.changing();
        let (before, now, secret) = (self.find(id)?, clock::date(), new_secret()?);
        let sealed = self.vault.seal(id, &secret)?;
        let until = (!grace.is_zero()).then(|| now + grace);
        let key = Key {
            id,
            scope: before.scope.clone(),
            description: before.description.clone(),
            requests_per_second: before.requests_per_second,
            created: before.created,
            rotated: Some(now),
            expires: before.expires,
            secret: Secret::of(&secret, sealed.clone()),
            previous: until.map(|until| (before.secret.clone(), until)),
            uses: before.uses.clone(),
        };
        self.store.rotate(&key, &sealed)?;
        Ok(WithSecret { key: self.show(key), token: token(id, &secret) })
    }

    /// Revokes a key: from now on it is worth nothing.
    pub fn revoke(&self, id: KeyId) -> Result<(), KeyChangeError> {
        let _changing = self.changing();
        self.find(id)?;
        self.store.remove(id)?;
        let mut keys = Keys::clone(&self.keys.load());
        keys.remove(&id);
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Whether somebody can manage the host by key.
    pub fn has_manager(&self) -> bool {
        let now = clock::date();
        let manages = |key: &Arc<Key>| key.scope.allows_with_all(Right::Manage) && !key.has_expired(now);
        self.admin_token.is_some() || self.keys.load().values().any(manages)
    }

    /// Stores when keys were last used, of those for which that is not stored yet.
    pub fn store_uses(&self) -> anyhow::Result<()> {
        let keys = self.keys.load_full();
        let uses: Vec<(&Arc<Key>, u64)> = keys
            .values()
            .map(|key| (key, key.uses.last_us()))
            .filter(|(key, last_us)| key.uses.stored_us.load(Ordering::Relaxed) != *last_us)
            .collect();
        if uses.is_empty() {
            return Ok(());
        }
        self.store.note_uses(&uses.iter().map(|(key, last_us)| (key.id, *last_us)).collect::<Vec<_>>())?;
        uses.iter().for_each(|(key, last_us)| key.uses.stored_us.store(*last_us, Ordering::Relaxed));
        Ok(())
    }

    /// The secret that what is sent to addresses for a function is signed with. It is the same for as long as the key file is.
    pub fn webhook_secret(&self, function: &str) -> [u8; 32] {
        self.vault.derive(&format!("webhook\0{function}"))
    }

    /// The secret that addresses are signed with which this host hands out for files.
    pub fn file_secret(&self) -> [u8; 32] {
        self.vault.derive("file")
    }

    /// Notes a change before it is made.
    pub fn note_change(&self, change: &Change) -> anyhow::Result<EntryId> {
        self.store.note_change(change, clock::date(), self.audit_entries_max)
    }

    /// Notes how a change ended.
    pub fn note_end(&self, entry: EntryId, status: u16, detail: &str) -> anyhow::Result<()> {
        self.store.note_end(entry, status, detail)
    }

    /// The newest entries of the audit log that `wanted` holds for and that are older than entry `before`, newest first.
    pub fn audit(
        &self,
        before: Option<u64>,
        limit: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> anyhow::Result<Vec<Entry>> {
        self.store.entries(before, limit, wanted)
    }

    fn find(&self, id: KeyId) -> Result<Arc<Key>, KeyChangeError> {
        if id == KeyId::ADMIN_TOKEN {
            return Err(KeyChangeError::AdminToken);
        }
        self.keys.load().get(&id).cloned().ok_or(KeyChangeError::NotFound(id))
    }

    /// Puts a key among the others. The caller holds `changing`.
    fn show(&self, key: Key) -> Arc<Key> {
        let key = Arc::new(key);
        let mut keys = Keys::clone(&self.keys.load());
        keys.insert(key.id, key.clone());
        self.keys.store(Arc::new(keys));
        key
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().expect("no holder of this lock panics")
    }
}

fn admin_token(token: &str, vault: &Vault) -> anyhow::Result<Arc<Key>> {
    Ok(Arc::new(Key {
        id: KeyId::ADMIN_TOKEN,
        scope: Scope::everything(),
        description: "the host's admin token".to_owned(),
        requests_per_second: None,
        created: UNIX_EPOCH,
        rotated: None,
        expires: None,
        secret: Secret::of(token, vault.seal(KeyId::ADMIN_TOKEN, token)?),
        previous: None,
        uses: Uses::new(None, None),
    }))
}

fn faults(new: &NewKey) -> Vec<String> {
    let mut faults = Vec::new();
    let functions = new.scope.functions.len();
    if !(1..=PATTERNS_MAX).contains(&functions) {
        faults.push(format!(
            "`functions` has {functions} entries; it must have 1 to {PATTERNS_MAX}: names, prefixes as `shop-*`, or `*` for all"
        ));
    }
    if new.scope.rights.is_empty() {
        faults.push("`rights` is empty; it must have at least one of `invoke`, `read` and `manage`".to_owned());
    }
    let letters = new.description.chars().count();
    if letters > DESCRIPTION_MAX {
        faults.push(format!("`description` has {letters} characters; it may have {DESCRIPTION_MAX}"));
    }
    if new.expires.is_some_and(|expires| expires <= clock::date()) {
        faults.push("`expiresAt` is over already".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests;
