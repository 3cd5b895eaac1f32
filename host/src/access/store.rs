//! The tables of keys and of the audit log in SQLite. What was changed is on disk before it is acknowledged.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rusqlite::{Connection, Row, params};

use super::key::{Key, Secret, Uses};
use super::scope::Scope;
use super::vault::Vault;
use crate::clock::{self, microseconds};
use crate::ids::KeyId;
use crate::sqlite::{self, Schema};

const SCHEMA: Schema =
    Schema { version: 1, create: include_str!("schema.sql"), migrations: &[], unmarked_version: 0, shrinks: false };

/// The number of an entry of the audit log whose change has not ended.
#[derive(Clone, Copy, Debug)]
pub struct EntryId(pub(super) i64);

/// The tables. One connection: changes are rare, and keys are read once, at start.
pub(super) struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    pub(super) fn open(path: &Path) -> anyhow::Result<Store> {
        let open = || -> anyhow::Result<Connection> {
            let connection = sqlite::open_durable(path, &SCHEMA)?;
            // What is deleted, an encrypted secret for instance, is overwritten.
            connection.pragma_update(None, "secure_delete", true)?;
            Ok(connection)
        };
        let connection = open().with_context(|| format!("open {}", path.display()))?;
        Ok(Store { connection: Mutex::new(connection) })
    }

    /// Whether no key is stored.
    pub(super) fn has_no_keys(&self) -> anyhow::Result<bool> {
        let any = self.lock().query_row("SELECT EXISTS (SELECT 1 FROM keys)", (), |row| row.get::<_, bool>(0));
        Ok(!any.context("read the access keys")?)
    }

    /// All keys.
    pub(super) fn keys(&self, vault: &Vault) -> anyhow::Result<Vec<Key>> {
        let connection = self.lock();
        let mut statement = connection.prepare("SELECT * FROM keys").context("read the access keys")?;
        let mut rows = statement.query(()).context("read the access keys")?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next().context("read the access keys")? {
            keys.push(key(row, vault).context("read an access key")?);
        }
        Ok(keys)
    }

    /// Stores a new key with its encrypted secret, and its identifier in an entry of the audit log.
    pub(super) fn add(&self, key: &Key, secret: &[u8], entry: Option<EntryId>) -> anyhow::Result<()> {
        let (functions, rights) =
            (serde_json::to_string(&key.scope.functions)?, serde_json::to_string(&key.scope.rights)?);
        let values = params![
            key.id.as_u64().cast_signed(),
            secret,
            key.description,
            functions,
            rights,
            key.requests_per_second.map(NonZeroU32::get),
            microseconds(key.created),
            key.expires.map(microseconds),
        ];
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute(
            "INSERT INTO keys (id, secret, description, functions, rights, requests_per_second, created_us, expires_us, \
             last_used_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0)",
            values,
        )?;
        if let Some(EntryId(entry)) = entry {
            transaction.execute("UPDATE audit SET detail = ?2 WHERE id = ?1", params![entry, key.id.to_string()])?;
        }
        transaction.commit().context("write the access keys")
    }

    /// Replaces the secret of a key. The one before is kept if it still works for some time.
    pub(super) fn rotate(&self, key: &Key, secret: &[u8]) -> anyhow::Result<()> {
        let until = key.previous_until().map(microseconds);
        let values = params![key.id.as_u64().cast_signed(), secret, until, key.rotated.map(microseconds)];
        self.execute(
            "UPDATE keys SET previous_secret = iif(?3 IS NULL, NULL, secret), previous_until_us = ?3, secret = ?2, \
             rotated_us = ?4 WHERE id = ?1",
            values,
        )
    }

    /// Deletes a key.
    pub(super) fn remove(&self, id: KeyId) -> anyhow::Result<()> {
        self.execute("DELETE FROM keys WHERE id = ?1", params![id.as_u64().cast_signed()])
    }

    /// Notes when keys were last used.
    pub(super) fn note_uses(&self, uses: &[(KeyId, u64)]) -> anyhow::Result<()> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        for (id, last_us) in uses {
            let values = params![id.as_u64().cast_signed(), last_us];
            transaction.execute("UPDATE keys SET last_used_us = ?2 WHERE id = ?1", values)?;
        }
        transaction.commit().context("note when access keys were used")
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> anyhow::Result<()> {
        self.lock().execute(sql, values).context("write the access keys")?;
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("no holder of this lock panics")
    }
}

fn key(row: &Row<'_>, vault: &Vault) -> anyhow::Result<Key> {
    let id = KeyId::from_u64(row.get::<_, i64>("id")?.cast_unsigned());
    let read = |sealed: Vec<u8>| vault.unseal(id, &sealed).map(|secret| Secret::of(&secret, sealed));
    let previous: Option<Vec<u8>> = row.get("previous_secret")?;
    let previous = previous.map(read).transpose()?.zip(time(row, "previous_until_us")?);
    let (functions, rights): (String, String) = (row.get("functions")?, row.get("rights")?);
    let requests_per_second = row.get::<_, Option<u32>>("requests_per_second")?.and_then(NonZeroU32::new);
    let last_used = time(row, "last_used_us")?.filter(|used| *used > UNIX_EPOCH);
    Ok(Key {
        id,
        scope: Scope { functions: serde_json::from_str(&functions)?, rights: serde_json::from_str(&rights)? },
        description: row.get("description")?,
        requests_per_second,
        created: time(row, "created_us")?.unwrap_or(UNIX_EPOCH),
        rotated: time(row, "rotated_us")?,
        expires: time(row, "expires_us")?,
        secret: read(row.get("secret")?)?,
        previous,
        uses: Uses::new(last_used, requests_per_second),
    })
}

fn time(row: &Row<'_>, column: &str) -> anyhow::Result<Option<SystemTime>> {
    Ok(row.get::<_, Option<u64>>(column)?.map(clock::from_microseconds))
}
