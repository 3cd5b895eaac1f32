//! Deployed functions: their configuration, their components, and where both are kept.
//!
//! `http` resolves names here without a lock, `control` deploys, configures and deletes. The catalog neither knows nor
//! touches instances: whoever changes a function tells `pool` about it.

mod artifacts;
mod function;
mod settings;
mod store;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::Value;

use self::artifacts::{Artifacts, Stored};
use self::store::Store;
use crate::guest::{Component, Engine, Refusal};
use crate::ids::FunctionName;
use crate::log::Log;
use crate::shutdown::Tasks;

pub use artifacts::ArtifactError;
pub use function::{ExportView, ExportsView, Function};
pub use settings::{Hook, Lifecycle, Settings, SettingsFaults, export_name};

/// All functions; cheap to clone.
#[derive(Clone)]
pub struct Catalog(Arc<Shared>);

struct Shared {
    functions: ArcSwap<HashMap<FunctionName, Arc<Function>>>,
    artifacts: Artifacts,
    store: Store,
    tasks: Tasks,
    /// Held by whoever changes the catalog: changes are applied one after another, on disk and in memory alike.
    changing: tokio::sync::Mutex<()>,
    /// Compiling uses every core already.
    compiling: tokio::sync::Semaphore,
}

/// Why a change to the catalog was refused.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no function of that name.
    #[error("there is no function `{0}`")]
    NotFound(FunctionName),
    /// The component does not fit.
    #[error("the component was refused: {0}")]
    Refused(#[from] Refusal),
    /// The configuration is wrong.
    #[error("the configuration was refused: {0:#}")]
    Settings(anyhow::Error),
    /// The host could not do it.
    #[error("{0:#}")]
    Internal(anyhow::Error),
}

impl From<anyhow::Error> for ChangeError {
    fn from(error: anyhow::Error) -> ChangeError {
        ChangeError::Internal(error)
    }
}

impl From<ArtifactError> for ChangeError {
    fn from(error: ArtifactError) -> ChangeError {
        match error {
            ArtifactError::Refused(refusal) => ChangeError::Refused(refusal),
            ArtifactError::Storage(error) => ChangeError::Internal(error),
        }
    }
}

impl Catalog {
    /// Opens the catalog in `state_dir`, which this host has to itself.
    pub fn open(state_dir: &Path, engine: Engine, tasks: Tasks) -> anyhow::Result<Catalog> {
        let store = Store::open(&state_dir.join("catalog.sqlite"))?;
        let artifacts = Artifacts::open(state_dir, engine)?;
        let functions: HashMap<_, _> =
            store.all()?.into_iter().map(|function| (function.name.clone(), Arc::new(function))).collect();
        artifacts.keep_only(&used(&functions));
        Ok(Catalog(Arc::new(Shared {
            functions: ArcSwap::from_pointee(functions),
            artifacts,
            store,
            tasks,
            changing: tokio::sync::Mutex::default(),
            compiling: tokio::sync::Semaphore::new(1),
        })))
    }

    /// The function, if it is deployed.
    pub fn get(&self, name: &str) -> Option<Arc<Function>> {
        self.0.functions.load().get(name).cloned()
    }

    /// All functions, by name.
    pub fn list(&self) -> Vec<Arc<Function>> {
        let mut functions: Vec<_> = self.0.functions.load().values().cloned().collect();
        functions.sort_by(|one, other| one.name.cmp(&other.name));
        functions
    }

    /// Deploys a component: a new function with defaults, or new code for the one that is there. `patch` changes its
    /// configuration in the same step. Says whether the function is new.
    pub async fn deploy(
        &self,
        name: FunctionName,
        component: Bytes,
        patch: Option<Value>,
    ) -> Result<(Arc<Function>, bool), ChangeError> {
        let component_bytes = component.len() as u64;
        let stored = self.compile(component).await?;
        let _changing = self.0.changing.lock().await;
        let sha256 = stored.sha256.clone();
        let replaced = self.replace(name, stored, component_bytes, patch).await;
        if replaced.is_err() {
            // What was refused after all is not kept.
            self.forget(&sha256).await?;
        }
        replaced
    }

    /// Makes a stored component a function's code. The caller holds `changing`.
    async fn replace(
        &self,
        name: FunctionName,
        stored: Stored,
        component_bytes: u64,
        patch: Option<Value>,
    ) -> Result<(Arc<Function>, bool), ChangeError> {
        let Stored { sha256, component, capacity, .. } = &stored;
        let before = self.get(name.as_str());
        let settings = before.as_ref().map(|before| before.settings.clone()).unwrap_or_default();
        let settings = match &patch {
            Some(patch) => settings.merged(patch).map_err(ChangeError::Settings)?,
            None => settings,
        };
        let exports = ExportsView::new(&component.check(&settings.entry_names())?, *capacity)?;
        let now = SystemTime::now();
        let function = match &before {
            Some(before) => Function {
                revision: before.revision + 1,
                sha256: sha256.clone(),
                component_bytes,
                exports,
                settings,
                updated: now,
                ..Function::clone(before)
            },
            None => Function {
                name,
                revision: 1,
                sha256: sha256.clone(),
                component_bytes,
                exports,
                settings,
                suspended: false,
                created: now,
                updated: now,
                log: Log::default(),
                preparing: Arc::default(),
            },
        };
        Ok((self.put(function).await?, before.is_none()))
    }

    /// Applies a JSON merge patch to a function's configuration.
    pub async fn configure(&self, name: &FunctionName, patch: &Value) -> Result<Arc<Function>, ChangeError> {
        let _changing = self.0.changing.lock().await;
        let before = self.get(name.as_str()).ok_or_else(|| ChangeError::NotFound(name.clone()))?;
        let settings = before.settings.merged(patch).map_err(ChangeError::Settings)?;
        let component = self.component(&before).await?;
        let exports = ExportsView::new(&component.check(&settings.entry_names())?, before.exports.capacity)?;
        let same = settings.runs_like(&before.settings);
        let revision = if same { before.revision } else { before.revision + 1 };
        let function = Function { revision, exports, settings, updated: SystemTime::now(), ..Function::clone(&before) };
        self.put(function).await
    }

    /// Notes whether a function is suspended, so that it still is after a restart.
    pub async fn set_suspended(&self, name: &FunctionName, suspended: bool) -> Result<Arc<Function>, ChangeError> {
        let _changing = self.0.changing.lock().await;
        let before = self.get(name.as_str()).ok_or_else(|| ChangeError::NotFound(name.clone()))?;
        self.put(Function { suspended, ..Function::clone(&before) }).await
    }

    /// Forgets a function.
    pub async fn delete(&self, name: &FunctionName) -> Result<(), ChangeError> {
        let _changing = self.0.changing.lock().await;
        let before = self.get(name.as_str()).ok_or_else(|| ChangeError::NotFound(name.clone()))?;
        let (shared, removed) = (self.0.clone(), name.clone());
        self.0.tasks.blocking(move || shared.store.remove(removed.as_str())).await??;
        self.0.functions.rcu(|functions| {
            let mut functions = HashMap::clone(functions);
            functions.remove(name);
            functions
        });
        self.forget(&before.sha256).await
    }

    /// The function's component, mapped and ready to be instantiated.
    pub async fn component(&self, function: &Function) -> Result<Component, ChangeError> {
        let (shared, sha256) = (self.0.clone(), function.sha256.clone());
        Ok(self.0.tasks.blocking(move || shared.artifacts.load(&sha256)).await??)
    }

    async fn compile(&self, component: Bytes) -> Result<Stored, ChangeError> {
        let _turn = self.0.compiling.acquire().await.context("the host ends")?;
        let shared = self.0.clone();
        Ok(self.0.tasks.blocking(move || shared.artifacts.add(&component)).await??)
    }

    /// Writes a function, and shows it to readers once it is on disk. The caller holds `changing`.
    async fn put(&self, function: Function) -> Result<Arc<Function>, ChangeError> {
        let function = Arc::new(function);
        let before = self.get(function.name.as_str());
        let (shared, written) = (self.0.clone(), function.clone());
        self.0.tasks.blocking(move || shared.store.put(&written)).await??;
        self.0.functions.rcu(|functions| {
            let mut functions = HashMap::clone(functions);
            functions.insert(function.name.clone(), function.clone());
            functions
        });
        if let Some(before) = before {
            self.forget(&before.sha256).await?;
        }
        Ok(function)
    }

    /// Forgets a component if no function uses it any more. The caller holds `changing`.
    async fn forget(&self, sha256: &str) -> Result<(), ChangeError> {
        if self.0.functions.load().values().any(|function| function.sha256 == sha256) {
            return Ok(());
        }
        let (shared, sha256) = (self.0.clone(), sha256.to_owned());
        Ok(self.0.tasks.blocking(move || shared.artifacts.forget(&sha256)).await?)
    }
}

fn used(functions: &HashMap<FunctionName, Arc<Function>>) -> HashSet<String> {
    functions.values().map(|function| function.sha256.clone()).collect()
}
