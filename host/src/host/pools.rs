//! Pools that follow the catalog: how a revision's pool is made, and what becomes of it when it cannot be.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Host;
use crate::catalog::{ChangeError, Function, Revision};
use crate::guest::{Blueprint, Sandbox};
use crate::ids::{FunctionName, RevisionId, VersionLabel};
use crate::instance::{StopReason, Terms};
use crate::meter::Post;
use crate::pool::{Bounds, Pinned, PoolSettings, Wanted};

/// How long after a pool could not be made the host tries again by itself.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// What is going on, and what went wrong, with making pools.
#[derive(Default)]
pub(super) struct Preparing {
    /// Held while a revision is prepared, so that it happens once.
    turns: Mutex<HashMap<RevisionId, Arc<tokio::sync::Mutex<()>>>>,
    /// Why the pools of revisions could not be made.
    faults: Mutex<HashMap<RevisionId, String>>,
    /// Revisions that are prepared before anybody calls them, each by one task.
    ahead: Mutex<HashSet<RevisionId>>,
}

impl Preparing {
    fn turn(&self, revision: RevisionId) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.lock().expect("no holder of this lock panics").entry(revision).or_default().clone()
    }

    /// Forgets a turn that nobody else waits for.
    fn end(&self, revision: RevisionId, turn: Arc<tokio::sync::Mutex<()>>) {
        let mut turns = self.turns.lock().expect("no holder of this lock panics");
        drop(turn);
        if turns.get(&revision).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&revision);
        }
    }

    /// False if a task prepares the revision already.
    fn begin_ahead(&self, revision: RevisionId) -> bool {
        self.ahead.lock().expect("no holder of this lock panics").insert(revision)
    }

    fn end_ahead(&self, revision: RevisionId) {
        self.ahead.lock().expect("no holder of this lock panics").remove(&revision);
    }

    fn note(&self, revision: RevisionId, fault: Option<String>) {
        let mut faults = self.faults.lock().expect("no holder of this lock panics");
        match fault {
            Some(fault) => faults.insert(revision, fault),
            None => faults.remove(&revision),
        };
    }

    fn fault(&self, revision: RevisionId) -> Option<String> {
        self.faults.lock().expect("no holder of this lock panics").get(&revision).cloned()
    }

    /// Forgets what was wrong with revisions that are gone.
    fn keep_only(&self, named: impl Fn(RevisionId) -> bool) {
        self.faults.lock().expect("no holder of this lock panics").retain(|revision, _| named(*revision));
    }
}

impl Host {
    /// The pool of a revision, if there is one.
    pub(crate) fn pinned(&self, revision: &Revision) -> Option<Pinned> {
        self.pools.get(revision.id)
    }

    /// Why instances of this revision cannot be started, if the last try to do so failed.
    pub fn fault(&self, revision: RevisionId) -> Option<String> {
        self.preparing.fault(revision).or_else(|| self.pools.fault(revision))
    }

    /// Maps a revision's code and makes its pool. Calls that come meanwhile wait for the same one.
    pub(crate) async fn prepare(&self, function: &Function, revision: &Arc<Revision>) -> Result<Pinned, ChangeError> {
        let turn = self.preparing.turn(revision.id);
        let prepared = async {
            let _turn = turn.lock().await;
            // Somebody may have been here first.
            match self.pools.get(revision.id) {
                Some(pool) => Ok(pool),
                None => self.make_pool(function, revision).await,
            }
        };
        let prepared = prepared.await;
        self.preparing.end(revision.id, turn);
        if let Err(error) = &prepared {
            tracing::error!(function = %function.name, revision = %revision.id, "cannot start instances: {error}");
        }
        self.preparing.note(revision.id, prepared.as_ref().err().map(ToString::to_string));
        prepared
    }

    async fn make_pool(&self, function: &Function, revision: &Arc<Revision>) -> Result<Pinned, ChangeError> {
        let component = self.catalog.component(revision).await?;
        let settings = &revision.settings;
        let published = function.version_of(revision.id).map(|version| version.label.clone());
        let version = VersionLabel::new(published.unwrap_or_else(|| function.latest().version));
        let log = function.log.of_version(version.clone());
        let sandbox = Sandbox {
            memory_mb: settings.memory_mb,
            environment: settings.environment(),
            outbound_hosts: settings.outbound_hosts.clone(),
            log: log.clone(),
        };
        let blueprint = Blueprint::new(&component, &settings.entry_names, sandbox)?;
        let concurrency = if revision.exports.shares() { settings.concurrency } else { 1 };
        let requests_max = settings.requests_max.or(revision.exports.capacity.requests_max);
        let started_within = if blueprint.exports.initializer.is_some() {
            settings.initializer_timeout
        } else {
            settings.request_timeout
        };
        let terms = Terms {
            function: function.name.clone(),
            version,
            memory_mb: settings.memory_mb,
            basis: settings.billing_basis.unwrap_or(self.billing_basis),
            concurrency,
            requests_max,
            freeze_after: settings.freeze_after,
            start_timeout: started_within,
            initializer_timeout: settings.initializer_timeout,
            pre_freeze_timeout: settings.pre_freeze_timeout,
            pre_stop_timeout: settings.pre_stop_timeout,
            blueprint: Arc::new(blueprint),
            log,
            post: self.post(&function.name),
            metrics: self.metrics.clone(),
            hook_times: self.metrics.hook_times(&function.name),
        };
        let pool_settings = PoolSettings {
            bounds: Bounds {
                concurrency,
                requests_max,
                instances_max: settings.instances_max,
                queue_depth: settings.queue_depth,
            },
            idle_timeout: settings.idle_timeout,
            queue_timeout: settings.queue_timeout,
            request_timeout: settings.request_timeout,
        };
        let wanted_of = |name: &FunctionName, revision| self.wanted(name, revision);
        Ok(self.pools.make(revision.id, Arc::new(terms), pool_settings, &wanted_of))
    }

    /// Makes every pool what the catalog wants now, and prepares those that must be there before anybody calls. To be
    /// called after each change of the catalog.
    pub(super) fn follow(self: &Arc<Self>) {
        let updated = self.pools.follow(&|name: &FunctionName, revision| self.wanted(name, revision));
        let functions = self.catalog.functions();
        let newest = updated.iter().filter_map(|name| functions.get(name)).map(|function| (function, &function.latest));
        let kept =
            functions.values().flat_map(|function| function.revisions().map(move |revision| (function, revision)));
        let kept =
            kept.filter(|(function, revision)| revision.settings.instances_min > 0 && function.keeps(revision.id));
        for (function, revision) in newest.chain(kept).filter(|(_, revision)| self.pinned(revision).is_none()) {
            if !self.preparing.begin_ahead(revision.id) {
                continue;
            }
            let (host, function, revision) = (self.clone(), function.clone(), revision.clone());
            self.tasks.spawn(async move {
                host.prepare_ahead(&function, &revision).await;
                host.preparing.end_ahead(revision.id);
            });
        }
        self.changes.send_modify(|count| *count += 1);
        self.preparing.keep_only(|revision| functions.values().any(|function| function.names(revision)));
    }

    /// Prepares a revision before anybody calls it. If that fails, it is tried again for as long as it is wanted.
    async fn prepare_ahead(self: &Arc<Self>, function: &Function, revision: &Arc<Revision>) {
        while self.prepare(function, revision).await.is_err() {
            tokio::select! {
                () = tokio::time::sleep(RETRY_DELAY) => {}
                () = self.tasks.drained() => return,
            }
            if self.wanted(&function.name, revision.id).is_err() {
                return;
            }
        }
    }

    /// What the catalog wants of a revision's pool, or why it wants it no more.
    fn wanted(&self, name: &FunctionName, revision: RevisionId) -> Result<Wanted, StopReason> {
        let function = self.catalog.get(name.as_str()).ok_or(StopReason::Deleted)?;
        if !function.names(revision) {
            return Err(StopReason::Updated);
        }
        let version = function.version_of(revision);
        let settings = version.map_or(&function.latest.settings, |version| &version.revision.settings);
        Ok(Wanted {
            suspended: function.suspended,
            instances_min: if function.keeps(revision) { settings.instances_min } else { 0 },
            version: version.map_or_else(|| function.latest().version, |version| version.label.clone()),
        })
    }

    /// Where readings go: to the ledger, and the sums of ended windows to the metrics.
    fn post(&self, function: &FunctionName) -> Post {
        let (ledger, charges) = (self.ledger.post(), self.charges.of(function));
        Arc::new(move |reading| {
            charges.count(reading);
            ledger(reading);
        })
    }
}
