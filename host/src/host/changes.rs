//! What operators change of functions. Each change is carried out to its end, and then the pools follow the catalog.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::Host;
use crate::catalog::{Alias, AliasChange, ChangeError, Compiled, Function, Revision, Version};
use crate::guest::Component;
use crate::ids::{AliasName, FunctionName, VersionNumber};

impl Host {
    /// Deploys a component; says whether the function is new. It is stored when this returns, and instances of the
    /// revision before finish their requests and stop. A caller who leaves while it is compiled stops that.
    pub async fn deploy(
        self: &Arc<Self>,
        name: FunctionName,
        component: Bytes,
        patch: Option<Value>,
    ) -> Result<(Arc<Function>, bool), ChangeError> {
        let compiled = self.compile(component).await?;
        self.deploy_compiled(name, compiled, patch).await
    }

    /// Compiles a component, for [`Host::deploy_compiled`]. A caller who leaves meanwhile stops that.
    pub async fn compile(&self, component: Bytes) -> Result<Compiled, ChangeError> {
        self.catalog.compile(component).await
    }

    /// [`Host::deploy`] for a component that was compiled.
    pub async fn deploy_compiled(
        self: &Arc<Self>,
        name: FunctionName,
        compiled: Compiled,
        patch: Option<Value>,
    ) -> Result<(Arc<Function>, bool), ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.deploy(name, compiled, patch).await }).await
    }

    /// The component of a revision, mapped, to look at what it exports.
    pub async fn component(&self, revision: &Revision) -> Result<Component, ChangeError> {
        self.catalog.component(revision).await
    }

    /// The file that a revision was deployed as. It blocks.
    pub fn component_file(&self, revision: &Revision) -> PathBuf {
        self.catalog.component_file(revision)
    }

    /// Changes a function's settings by a JSON merge patch; instances are replaced if it matters to them.
    pub async fn configure(self: &Arc<Self>, name: FunctionName, patch: Value) -> Result<Arc<Function>, ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.configure(&name, &patch).await }).await
    }

    /// Deletes a function with its versions and aliases; its instances serve what was accepted, then stop.
    pub async fn delete(self: &Arc<Self>, name: FunctionName) -> Result<(), ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.delete(&name).await }).await
    }

    /// Stops all of a function's instances where they stand, or lets them go on.
    pub async fn suspend(self: &Arc<Self>, name: FunctionName, suspended: bool) -> Result<Arc<Function>, ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.set_suspended(&name, suspended).await }).await
    }

    /// Refuses calls of a function, for the reason given, or takes them again. Its instances are left alone.
    pub async fn disable(
        self: &Arc<Self>,
        name: FunctionName,
        reason: Option<String>,
    ) -> Result<Arc<Function>, ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.set_disabled(&name, reason).await }).await
    }

    /// Publishes `LATEST` under the next number, and returns the function with its new version.
    pub async fn publish(
        self: &Arc<Self>,
        name: FunctionName,
        description: String,
    ) -> Result<(Arc<Function>, Version), ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.publish(&name, description).await }).await
    }

    /// Deletes a version that no alias names.
    pub async fn delete_version(
        self: &Arc<Self>,
        name: FunctionName,
        version: VersionNumber,
    ) -> Result<(), ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.delete_version(&name, version).await }).await
    }

    /// Makes or moves an alias; says whether it is new.
    pub async fn set_alias(
        self: &Arc<Self>,
        name: FunctionName,
        alias: AliasName,
        change: AliasChange,
    ) -> Result<(Alias, bool), ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.set_alias(&name, alias, change).await }).await
    }

    /// Moves an alias back to the version that it named before.
    pub async fn roll_back(self: &Arc<Self>, name: FunctionName, alias: AliasName) -> Result<Alias, ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.roll_back(&name, &alias).await }).await
    }

    /// Deletes an alias.
    pub async fn delete_alias(self: &Arc<Self>, name: FunctionName, alias: AliasName) -> Result<(), ChangeError> {
        let host = self.clone();
        self.finish(async move { host.catalog.delete_alias(&name, &alias).await }).await
    }

    /// Carries a change of the catalog out to its end, whether or not the caller waits that long, and lets the pools follow.
    async fn finish<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let host = self.clone();
        let finished = self.tasks.finish(async move {
            let changed = change.await;
            host.follow();
            changed
        });
        finished.await?
    }
}
