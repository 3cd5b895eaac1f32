//! Functions with their revisions, versions and aliases: their settings, their components, and where both are kept.
//!
//! `invoke` resolves names here without a lock; `host` deploys, configures, publishes and deletes. The catalog neither
//! knows nor touches instances: `pool` follows what it says.

mod addresses;
mod alias;
mod artifacts;
mod asynchronous;
mod code;
mod compiler;
mod function;
mod lane;
mod publish;
mod revision;
mod settings;
mod spec;
mod store;
mod trigger;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::Value;

use self::artifacts::{Artifacts, Stored};
use self::compiler::Compiler;
use self::store::Store;
use crate::clock;
use crate::config::CompileBounds;
use crate::guest::{Component, Engine, Refusal};
use crate::ids::{AliasName, FunctionName, RevisionId, VersionNumber};
use crate::log::{Logs, Owner};
use crate::shutdown::Tasks;

pub use addresses::{Address, Addresses};
pub use alias::{Alias, AliasChange};
pub use asynchronous::{AsyncRules, AsyncSpec, Destination, DestinationSpec};
pub use compiler::{CompileError, REFUSED as COMPILE_REFUSED};
pub use function::{Function, Target, Version};
pub use revision::{ExportView, ExportsView, Revision};
pub use settings::{Settings, SettingsFaults};
pub use spec::{Hook, HttpEvent, Lifecycle, SettingsSpec, export_name};
pub use trigger::{
    Cors, HttpTrigger, HttpTriggerSpec, Timer, TimerSpec, TriggerKind, TriggerSpec, TriggerSpecs, is_proxy_path,
    proxy_path,
};
pub use trigger::{NAME_MAX as TRIGGER_NAME_MAX, is_name as is_trigger_name};

/// Functions by name, at one time.
pub type Functions = HashMap<FunctionName, Arc<Function>>;

/// All functions; cheap to clone.
#[derive(Clone)]
pub struct Catalog(Arc<Inner>);

struct Inner {
    functions: ArcSwap<Functions>,
    addresses: ArcSwap<Addresses>,
    artifacts: Artifacts,
    store: Arc<Store>,
    bounds: CatalogBounds,
    logs: Arc<Logs>,
    tasks: Tasks,
    /// Held by whoever changes the catalog: changes are applied one after another, on disk and in memory alike.
    changing: tokio::sync::Mutex<()>,
}

/// How much the catalog may hold.
#[derive(Clone, Copy, Debug)]
pub struct CatalogBounds {
    /// Versions of one function.
    pub versions_max: usize,
    /// Aliases of one function.
    pub aliases_max: usize,
    /// What compiling one component may take.
    pub compile: CompileBounds,
}

/// A component that was compiled and stored, and that no function names yet. If none does in the end, its files go with
/// the next start.
pub struct Compiled(Stored);

impl Compiled {
    /// What was compiled.
    pub fn component(&self) -> &Component {
        &self.0.component
    }
}

/// Why a change to the catalog was refused.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no function of that name.
    #[error("there is no function `{0}`")]
    NotFound(FunctionName),
    /// The function has no such version.
    #[error("function `{0}` has no version {1}")]
    NoVersion(FunctionName, VersionNumber),
    /// The function has no such alias.
    #[error("function `{0}` has no alias `{1}`")]
    NoAlias(FunctionName, AliasName),
    /// The component does not fit.
    #[error("the component was refused: {0}")]
    Refused(#[from] Refusal),
    /// The settings are wrong.
    #[error("the configuration was refused: {0:#}")]
    Settings(anyhow::Error),
    /// What was published last is what would be published now.
    #[error("`LATEST` of function `{0}` is published already, as version {1}; deploy or configure it first")]
    Unchanged(FunctionName, VersionNumber),
    /// Something names the version.
    #[error("version {version} of function `{function}` is named by alias {aliases}; move or delete that first")]
    VersionInUse {
        /// The function.
        function: FunctionName,
        /// The version.
        version: VersionNumber,
        /// What names it.
        aliases: String,
    },
    /// The alias would be wrong.
    #[error("alias `{0}` was refused: {1}")]
    Alias(AliasName, String),
    /// Another function has the address of a trigger.
    #[error(
        "`triggers.{0}`: function `{2}` has the address `{1}`; choose another one, or take it from that function first"
    )]
    AddressTaken(String, String, FunctionName),
    /// A bound of this host.
    #[error("function `{0}` has {1} already, as many as this host allows ({2}); delete some first")]
    TooMany(FunctionName, String, &'static str),
    /// The host stops.
    #[error("the host is shutting down")]
    Draining,
    /// The host could not do it.
    #[error("{0:#}")]
    Internal(anyhow::Error),
}

impl From<anyhow::Error> for ChangeError {
    fn from(error: anyhow::Error) -> ChangeError {
        ChangeError::Internal(error)
    }
}

impl From<CompileError> for ChangeError {
    fn from(error: CompileError) -> ChangeError {
        match error {
            CompileError::Refused(refusal) => ChangeError::Refused(refusal),
            CompileError::Draining => ChangeError::Draining,
            CompileError::Storage(error) => ChangeError::Internal(error),
        }
    }
}

impl Catalog {
    /// Opens the catalog in `state_dir`, which this host has to itself.
    pub fn open(
        state_dir: &Path,
        engine: Engine,
        bounds: CatalogBounds,
        logs: Arc<Logs>,
        tasks: Tasks,
    ) -> anyhow::Result<Catalog> {
        let store = Arc::new(Store::open(&state_dir.join("catalog.sqlite"))?);
        let compiler = Compiler::new(bounds.compile, tasks.clone());
        let artifacts = Artifacts::open(state_dir, engine, compiler, store.clone(), tasks.clone())?;
        let functions: Functions =
            store.all(&logs)?.into_iter().map(|function| (function.name.clone(), Arc::new(function))).collect();
        if functions.is_empty() {
            artifacts.set_aside()?;
        } else {
            artifacts.keep_only(&components(&functions).map(str::to_owned).collect::<HashSet<_>>());
        }
        store.forget_unused_code()?;
        // A catalog that was lost takes nothing along.
        if !functions.is_empty() {
            logs.forget_others();
        }
        Ok(Catalog(Arc::new(Inner {
            addresses: ArcSwap::from_pointee(Addresses::of(&functions)),
            functions: ArcSwap::from_pointee(functions),
            artifacts,
            store,
            bounds,
            logs,
            tasks,
            changing: tokio::sync::Mutex::default(),
        })))
    }

    /// The function, if it is deployed.
    pub fn get(&self, name: &str) -> Option<Arc<Function>> {
        self.0.functions.load().get(name).cloned()
    }

    /// The addresses that functions have of their own.
    pub fn addresses(&self) -> arc_swap::Guard<Arc<Addresses>> {
        self.0.addresses.load()
    }

    /// Refuses an address that another function has. The caller holds `changing`.
    fn check_addresses(&self, function: &Function) -> Result<(), ChangeError> {
        let addresses = self.0.addresses.load();
        for (name, trigger) in function.triggers.iter().filter(|(_, trigger)| trigger.is_enabled()) {
            let Ok(TriggerKind::Http(http)) = trigger.check() else { continue };
            if is_proxy_path(&http.path) && !http.is_own(&function.name) {
                return Err(ChangeError::Settings(anyhow::anyhow!(
                    "`triggers.{name}`: `http.path` below `/2016-08-15/proxy/` and `/2023-03-30/proxy/` can only be the function's own, `{}*`, \
                     without a host name",
                    proxy_path(&function.name)
                )));
            }
            if let Some(other) = addresses.taken(&function.name, &http) {
                return Err(ChangeError::AddressTaken(name.clone(), http.address(), other.function.clone()));
            }
        }
        Ok(())
    }

    /// All functions as they are now.
    pub fn functions(&self) -> Arc<Functions> {
        self.0.functions.load_full()
    }

    /// All functions, by name.
    pub fn list(&self) -> Vec<Arc<Function>> {
        let mut functions: Vec<_> = self.0.functions.load().values().cloned().collect();
        functions.sort_by(|one, other| one.name.cmp(&other.name));
        functions
    }

    /// Compiles and stores a component, for [`Catalog::deploy`]. Whoever stops waiting stops the compiler.
    pub async fn compile(&self, component: Bytes) -> Result<Compiled, ChangeError> {
        Ok(Compiled(self.0.artifacts.add(component).await?))
    }

    /// Deploys a component: a new function with defaults, or new code for the one that is there. `patch` changes its
    /// settings in the same step. Says whether the function is new.
    pub async fn deploy(
        &self,
        name: FunctionName,
        Compiled(stored): Compiled,
        patch: Option<Value>,
    ) -> Result<(Arc<Function>, bool), ChangeError> {
        let _changing = self.0.changing.lock().await;
        let sha256 = stored.sha256.clone();
        let replaced = self.replace(name, stored, patch).await;
        if replaced.is_err() {
            // What was refused after all is not kept.
            self.forget([sha256]).await?;
        }
        replaced
    }

    /// Makes a stored component a function's code. The caller holds `changing`.
    async fn replace(
        &self,
        name: FunctionName,
        stored: Stored,
        patch: Option<Value>,
    ) -> Result<(Arc<Function>, bool), ChangeError> {
        let before = self.get(name.as_str());
        let spec = before.as_ref().map(|before| before.spec()).unwrap_or_default();
        let spec = match &patch {
            Some(patch) => spec.merged(patch).map_err(ChangeError::Settings)?,
            None => spec,
        };
        let settings = checked(&spec)?;
        let exports = ExportsView::new(&stored.component.check(&settings.entry_names)?, stored.capacity)?;
        let created = clock::date();
        let revision = Revision {
            id: RevisionId(0), // The store gives it one.
            function: name.clone(),
            sha256: stored.sha256.clone(),
            component_bytes: stored.bytes,
            exports,
            settings,
            created,
        };
        let latest = Arc::new(revision);
        let function = match &before {
            Some(before) => Function { latest, ..Function::clone(before) },
            None => Function::new(latest, self.0.logs.of(Owner::new(name, created))),
        };
        let function = labelled(function, spec);
        self.check_addresses(&function)?;
        Ok((self.add_revision(function).await?, before.is_none()))
    }

    /// Applies a JSON merge patch to a function's settings. There is a new revision only if it matters to instances.
    pub async fn configure(&self, name: &FunctionName, patch: &Value) -> Result<Arc<Function>, ChangeError> {
        let _changing = self.0.changing.lock().await;
        let before = self.find(name)?;
        let spec = before.spec().merged(patch).map_err(ChangeError::Settings)?;
        let settings = checked(&spec)?;
        let function = labelled(Function::clone(&before), spec);
        self.check_addresses(&function)?;
        let latest = &before.latest;
        if settings.run_like(&latest.settings) {
            return self.put(function).await;
        }
        let component = self.component(latest).await?;
        let exports = ExportsView::new(&component.check(&settings.entry_names)?, latest.exports.capacity)?;
        let revision = Revision {
            id: RevisionId(0), // The store gives it one.
            function: name.clone(),
            sha256: latest.sha256.clone(),
            component_bytes: latest.component_bytes,
            exports,
            settings,
            created: function.updated,
        };
        self.add_revision(Function { latest: Arc::new(revision), ..function }).await
    }

    /// Notes whether a function is suspended, so that it still is after a restart.
    pub async fn set_suspended(&self, name: &FunctionName, suspended: bool) -> Result<Arc<Function>, ChangeError> {
        let _changing = self.0.changing.lock().await;
        let before = self.find(name)?;
        self.put(Function { suspended, ..Function::clone(&before) }).await
    }

    /// Notes whether a function is disabled, and why.
    pub async fn set_disabled(
        &self,
        name: &FunctionName,
        disabled: Option<String>,
    ) -> Result<Arc<Function>, ChangeError> {
        let reason = disabled.as_deref().unwrap_or_default();
        settings::check_text("reason", reason).map_err(|fault| ChangeError::Settings(anyhow::Error::msg(fault)))?;
        let _changing = self.0.changing.lock().await;
        let before = self.find(name)?;
        self.put(Function { disabled, ..Function::clone(&before) }).await
    }

    /// Forgets a function with its versions and aliases.
    pub async fn delete(&self, name: &FunctionName) -> Result<(), ChangeError> {
        let _changing = self.0.changing.lock().await;
        let before = self.find(name)?;
        let removed = name.clone();
        self.write(move |store| store.remove(&removed)).await?;
        self.0.functions.rcu(|functions| {
            let mut functions = HashMap::clone(functions);
            functions.remove(name);
            functions
        });
        self.note_addresses();
        self.0.logs.forget(&before.log);
        self.forget(before.revisions().map(|revision| revision.sha256.clone())).await
    }

    /// A revision's component, mapped and ready to be instantiated.
    pub async fn component(&self, revision: &Revision) -> Result<Component, ChangeError> {
        Ok(self.0.artifacts.load(&revision.sha256).await?)
    }

    /// The file that a revision was deployed as.
    pub fn component_file(&self, revision: &Revision) -> PathBuf {
        self.0.artifacts.component_of(&revision.sha256)
    }

    fn find(&self, name: &FunctionName) -> Result<Arc<Function>, ChangeError> {
        self.get(name.as_str()).ok_or_else(|| ChangeError::NotFound(name.clone()))
    }

    /// Stores a function whose newest revision is new. The caller holds `changing`.
    async fn add_revision(&self, function: Function) -> Result<Arc<Function>, ChangeError> {
        let before = self.get(function.name.as_str());
        let function = self.write(move |store| store.add_revision(function)).await?;
        let function = self.show(function);
        if let Some(before) = before {
            self.forget([before.latest.sha256.clone()]).await?;
        }
        Ok(function)
    }

    /// Writes what belongs to a function as a whole. The caller holds `changing`.
    async fn put(&self, function: Function) -> Result<Arc<Function>, ChangeError> {
        let written = function.clone();
        self.write(move |store| store.put_function(&written)).await?;
        Ok(self.show(function))
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Store) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let inner = self.0.clone();
        self.0.tasks.blocking(move || write(&inner.store)).await?
    }

    /// Lets readers see a function that is on disk. The caller holds `changing`.
    fn show(&self, function: Function) -> Arc<Function> {
        let function = Arc::new(function);
        self.0.functions.rcu(|functions| {
            let mut functions = HashMap::clone(functions);
            functions.insert(function.name.clone(), function.clone());
            functions
        });
        self.note_addresses();
        function
    }

    fn note_addresses(&self) {
        self.0.addresses.store(Arc::new(Addresses::of(&self.0.functions.load())));
    }

    /// Forgets components that no revision uses any more. The caller holds `changing`.
    async fn forget(&self, sha256s: impl IntoIterator<Item = String>) -> Result<(), ChangeError> {
        let mut unused: HashSet<String> = sha256s.into_iter().collect();
        let functions = self.functions();
        for used in components(&functions) {
            unused.remove(used);
        }
        if unused.is_empty() {
            return Ok(());
        }
        let inner = self.0.clone();
        let forget = move || unused.iter().for_each(|sha256| inner.artifacts.forget(sha256));
        Ok(self.0.tasks.blocking(forget).await?)
    }
}

/// The components that revisions with a name use.
fn components(functions: &Functions) -> impl Iterator<Item = &str> {
    functions.values().flat_map(|function| function.revisions()).map(|revision| revision.sha256.as_str())
}

fn checked(spec: &SettingsSpec) -> Result<Settings, ChangeError> {
    spec.check().map_err(|faults| ChangeError::Settings(faults.into()))
}

/// The function with those of its settings that belong to it as a whole.
fn labelled(function: Function, spec: SettingsSpec) -> Function {
    let SettingsSpec { auth, asynchronous, triggers, description, tags, .. } = spec;
    Function { auth, asynchronous, triggers, description, tags, updated: clock::date(), ..function }
}
