//! A function: its newest revision, its published versions and its aliases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::alias::Alias;
use super::asynchronous::AsyncSpec;
use super::revision::Revision;
use super::spec::SettingsSpec;
use super::trigger::TriggerSpecs;
use crate::access::Auth;
use crate::ids::{AliasName, FunctionName, LATEST, RevisionId, VersionNumber};
use crate::log::Log;

/// A function at one time. A change makes a new value of it; whoever holds this one is not disturbed.
#[derive(Clone)]
pub struct Function {
    /// Its name.
    pub name: FunctionName,
    /// Its newest revision: what `LATEST` names.
    pub latest: Arc<Revision>,
    /// `LATEST`, as requests and records have it. One for each function: a single one would be counted by all threads.
    pub(super) latest_label: Arc<str>,
    /// What was published.
    pub versions: BTreeMap<VersionNumber, Version>,
    /// Names for versions.
    pub aliases: BTreeMap<AliasName, Alias>,
    /// What callers must show; none: what the host asks for by default.
    pub auth: Option<Auth>,
    /// How its asynchronous invocations are run.
    pub asynchronous: AsyncSpec,
    /// What invokes it, by name.
    pub triggers: TriggerSpecs,
    /// For people.
    pub description: String,
    /// For people and programs; the host does not read them.
    pub tags: BTreeMap<String, String>,
    /// Whether an operator suspended it.
    pub suspended: bool,
    /// Why an operator disabled it; none if it is enabled.
    pub disabled: Option<String>,
    /// When it was first deployed.
    pub created: SystemTime,
    /// When it last changed.
    pub updated: SystemTime,
    /// What its instances wrote; all revisions share it.
    pub log: Log,
}

/// A revision that was published.
#[derive(Clone)]
pub struct Version {
    /// Its number.
    pub number: VersionNumber,
    /// The number as requests and records have it.
    pub label: Arc<str>,
    /// What was published.
    pub revision: Arc<Revision>,
    /// For people.
    pub description: String,
    /// When it was published.
    pub created: SystemTime,
}

/// What a request gets that names a function and a qualifier.
#[derive(Clone)]
pub struct Target {
    /// What runs.
    pub revision: Arc<Revision>,
    /// Under which name: a version's number, or `LATEST`.
    pub version: Arc<str>,
}

impl Function {
    /// A function that is deployed for the first time.
    pub(super) fn new(latest: Arc<Revision>, log: Log) -> Function {
        let (name, created) = (latest.function.clone(), latest.created);
        Function {
            name,
            latest,
            latest_label: LATEST.into(),
            versions: BTreeMap::new(),
            aliases: BTreeMap::new(),
            auth: None,
            asynchronous: AsyncSpec::default(),
            triggers: TriggerSpecs::new(),
            description: String::new(),
            tags: BTreeMap::new(),
            suspended: false,
            disabled: None,
            created,
            updated: created,
            log,
        }
    }

    /// What `qualifier` names; none: nothing. An alias with weights asks for the request's `place` among them, a number
    /// from 0 to below 1.
    pub fn resolve(&self, qualifier: &str, place: impl FnOnce(&Alias) -> f64) -> Option<Target> {
        if qualifier == LATEST {
            return Some(self.latest());
        }
        let version = match self.aliases.get(qualifier) {
            Some(alias) if alias.weights.is_empty() => self.versions.get(&alias.version),
            Some(alias) => self.versions.get(&alias.version_at(place(alias))),
            None => self.versions.get(&qualifier.parse::<VersionNumber>().ok()?),
        };
        version.map(|version| Target { revision: version.revision.clone(), version: version.label.clone() })
    }

    /// The newest revision.
    pub fn latest(&self) -> Target {
        Target { revision: self.latest.clone(), version: self.latest_label.clone() }
    }

    /// The version that this revision was published as.
    pub fn version_of(&self, revision: RevisionId) -> Option<&Version> {
        self.versions.values().find(|version| version.revision.id == revision)
    }

    /// Whether `LATEST` or a version names this revision.
    pub fn names(&self, revision: RevisionId) -> bool {
        self.latest.id == revision || self.version_of(revision).is_some()
    }

    /// Whether instances of this revision are kept if its settings ask for it: `LATEST` and what an alias names are.
    pub fn keeps(&self, revision: RevisionId) -> bool {
        let aliased = |version: &Version| self.aliases.values().any(|alias| alias.names(version.number));
        self.latest.id == revision || self.version_of(revision).is_some_and(aliased)
    }

    /// All revisions that have a name.
    pub fn revisions(&self) -> impl Iterator<Item = &Arc<Revision>> {
        let versions = self.versions.values().map(|version| &version.revision);
        std::iter::once(&self.latest).chain(versions.filter(|revision| revision.id != self.latest.id))
    }

    /// The settings of `LATEST`, with what belongs to the function as a whole.
    pub fn spec(&self) -> SettingsSpec {
        self.spec_of(&self.latest)
    }

    /// The settings of a revision, with what belongs to the function as a whole.
    pub fn spec_of(&self, revision: &Revision) -> SettingsSpec {
        SettingsSpec {
            auth: self.auth,
            asynchronous: self.asynchronous.clone(),
            triggers: self.triggers.clone(),
            description: self.description.clone(),
            tags: self.tags.clone(),
            ..revision.settings.spec.clone()
        }
    }
}
