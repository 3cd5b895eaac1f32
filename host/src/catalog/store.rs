//! The catalog's tables in SQLite. Every change is on disk, whole, before it is acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::alias::Alias;
use super::function::{Function, Version};
use super::revision::Revision;
use super::spec::SettingsSpec;
use crate::access::Auth;
use crate::clock::{self, microseconds};
use crate::ids::{FunctionName, RevisionId, VersionNumber};
use crate::log::{Logs, Owner};
use crate::sqlite::{self, Schema};

const SCHEMA: Schema = Schema {
    version: 5,
    create: concat!(
        include_str!("schema.sql"),
        include_str!("schema_2_to_3.sql"),
        include_str!("schema_3_to_4.sql"),
        include_str!("schema_4_to_5.sql")
    ),
    migrations: &[
        (1, include_str!("schema_1_to_2.sql")),
        (2, include_str!("schema_2_to_3.sql")),
        (3, include_str!("schema_3_to_4.sql")),
        (4, include_str!("schema_4_to_5.sql")),
    ],
    unmarked_version: 1,
    shrinks: false,
};

/// The tables. One connection: changes are rare, and reads happen once, at start.
pub(super) struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    pub(super) fn open(path: &Path) -> anyhow::Result<Store> {
        let open = || -> anyhow::Result<Connection> {
            let connection = sqlite::open_durable(path, &SCHEMA)?;
            connection.pragma_update(None, "foreign_keys", true)?;
            Ok(connection)
        };
        let connection = open().with_context(|| format!("open the catalog {}", path.display()))?;
        Ok(Store { connection: Mutex::new(connection) })
    }

    /// All functions.
    pub(super) fn all(&self, logs: &Logs) -> anyhow::Result<Vec<Function>> {
        let connection = self.lock();
        let revisions = read_all(&connection, "SELECT * FROM revisions", revision)?;
        let revisions: HashMap<RevisionId, Arc<Revision>> =
            revisions.into_iter().map(|revision| (revision.id, Arc::new(revision))).collect();
        let mut versions: HashMap<String, BTreeMap<_, _>> = HashMap::new();
        let read = |row: &Row<'_>| version(row, &revisions);
        for (function, version) in read_all(&connection, "SELECT * FROM versions", read)? {
            versions.entry(function).or_default().insert(version.number, version);
        }
        let mut aliases: HashMap<String, BTreeMap<_, _>> = HashMap::new();
        for (function, alias) in read_all(&connection, "SELECT * FROM aliases", alias)? {
            aliases.entry(function).or_default().insert(alias.name.clone(), alias);
        }
        let read = |row: &Row<'_>| function(row, &revisions, logs);
        let mut functions = read_all(&connection, "SELECT * FROM functions", read)?;
        for function in &mut functions {
            function.versions = versions.remove(function.name.as_str()).unwrap_or_default();
            function.aliases = aliases.remove(function.name.as_str()).unwrap_or_default();
        }
        Ok(functions)
    }

    /// Stores a function whose newest revision is new, and gives that its identifier.
    pub(super) fn add_revision(&self, function: Function) -> anyhow::Result<Function> {
        self.change(|transaction| {
            let revision = Revision::clone(&function.latest);
            transaction.execute(
                "INSERT INTO revisions (function, sha256, component_bytes, exports, settings, created_us)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    revision.function.as_str(),
                    revision.sha256,
                    revision.component_bytes,
                    serde_json::to_string(&revision.exports)?,
                    serde_json::to_string(&revision.settings.spec)?,
                    microseconds(revision.created),
                ],
            )?;
            let id = RevisionId(transaction.last_insert_rowid().unsigned_abs());
            let latest = Arc::new(Revision { id, ..revision });
            let function = Function { latest, ..function };
            put_function(transaction, &function)?;
            drop_nameless(transaction, &function.name)?;
            Ok(function)
        })
    }

    /// Writes a function's own row: not its versions, aliases and revisions.
    pub(super) fn put_function(&self, function: &Function) -> anyhow::Result<()> {
        self.change(|transaction| put_function(transaction, function))
    }

    /// Publishes the function's newest revision under the next number.
    pub(super) fn publish(&self, function: &Function, description: &str, now: SystemTime) -> anyhow::Result<Version> {
        self.change(|transaction| {
            let name = function.name.as_str();
            let last = transaction
                .query_row("SELECT number FROM last_versions WHERE function = ?1", [name], |row| row.get(0))
                .optional()?;
            let last = last.and_then(VersionNumber::from_u64);
            let number = last.map_or(VersionNumber::FIRST, VersionNumber::next);
            transaction
                .execute("INSERT OR REPLACE INTO last_versions VALUES (?1, ?2)", params![name, number.as_u64()])?;
            transaction.execute(
                "INSERT INTO versions VALUES (?1, ?2, ?3, ?4, ?5)",
                params![name, number.as_u64(), function.latest.id.0, description, microseconds(now)],
            )?;
            let (label, revision) = (number.to_string().into(), function.latest.clone());
            Ok(Version { number, label, revision, description: description.to_owned(), created: now })
        })
    }

    /// Removes a version, and its revision if nothing else names it.
    pub(super) fn remove_version(&self, function: &FunctionName, number: VersionNumber) -> anyhow::Result<()> {
        self.change(|transaction| {
            let values = params![function.as_str(), number.as_u64()];
            transaction.execute("DELETE FROM versions WHERE function = ?1 AND number = ?2", values)?;
            drop_nameless(transaction, function)
        })
    }

    /// Writes an alias.
    pub(super) fn put_alias(&self, function: &FunctionName, alias: &Alias) -> anyhow::Result<()> {
        let weights: BTreeMap<u64, f64> =
            alias.weights.iter().map(|(version, weight)| (version.as_u64(), *weight)).collect();
        let earlier: Vec<u64> = alias.earlier.iter().map(|version| version.as_u64()).collect();
        self.change(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO aliases VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    function.as_str(),
                    alias.name.as_str(),
                    alias.version.as_u64(),
                    serde_json::to_string(&weights)?,
                    serde_json::to_string(&earlier)?,
                    alias.description,
                    microseconds(alias.created),
                    microseconds(alias.updated),
                ],
            )?;
            Ok(())
        })
    }

    /// Removes an alias.
    pub(super) fn remove_alias(&self, function: &FunctionName, alias: &str) -> anyhow::Result<()> {
        self.change(|transaction| {
            transaction
                .execute("DELETE FROM aliases WHERE function = ?1 AND name = ?2", params![function.as_str(), alias])?;
            Ok(())
        })
    }

    /// Removes a function with its versions, aliases and revisions.
    pub(super) fn remove(&self, function: &FunctionName) -> anyhow::Result<()> {
        self.change(|transaction| {
            for sql in [
                "DELETE FROM aliases WHERE function = ?1",
                "DELETE FROM versions WHERE function = ?1",
                "DELETE FROM functions WHERE name = ?1",
                "DELETE FROM revisions WHERE function = ?1",
            ] {
                transaction.execute(sql, [function.as_str()])?;
            }
            Ok(())
        })
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let write = || -> anyhow::Result<T> {
            let mut connection = self.lock();
            let transaction = connection.transaction()?;
            let changed = change(&transaction)?;
            transaction.commit()?;
            Ok(changed)
        };
        write().context("write the catalog")
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        read(&self.lock()).context("read the catalog")
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("no holder of this lock panics")
    }
}

fn put_function(transaction: &Transaction<'_>, function: &Function) -> anyhow::Result<()> {
    transaction.execute(
        "INSERT OR REPLACE INTO functions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            function.name.as_str(),
            function.latest.id.0,
            function.description,
            serde_json::to_string(&function.tags)?,
            function.suspended,
            function.disabled,
            microseconds(function.created),
            microseconds(function.updated),
            function.auth.map(Auth::as_str),
            (!function.asynchronous.is_empty()).then(|| serde_json::to_string(&function.asynchronous)).transpose()?,
            (!function.triggers.is_empty()).then(|| serde_json::to_string(&function.triggers)).transpose()?,
        ],
    )?;
    Ok(())
}

/// Removes revisions of a function that neither `LATEST` nor a version names.
fn drop_nameless(transaction: &Transaction<'_>, function: &FunctionName) -> anyhow::Result<()> {
    transaction.execute(
        "DELETE FROM revisions WHERE function = ?1
         AND id NOT IN (SELECT latest FROM functions WHERE name = ?1)
         AND id NOT IN (SELECT revision FROM versions WHERE function = ?1)",
        [function.as_str()],
    )?;
    Ok(())
}

fn read_all<T>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let mut statement = connection.prepare(sql).context("read the catalog")?;
    let mut rows = statement.query(()).context("read the catalog")?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().context("read the catalog")? {
        found.push(read(row).context("read the catalog")?);
    }
    Ok(found)
}

fn revision(row: &Row<'_>) -> anyhow::Result<Revision> {
    let id = RevisionId(row.get("id")?);
    let read = || -> anyhow::Result<Revision> {
        let (exports, settings): (String, String) = (row.get("exports")?, row.get("settings")?);
        let spec: SettingsSpec = serde_json::from_str(&settings)?;
        Ok(Revision {
            id,
            function: row.get::<_, String>("function")?.parse()?,
            sha256: row.get("sha256")?,
            component_bytes: row.get("component_bytes")?,
            exports: serde_json::from_str(&exports)?,
            settings: spec.check()?,
            created: time(row, "created_us")?,
        })
    };
    read().with_context(|| format!("read revision {id}"))
}

fn version(row: &Row<'_>, revisions: &HashMap<RevisionId, Arc<Revision>>) -> anyhow::Result<(String, Version)> {
    let number = number(row.get("number")?)?;
    let version = Version {
        number,
        label: number.to_string().into(),
        revision: find(revisions, RevisionId(row.get("revision")?))?,
        description: row.get("description")?,
        created: time(row, "created_us")?,
    };
    Ok((row.get("function")?, version))
}

fn alias(row: &Row<'_>) -> anyhow::Result<(String, Alias)> {
    let (weights, earlier): (String, String) = (row.get("weights")?, row.get("earlier")?);
    let weights: BTreeMap<u64, f64> = serde_json::from_str(&weights)?;
    let earlier: Vec<u64> = serde_json::from_str(&earlier)?;
    let alias = Alias {
        name: row.get::<_, String>("name")?.parse()?,
        version: number(row.get("version")?)?,
        weights: weights
            .into_iter()
            .map(|(version, weight)| Ok((number(version)?, weight)))
            .collect::<anyhow::Result<_>>()?,
        earlier: earlier.into_iter().map(number).collect::<anyhow::Result<_>>()?,
        description: row.get("description")?,
        created: time(row, "created_us")?,
        updated: time(row, "updated_us")?,
    };
    Ok((row.get("function")?, alias))
}

fn function(row: &Row<'_>, revisions: &HashMap<RevisionId, Arc<Revision>>, logs: &Logs) -> anyhow::Result<Function> {
    let name: String = row.get("name")?;
    let read = || -> anyhow::Result<Function> {
        let tags: String = row.get("tags")?;
        let latest = find(revisions, RevisionId(row.get("latest")?))?;
        let auth = row.get::<_, Option<String>>("auth")?;
        let asynchronous = row.get::<_, Option<String>>("async")?;
        let triggers = row.get::<_, Option<String>>("triggers")?;
        let created = time(row, "created_us")?;
        let log = logs.of(Owner::new(latest.function.clone(), created));
        Ok(Function {
            triggers: triggers.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default(),
            auth: auth.map(|auth| Auth::from_name(&auth).with_context(|| format!("`auth` is `{auth}`"))).transpose()?,
            asynchronous: asynchronous.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default(),
            description: row.get("description")?,
            tags: serde_json::from_str(&tags)?,
            suspended: row.get("suspended")?,
            disabled: row.get("disabled")?,
            created,
            updated: time(row, "updated_us")?,
            ..Function::new(latest, log)
        })
    };
    read().with_context(|| format!("read function `{name}`"))
}

fn find(revisions: &HashMap<RevisionId, Arc<Revision>>, id: RevisionId) -> anyhow::Result<Arc<Revision>> {
    revisions.get(&id).cloned().with_context(|| format!("there is no revision {id}"))
}

fn number(number: u64) -> anyhow::Result<VersionNumber> {
    VersionNumber::from_u64(number).context("a version has the number 0")
}

fn time(row: &Row<'_>, column: &str) -> anyhow::Result<SystemTime> {
    Ok(clock::from_microseconds(row.get(column)?))
}
