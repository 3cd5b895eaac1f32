//! The parts that both planes work with: deployed functions, their instances, the ledger and the metrics; and what
//! takes more than one of them, such as preparing a function's pool or deploying new code under running instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use serde_json::Value;

use crate::catalog::{Catalog, ChangeError, Function};
use crate::config::Config;
use crate::guest::{Blueprint, Engine, HostPattern, Sandbox};
use crate::ids::{FunctionName, LATEST};
use crate::instance::{self, StopReason, Terms};
use crate::ledger::{Ledger, Options};
use crate::machine::{MAPS_PER_LARGE_INSTANCE, Machine, resident_bytes};
use crate::meter::{Basis, Post};
use crate::pool::{self, Bounds, Pool, PoolSettings, Pools, Room, RoomBounds};
use crate::shutdown::Tasks;
use crate::telemetry::Charges;

/// What both planes work with; see the module.
pub struct Parts {
    /// Deployed functions.
    pub catalog: Catalog,
    /// Their instances.
    pub pools: Pools,
    /// What they used.
    pub ledger: Ledger,
    /// What is counted.
    pub registry: Registry,
    /// The drain signal.
    pub tasks: Tasks,
    billing_basis: Basis,
    guest_memory_bytes: Arc<AtomicU64>,
    metrics: Arc<instance::Metrics>,
    charges: Charges,
}

impl Parts {
    /// Opens everything in the state directory, which this host has to itself.
    pub fn open(config: &Config, tasks: Tasks) -> anyhow::Result<Parts> {
        let machine = Machine::read()?;
        let bounds = RoomBounds {
            instances_max: config.instances_max.unwrap_or(usize::MAX),
            maps_max: machine.instance_maps_max(),
            memory_bytes_max: config.memory_bytes_max.unwrap_or_else(|| machine.instance_memory_bytes_max()),
        };
        tell_room(&machine, bounds);
        let engine = Engine::new()?;
        let options = Options { retention: config.invocation_retention, ..Options::default() };
        let ledger = Ledger::open(&config.state_dir.join("ledger.sqlite"), options)?;
        let guest_memory_bytes = engine.memory_bytes_total();
        let room = Room::new(bounds, resident_bytes);
        let mut registry = Registry::with_prefix("dormouse");
        let metrics = Arc::new(instance::Metrics::register(&mut registry));
        let pool_metrics = Arc::new(pool::Metrics::register(&mut registry));
        let charges = Charges::register(&mut registry);
        Ok(Parts {
            catalog: Catalog::open(&config.state_dir, engine, tasks.clone())?,
            pools: Pools::new(tasks.clone(), room, pool_metrics)?,
            ledger,
            registry,
            tasks,
            billing_basis: config.billing_basis,
            guest_memory_bytes,
            metrics,
            charges,
        })
    }

    /// Brings the gauges up to date; called when somebody looks at them.
    pub fn measure(&self) {
        self.pools.measure(self.guest_memory_bytes.load(Ordering::Relaxed));
    }

    /// Pre-stop hooks that were called so far.
    pub fn pre_stops(&self) -> u64 {
        self.metrics.pre_stops()
    }

    /// The pool that serves `function` now.
    pub async fn pool(&self, function: &Arc<Function>) -> Result<Pool, ChangeError> {
        match self.pools.get(&function.name, function.revision) {
            Some(pool) => Ok(pool),
            None => self.prepare(function).await,
        }
    }

    /// Maps the function's code and makes its pool. Requests that come meanwhile wait for the same one.
    async fn prepare(&self, function: &Arc<Function>) -> Result<Pool, ChangeError> {
        let _preparing = function.preparing.lock().await;
        // Somebody may have been here first, and the function may have changed while this one waited.
        let function = self.catalog.get(function.name.as_str()).unwrap_or_else(|| function.clone());
        if let Some(pool) = self.pools.get(&function.name, function.revision) {
            return Ok(pool);
        }
        let component = self.catalog.component(&function).await?;
        let settings = &function.settings;
        let version: Arc<str> = LATEST.into();
        let log = function.log.of_version(version.clone());
        let patterns = settings.allowed_outbound_hosts.iter().map(|host| host.parse::<HostPattern>());
        let sandbox = Sandbox {
            memory_mb: settings.memory_mb,
            environment: &settings.environment,
            outbound_hosts: patterns.collect::<Result<_, _>>().map_err(|fault| ChangeError::Internal(fault.into()))?,
            log: log.clone(),
        };
        let blueprint = Blueprint::new(&component, &settings.entry_names(), sandbox)?;
        let concurrency = if function.exports.shares() { settings.concurrency } else { 1 };
        let requests_max = settings.max_requests_per_instance.or(function.exports.capacity.requests_max);
        let terms = Terms {
            function: function.name.clone(),
            version,
            memory_mb: settings.memory_mb,
            basis: settings.billing_basis.unwrap_or(self.billing_basis),
            concurrency,
            requests_max,
            freeze_after: Duration::from_millis(settings.freeze_after_ms),
            initializer_timeout: settings.lifecycle.initializer.timeout(),
            pre_freeze_timeout: settings.lifecycle.pre_freeze.timeout(),
            pre_stop_timeout: settings.lifecycle.pre_stop.timeout(),
            blueprint: Arc::new(blueprint),
            log,
            post: self.post(&function.name),
            metrics: self.metrics.clone(),
        };
        let pool_settings = PoolSettings {
            bounds: Bounds {
                concurrency,
                requests_max,
                instances_max: settings.max_instances,
                queue_depth: settings.queue_depth,
            },
            instances_min: settings.min_instances,
            idle_timeout: Duration::from_millis(settings.idle_timeout_ms),
            queue_timeout: Duration::from_millis(settings.queue_timeout_ms),
            request_timeout: Duration::from_millis(settings.timeout_ms),
            suspended: function.suspended,
        };
        Ok(self.pools.install(function.revision, Arc::new(terms), pool_settings))
    }

    /// Where readings go: to the ledger, and the sums of ended windows to the metrics.
    fn post(&self, function: &FunctionName) -> Post {
        let (ledger, charges) = (self.ledger.post(), self.charges.of(function));
        Arc::new(move |reading| {
            charges.count(reading);
            ledger(reading);
        })
    }

    /// Deploys a component and lets the instances of the one before it stop. Says whether the function is new.
    pub async fn deploy(
        &self,
        name: FunctionName,
        component: Bytes,
        patch: Option<Value>,
    ) -> Result<(Arc<Function>, bool), ChangeError> {
        let (function, created) = self.catalog.deploy(name, component, patch).await?;
        self.changed(&function).await?;
        Ok((function, created))
    }

    /// Changes a function's configuration; instances of the old one stop if it matters to them.
    pub async fn configure(&self, name: &FunctionName, patch: &Value) -> Result<Arc<Function>, ChangeError> {
        let function = self.catalog.configure(name, patch).await?;
        self.changed(&function).await?;
        Ok(function)
    }

    /// Forgets a function; its instances serve what was accepted, then stop.
    pub async fn delete(&self, name: &FunctionName) -> Result<(), ChangeError> {
        self.catalog.delete(name).await?;
        self.pools.remove(name, StopReason::Deleted);
        Ok(())
    }

    /// Stops all of a function's instances where they stand.
    pub async fn suspend(&self, name: &FunctionName) -> Result<Arc<Function>, ChangeError> {
        let function = self.catalog.set_suspended(name, true).await?;
        if let Some(pool) = self.pools.newest(name) {
            pool.suspend();
        }
        Ok(function)
    }

    /// Lets them go on.
    pub async fn resume(&self, name: &FunctionName) -> Result<Arc<Function>, ChangeError> {
        let function = self.catalog.set_suspended(name, false).await?;
        if let Some(pool) = self.pools.newest(name) {
            pool.resume();
        }
        Ok(function)
    }

    /// A function that has instances, or must have some, gets its new pool now; others when they are called.
    async fn changed(&self, function: &Arc<Function>) -> Result<(), ChangeError> {
        if self.pools.newest(&function.name).is_some() || function.settings.min_instances > 0 {
            self.pool(function).await?;
        }
        Ok(())
    }

    /// Starts the instances that are kept even when nobody calls.
    pub async fn start_minimum(&self) {
        for function in self.catalog.list().iter().filter(|function| function.settings.min_instances > 0) {
            if let Err(error) = self.pool(function).await {
                tracing::error!(function = %function.name, "cannot prepare the function: {error}");
            }
        }
    }

    /// Takes no new requests, answers those that were accepted, stops every instance, and closes the listeners.
    pub async fn drain(&self) {
        self.tasks.begin_drain();
        self.pools.retire_all();
        self.pools.room().emptied().await;
        self.tasks.begin_close();
        self.tasks.ended().await;
    }
}

fn tell_room(machine: &Machine, bounds: RoomBounds) {
    let large_instances_max = bounds.maps_max / MAPS_PER_LARGE_INSTANCE;
    tracing::info!(
        memory_mb = bounds.memory_bytes_max >> 20,
        large_instances_max,
        open_files = machine.open_files_max,
        "room for instances; more of large components need a higher vm.max_map_count (now {})",
        machine.maps_max,
    );
}
