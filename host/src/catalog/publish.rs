//! Changes of versions and aliases. None of them compiles, copies or disturbs anything that runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::alias::{Alias, AliasChange, check_weights};
use super::function::{Function, Version};
use super::settings::check_text;
use super::{Catalog, ChangeError};
use crate::clock;
use crate::ids::{AliasName, FunctionName, VersionNumber};

impl Catalog {
    /// Publishes `LATEST` under the next number, and returns the function with its new version.
    pub async fn publish(
        &self,
        name: &FunctionName,
        description: String,
    ) -> Result<(Arc<Function>, Version), ChangeError> {
        check_text("description", &description).map_err(|fault| ChangeError::Settings(anyhow::Error::msg(fault)))?;
        let _changing = self.0.changing.lock().await;
        let before = self.find(name)?;
        if let Some(version) = before.version_of(before.latest.id) {
            return Err(ChangeError::Unchanged(name.clone(), version.number));
        }
        let versions_max = self.0.bounds.versions_max;
        if before.versions.len() >= versions_max {
            let count = format!("{versions_max} versions");
            return Err(ChangeError::TooMany(name.clone(), count, "versions-max"));
        }
        let (published, now) = (before.clone(), clock::date());
        let version = self.write(move |store| store.publish(&published, &description, now)).await?;
        let mut function = Function::clone(&before);
        function.versions.insert(version.number, version.clone());
        Ok((self.show(function), version))
    }

    /// Deletes a version that no alias names.
    pub async fn delete_version(&self, name: &FunctionName, number: VersionNumber) -> Result<(), ChangeError> {
        let _changing = self.0.changing.lock().await;
        let mut function = Function::clone(&*self.find(name)?);
        let Some(version) = function.versions.remove(&number) else {
            return Err(ChangeError::NoVersion(name.clone(), number));
        };
        let naming = function.aliases.values().filter(|alias| alias.names(number));
        let aliases: Vec<String> = naming.map(|alias| format!("`{}`", alias.name)).collect();
        if !aliases.is_empty() {
            let aliases = aliases.join(", ");
            return Err(ChangeError::VersionInUse { function: name.clone(), version: number, aliases });
        }
        let owner = name.clone();
        self.write(move |store| store.remove_version(&owner, number)).await?;
        self.show(function);
        self.forget([version.revision.sha256.clone()]).await
    }

    /// Makes an alias, or changes it, in one step. Says whether it is new.
    pub async fn set_alias(
        &self,
        name: &FunctionName,
        alias: AliasName,
        change: AliasChange,
    ) -> Result<(Alias, bool), ChangeError> {
        let _changing = self.0.changing.lock().await;
        let function = self.find(name)?;
        let refused = |text: String| ChangeError::Alias(alias.clone(), text);
        let before = function.aliases.get(&alias);
        let version = change.version.or(before.map(|before| before.version));
        let version = version.ok_or_else(|| refused("`version` is missing; it must name a version".to_owned()))?;
        if let Some(missing) = std::iter::once(&version)
            .chain(change.weights.keys())
            .find(|number| !function.versions.contains_key(number))
        {
            return Err(ChangeError::NoVersion(name.clone(), *missing));
        }
        check_weights(version, &change.weights).map_err(refused)?;
        check_text("description", change.description.as_deref().unwrap_or_default()).map_err(refused)?;
        let aliases_max = self.0.bounds.aliases_max;
        if before.is_none() && function.aliases.len() >= aliases_max {
            let count = format!("{aliases_max} aliases");
            return Err(ChangeError::TooMany(name.clone(), count, "aliases-max"));
        }
        let now = clock::date();
        let is_new = before.is_none();
        let mut after = before.cloned().unwrap_or_else(|| Alias {
            name: alias.clone(),
            version,
            weights: BTreeMap::new(),
            earlier: Vec::new(),
            description: String::new(),
            created: now,
            updated: now,
        });
        after.note_move_to(version);
        (after.version, after.weights, after.updated) = (version, change.weights, now);
        after.description = change.description.unwrap_or(after.description);
        Ok((self.put_alias(&function, after).await?, is_new))
    }

    /// Moves an alias back to the version that it named before, without weights.
    pub async fn roll_back(&self, name: &FunctionName, alias: &AliasName) -> Result<Alias, ChangeError> {
        let _changing = self.0.changing.lock().await;
        let function = self.find(name)?;
        let before = function.aliases.get(alias).ok_or_else(|| ChangeError::NoAlias(name.clone(), alias.clone()))?;
        let mut after = before.clone();
        while let Some(earlier) = after.earlier.pop() {
            // Versions that were deleted since are passed over.
            if function.versions.contains_key(&earlier) && earlier != before.version {
                (after.version, after.weights, after.updated) = (earlier, BTreeMap::new(), clock::date());
                return self.put_alias(&function, after).await;
            }
        }
        Err(ChangeError::Alias(alias.clone(), "it has named no other version before that is still there".to_owned()))
    }

    /// Deletes an alias.
    pub async fn delete_alias(&self, name: &FunctionName, alias: &AliasName) -> Result<(), ChangeError> {
        let _changing = self.0.changing.lock().await;
        let mut function = Function::clone(&*self.find(name)?);
        function.aliases.remove(alias).ok_or_else(|| ChangeError::NoAlias(name.clone(), alias.clone()))?;
        let (owner, removed) = (name.clone(), alias.clone());
        self.write(move |store| store.remove_alias(&owner, removed.as_str())).await?;
        self.show(function);
        Ok(())
    }

    /// Writes an alias. The caller holds `changing`.
    async fn put_alias(&self, function: &Function, alias: Alias) -> Result<Alias, ChangeError> {
        let (owner, written) = (function.name.clone(), alias.clone());
        self.write(move |store| store.put_alias(&owner, &written)).await?;
        let mut function = function.clone();
        function.aliases.insert(alias.name.clone(), alias.clone());
        self.show(function);
        Ok(alias)
    }
}
