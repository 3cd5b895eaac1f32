//! What these APIs keep beside the catalog: services, and settings that have no counterpart here. All of it is in memory as
//! well, so that reading waits for no disk; what was changed is on disk before it is acknowledged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use anyhow::Context as _;
use rusqlite::{Connection, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fault::Fault;
use crate::clock::{self, microseconds};
use crate::shutdown::Tasks;
use crate::sqlite::{self, Schema};

const SCHEMA: Schema =
    Schema { version: 1, create: include_str!("schema.sql"), migrations: &[], unmarked_version: 0, shrinks: false };
/// Documents of one kind that a function may have.
const OWNED_MAX: usize = 100;
/// Bytes of a document; a service's has its versions.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;
const SERVICE_BYTES_MAX: usize = 1 << 20;

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A service.
    Service,
    /// A trigger that never fires here.
    Trigger,
    /// What a client said of asynchronous invocations beside the rules that are settings.
    Async,
    /// How many instances are kept.
    Provision,
    /// How many instances there may be.
    OnDemand,
    /// How many instances are set aside.
    Concurrency,
    /// How the number of instances follows the load.
    Scaling,
    /// A custom domain.
    Domain,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Service,
        Kind::Trigger,
        Kind::Async,
        Kind::Provision,
        Kind::OnDemand,
        Kind::Concurrency,
        Kind::Scaling,
        Kind::Domain,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Kind::Service => "service",
            Kind::Trigger => "trigger",
            Kind::Async => "async",
            Kind::Provision => "provision",
            Kind::OnDemand => "on-demand",
            Kind::Concurrency => "concurrency",
            Kind::Scaling => "scaling",
            Kind::Domain => "domain",
        }
    }
}

/// A document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    pub(super) name: String,
    /// The function that it belongs to.
    pub(super) owner: String,
    pub(super) value: Value,
    pub(super) created: SystemTime,
    pub(super) updated: SystemTime,
}

impl Document {
    /// The value as what it was made of.
    pub(super) fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_value(self.value.clone()).with_context(|| format!("read `{}`", self.name))
    }
}

type Documents = BTreeMap<(Kind, String, String), Arc<Document>>;

/// The documents. Cheap to clone.
#[derive(Clone)]
pub(super) struct Store(Arc<Inner>);

struct Inner {
    connection: Mutex<Connection>,
    documents: Mutex<Documents>,
    services_max: usize,
    tasks: Tasks,
}

impl Store {
    pub(super) fn open(path: &Path, services_max: usize, tasks: Tasks) -> anyhow::Result<Store> {
        let open = || -> anyhow::Result<(Connection, Documents)> {
            let connection = sqlite::open_durable(path, &SCHEMA)?;
            let documents = read_all(&connection)?;
            Ok((connection, documents))
        };
        let (connection, documents) = open().with_context(|| format!("open {}", path.display()))?;
        let (connection, documents) = (Mutex::new(connection), Mutex::new(documents));
        Ok(Store(Arc::new(Inner { connection, documents, services_max, tasks })))
    }

    pub(super) fn get(&self, kind: Kind, owner: &str, name: &str) -> Option<Arc<Document>> {
        self.documents().get(&(kind, owner.to_owned(), name.to_owned())).cloned()
    }

    /// All of a kind, by owner and name.
    pub(super) fn list(&self, kind: Kind) -> Vec<Arc<Document>> {
        let from = (kind, String::new(), String::new());
        let documents = self.documents();
        let own = documents.range(from..).take_while(|((own, _, _), _)| *own == kind);
        own.map(|(_, document)| document.clone()).collect()
    }

    /// All of a kind that a function has, by name.
    pub(super) fn of(&self, kind: Kind, owner: &str) -> Vec<Arc<Document>> {
        let from = (kind, owner.to_owned(), String::new());
        let documents = self.documents();
        let own = documents.range(from..).take_while(|((own, of, _), _)| *own == kind && of == owner);
        own.map(|(_, document)| document.clone()).collect()
    }

    /// Writes a document over the one of that name, if there is one.
    pub(super) async fn put(
        &self,
        kind: Kind,
        owner: &str,
        name: &str,
        value: &impl Serialize,
    ) -> Result<Arc<Document>, Fault> {
        let (now, before) = (clock::date(), self.get(kind, owner, name));
        if before.is_none() {
            let (count, max) = match kind {
                Kind::Service | Kind::Domain => (self.list(kind).len(), self.0.services_max),
                _ => (self.of(kind, owner).len(), OWNED_MAX),
            };
            if count >= max {
                let message =
                    format!("there are {max} of these already, as many as this host allows; delete some first");
                return Err(Fault::new(http::StatusCode::BAD_REQUEST, "LimitExceededError", message));
            }
        }
        let value = serde_json::to_value(value).map_err(anyhow::Error::from)?;
        let text = value.to_string();
        let bytes_max = if kind == Kind::Service { SERVICE_BYTES_MAX } else { DOCUMENT_BYTES_MAX };
        if text.len() > bytes_max {
            let message = format!(
                "what is to be kept of {} `{name}` has {} bytes; at most {bytes_max}",
                kind.as_str(),
                text.len()
            );
            return Err(Fault::invalid(message));
        }
        let created = before.map_or(now, |before| before.created);
        let (name, owner) = (name.to_owned(), owner.to_owned());
        let document = Arc::new(Document { name, owner, value, created, updated: now });
        let (inner, written) = (self.0.clone(), document.clone());
        let write = move || -> anyhow::Result<()> {
            let Document { name, owner, created, updated, .. } = &*written;
            let values = params![kind.as_str(), owner, name, text, microseconds(*created), microseconds(*updated)];
            let connection = inner.connection.lock().expect("no holder of this lock panics");
            connection.execute("INSERT OR REPLACE INTO documents VALUES (?1, ?2, ?3, ?4, ?5, ?6)", values)?;
            Ok(())
        };
        self.0.tasks.blocking(write).await?.context("write what Function Compute's clients set")?;
        self.documents().insert((kind, document.owner.clone(), document.name.clone()), document.clone());
        Ok(document)
    }

    /// Removes a document. False if there is none.
    pub(super) async fn remove(&self, kind: Kind, owner: &str, name: &str) -> Result<bool, Fault> {
        if self.get(kind, owner, name).is_none() {
            return Ok(false);
        }
        let (owner, name) = (owner.to_owned(), name.to_owned());
        let values = (kind.as_str(), owner.clone(), name.clone());
        self.execute("DELETE FROM documents WHERE kind = ?1 AND owner = ?2 AND name = ?3", values).await?;
        self.documents().remove(&(kind, owner, name));
        Ok(true)
    }

    /// Removes everything that belongs to a function.
    pub(super) async fn forget(&self, owner: &str) -> Result<(), Fault> {
        self.execute("DELETE FROM documents WHERE owner = ?1", (owner.to_owned(),)).await?;
        self.documents().retain(|(_, of, _), _| of != owner);
        Ok(())
    }

    async fn execute(&self, sql: &'static str, values: impl rusqlite::Params + Send + 'static) -> Result<(), Fault> {
        let inner = self.0.clone();
        let write = move || {
            let connection = inner.connection.lock().expect("no holder of this lock panics");
            connection.execute(sql, values).context("write what Function Compute's clients set")
        };
        self.0.tasks.blocking(write).await??;
        Ok(())
    }

    fn documents(&self) -> MutexGuard<'_, Documents> {
        self.0.documents.lock().expect("no holder of this lock panics")
    }
}

fn read_all(connection: &Connection) -> anyhow::Result<Documents> {
    let mut statement = connection.prepare("SELECT * FROM documents")?;
    let mut rows = statement.query(())?;
    let mut documents = Documents::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get("kind")?;
        // A newer host may keep more.
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == text) else { continue };
        let (owner, name, value): (String, String, String) = (row.get("owner")?, row.get("name")?, row.get("value")?);
        let time = |column| row.get::<_, u64>(column).map(clock::from_microseconds);
        let value = match serde_json::from_str(&value) {
            Ok(value) => value,
            // One that cannot be read is not to keep the others away.
            Err(error) => {
                tracing::error!("{text} `{name}` of Function Compute's APIs cannot be read, and is left out: {error}");
                continue;
            }
        };
        let (created, updated) = (time("created_us")?, time("updated_us")?);
        let document = Document { name: name.clone(), owner: owner.clone(), value, created, updated };
        documents.insert((kind, owner, name), Arc::new(document));
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn documents_are_there_after_a_restart_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fc.sqlite");
        let open = || Store::open(&path, 2, Tasks::default()).unwrap();
        let store = open();
        let first = store.put(Kind::Service, "", "shop", &json!({"a": 1})).await.unwrap();
        let second = store.put(Kind::Service, "", "shop", &json!({"a": 2})).await.unwrap();
        assert_eq!((first.created, second.value["a"].as_u64()), (second.created, Some(2)));
        store.put(Kind::Trigger, "shop.cart", "t", &json!({})).await.unwrap();
        store.put(Kind::Trigger, "shop.cart2", "t", &json!({})).await.unwrap();
        store.put(Kind::Service, "", "other", &json!({})).await.unwrap();
        let full = store.put(Kind::Service, "", "third", &json!({})).await.unwrap_err();
        assert_eq!(full.code, "LimitExceededError");
        drop(store);

        let store = open();
        assert_eq!(store.get(Kind::Service, "", "shop").unwrap().value, json!({"a": 2}));
        assert_eq!(store.of(Kind::Trigger, "shop.cart").len(), 1);
        assert_eq!(store.list(Kind::Trigger).len(), 2);
        store.forget("shop.cart").await.unwrap();
        assert!(store.remove(Kind::Service, "", "other").await.unwrap());
        assert!(!store.remove(Kind::Service, "", "other").await.unwrap());
        drop(store);
        let store = open();
        assert_eq!((store.list(Kind::Trigger).len(), store.list(Kind::Service).len()), (1, 1));
    }
}
