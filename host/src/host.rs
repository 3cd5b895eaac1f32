//! The host: deployed functions, their instances, the ledger and the metrics, and everything that a plane may ask of them.
//!
//! Running a function is in `invoke`; every other wish of an operator is a method here. The planes only translate.

mod changes;
mod pools;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use self::pools::Preparing;
use crate::access::{Access, Auth};
use crate::catalog::{Address, Catalog, CatalogBounds, Function};
use crate::clock;
use crate::config::Config;
use crate::guest::{Engine, Network, Sender};
use crate::ids::{FunctionName, InstanceId, RevisionId};
use crate::instance;
use crate::ledger::{Ledger, Options, QueryError, Usage, UsageQuery, Visible};
use crate::log::Logs;
use crate::machine::{MAPS_PER_LARGE_INSTANCE, Machine, resident_bytes};
use crate::memory::Governor;
use crate::meter::{Basis, Rest};
use crate::pool::{self, Capacity, CapacityBounds, InstanceCounts, InstanceSnapshot, Moves, Pool, Pools};
use crate::room::Room;
use crate::shutdown::Tasks;
use crate::telemetry::{Charges, FunctionLabels, WorkMetrics};
use crate::traces::Traces;

/// A host without its listeners; see the module.
pub struct Host {
    access: Access,
    /// What callers of functions must show that do not say so themselves.
    auth: Auth,
    catalog: Catalog,
    logs: Arc<Logs>,
    pools: Pools,
    ledger: Ledger,
    registry: Registry,
    /// How long the text of the metrics was when it was last asked for.
    metrics_bytes: AtomicUsize,
    tasks: Tasks,
    preparing: Preparing,
    billing_basis: Basis,
    guest_memory_bytes: Arc<AtomicU64>,
    network: Arc<Network>,
    /// Counts changes of the catalog.
    changes: watch::Sender<u64>,
    metrics: Arc<instance::Metrics>,
    charges: Charges,
    work: WorkMetrics,
    engine: Engine,
    events: Held,
    replies: Held,
    traces: Traces,
}

/// A room, and how much of it is taken.
struct Held {
    room: Room,
    bytes: Gauge,
}

/// How often it is stored when access keys were used.
const KEY_USES_INTERVAL: Duration = Duration::from_secs(60);
/// How long those who are cut off may take to end.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(2);

/// How much of a host is used, and how much there is.
#[derive(Clone, Copy, Debug)]
pub struct HeadRoom {
    /// Instances.
    pub instances: u64,
    /// The most there may be.
    pub instances_max: u64,
    /// Kernel maps that instances may take.
    pub maps: u64,
    /// The most they may take.
    pub maps_max: u64,
    /// Memory that the process has.
    pub resident_bytes: u64,
    /// The most it may have.
    pub memory_bytes_max: u64,
    /// Linear memory of all instances.
    pub guest_memory_bytes: u64,
    /// Requests that wait for an instance.
    pub waiting: usize,
    /// Linear memory of parked instances.
    pub parked_memory_bytes: u64,
    /// Instances that were stopped to make room for others, since the host started.
    pub evictions: u64,
    /// Epochs of 1 ms in which some instance ran, since the host started.
    pub epochs: u64,
    /// Whether the ticker of epochs is awake, because some instance runs.
    pub is_ticking: bool,
}

/// An instance, and the function that it is of.
pub struct Found {
    /// The function.
    pub function: FunctionName,
    /// What it runs.
    pub revision: RevisionId,
    /// The name that it gives as its version.
    pub version: Arc<str>,
    /// The instance.
    pub instance: InstanceSnapshot,
}

impl Host {
    /// Opens everything in the state directory, which this host has to itself. Guests cannot reach its `listeners`.
    pub fn open(
        config: &Config,
        machine: &Machine,
        listeners: Vec<SocketAddr>,
        tasks: Tasks,
    ) -> anyhow::Result<Arc<Host>> {
        let bounds = CapacityBounds {
            instances_max: config.instances_max.unwrap_or(usize::MAX),
            maps_max: machine.instance_maps_max(),
        };
        let memory_bytes_max = config.memory_bytes_max.unwrap_or_else(|| machine.instance_memory_bytes_max());
        log_capacity(machine, bounds, memory_bytes_max);
        let governor = Governor::new(memory_bytes_max, resident_bytes);
        let network = Arc::new(Network::new(listeners, config.outgoing_connections_max));
        let engine = Engine::new(governor.clone(), network.clone())?;
        let options = Options { retention: config.invocation_retention, ..Options::default() };
        let ledger = Ledger::open(&config.state_dir.join("ledger.sqlite"), options)?;
        let guest_memory_bytes = engine.memory_bytes_total();
        let capacity = Capacity::new(bounds, governor);
        let mut registry = Registry::with_prefix("dormouse");
        let labels = FunctionLabels::new(config.metrics_functions_max);
        let metrics = Arc::new(instance::Metrics::register(&mut registry, labels.clone()));
        let work = WorkMetrics::register(&mut registry);
        let pool_metrics = Arc::new(pool::Metrics::register(&mut registry, labels.clone()));
        let charges = Charges::register(&mut registry, labels);
        let mut held = |name, what, megabytes| {
            let bytes = Gauge::default();
            registry.register(name, what, bytes.clone());
            Held { room: Room::new(megabytes), bytes }
        };
        let events = held("event_bytes", "Large events that wait or are handled", config.data.events_memory_mb_max);
        let replies = held("reply_bytes", "Large replies that are being sent", config.data.replies_memory_mb_max);
        let bounds = CatalogBounds {
            versions_max: config.versions_max,
            aliases_max: config.aliases_max,
            compile: config.compile,
        };
        let logs = Arc::new(Logs::open(&config.state_dir.join("logs.sqlite"), config.logs));
        Ok(Arc::new(Host {
            access: Access::open(&config.state_dir, &config.access)?,
            auth: config.data.auth,
            catalog: Catalog::open(&config.state_dir, engine.clone(), bounds, logs.clone(), tasks.clone())?,
            logs,
            pools: Pools::new(tasks.clone(), capacity, pool_metrics, config.instance_moves_max)?,
            ledger,
            registry,
            metrics_bytes: AtomicUsize::default(),
            tasks,
            preparing: Preparing::default(),
            billing_basis: config.billing_basis,
            guest_memory_bytes,
            network,
            changes: watch::Sender::new(0),
            metrics,
            charges,
            work,
            engine,
            events,
            replies,
            traces: Traces::open(config.traces.as_ref())?,
        }))
    }

    /// Memory for events, from when they are read until their calls have ended.
    pub fn event_room(&self) -> &Room {
        &self.events.room
    }

    /// Memory for replies to events, until their callers have read them.
    pub fn reply_room(&self) -> &Room {
        &self.replies.room
    }

    /// Where the spans of requests go.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Starts the instances that are kept even when nobody calls, and what the host does by itself.
    pub fn start(self: &Arc<Self>) {
        self.follow();
        let host = self.clone();
        self.tasks.spawn(async move {
            while tokio::time::timeout(KEY_USES_INTERVAL, host.tasks.drained()).await.is_err() {
                let uses = host.clone();
                let stored = host.tasks.blocking(move || uses.access.store_uses()).await;
                if let Err(error) = stored.flatten() {
                    tracing::warn!("when access keys were used cannot be stored: {error:#}");
                }
            }
        });
    }

    /// The access keys, and the log of what operators changed.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The same, on a thread where blocking is allowed.
    pub async fn change_access<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&Access) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let host = self.clone();
        self.tasks.blocking(move || change(&host.access)).await
    }

    /// What callers of a function must show; of one that is not there the same as by default.
    pub fn auth_of(&self, function: Option<&Function>) -> Auth {
        function.and_then(|function| function.auth).unwrap_or(self.auth)
    }

    /// The drain signal and the tasks of the host.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Instances there are.
    pub fn instance_count(&self) -> usize {
        self.pools.capacity().instances()
    }

    /// Pre-stop hooks that were called so far.
    pub fn pre_stops(&self) -> u64 {
        self.metrics.pre_stops()
    }

    /// Whether what calls use can be stored.
    pub fn ledger_has_room(&self) -> bool {
        self.ledger.has_room()
    }

    /// Whether the ledger can be written.
    pub fn is_ledger_healthy(&self) -> bool {
        self.ledger.healthy()
    }

    /// Everything that is counted, in the OpenMetrics text format.
    pub fn metrics(&self) -> anyhow::Result<String> {
        self.pools.measure(self.guest_memory_bytes.load(Ordering::Relaxed));
        for held in [&self.events, &self.replies] {
            held.bytes.set(held.room.bytes_taken() as i64);
        }
        // As long as the last one: to grow it step by step would copy it as often.
        let mut text = String::with_capacity(self.metrics_bytes.load(Ordering::Relaxed) + 4096);
        encode(&mut text, &self.registry)?;
        self.metrics_bytes.store(text.len(), Ordering::Relaxed);
        Ok(text)
    }

    /// What is counted of asynchronous invocations.
    pub fn work_metrics(&self) -> &WorkMetrics {
        &self.work
    }

    /// All functions, by name.
    pub fn functions(&self) -> Vec<Arc<Function>> {
        self.catalog.list()
    }

    /// The function, if it is deployed.
    pub fn function(&self, name: &str) -> Option<Arc<Function>> {
        self.catalog.get(name)
    }

    /// Says when the catalog changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The function that a host name and a path lead to, beside `/fn/{function}/...`.
    pub fn address(&self, host: &str, path: &str) -> Option<Arc<Address>> {
        self.catalog.addresses().find(host, path).cloned()
    }

    /// The functions that have addresses of their own under a host name.
    pub fn functions_at(&self, host: &str) -> Vec<FunctionName> {
        self.catalog.addresses().functions_at(host)
    }

    /// Sends requests on behalf of a function, where its own may go.
    pub fn sender(&self, function: &Function) -> Sender {
        Sender::new(&function.latest.settings.outbound_hosts, self.network.clone())
    }

    /// How many instances of a function are in which state.
    pub fn instance_counts(&self, function: &FunctionName) -> InstanceCounts {
        self.pools.counts(function)
    }

    /// The same for all functions that have instances.
    pub fn instance_counts_by_function(&self) -> HashMap<FunctionName, InstanceCounts> {
        self.pools.counts_by_function()
    }

    /// How much of the host is used.
    pub fn head_room(&self) -> HeadRoom {
        let capacity = self.pools.capacity();
        let (maps, bounds) = capacity.maps();
        let (epochs, is_ticking) = self.engine.epochs();
        HeadRoom {
            instances: capacity.instances() as u64,
            instances_max: bounds.instances_max as u64,
            maps,
            maps_max: bounds.maps_max,
            resident_bytes: resident_bytes(),
            memory_bytes_max: capacity.governor().bytes_max(),
            guest_memory_bytes: self.guest_memory_bytes.load(Ordering::Relaxed),
            waiting: self.pools.waiting(),
            parked_memory_bytes: self.pools.parked_bytes(),
            evictions: self.metrics.evictions(),
            epochs,
            is_ticking,
        }
    }

    /// Whose revision it is, if it has a pool.
    pub fn function_of(&self, revision: RevisionId) -> Option<FunctionName> {
        self.pools.peek(revision).map(|pool| pool.function().clone())
    }

    /// Requests that each function answered, and those of them that failed, since its pools were made.
    pub fn requests_by_function(&self) -> HashMap<FunctionName, (u64, u64)> {
        self.pools.requests_by_function()
    }

    /// The newest moves of all instances.
    pub fn moves(&self) -> &Arc<Moves> {
        self.pools.moves()
    }

    /// A function's instances, oldest state first.
    pub fn instances(&self, function: &FunctionName) -> Vec<Found> {
        let of_pool = |pool: &Pool| instances_of(pool, |_| true);
        let mut instances: Vec<Found> = self.pools.of(function).iter().flat_map(of_pool).collect();
        instances.sort_by_key(|found| found.instance.since);
        instances
    }

    /// Instances of a revision: those that are wanted.
    pub fn instances_among(&self, revision: RevisionId, wanted: impl Fn(InstanceId) -> bool) -> Vec<Found> {
        self.pools.peek(revision).map(|pool| instances_of(&pool, wanted)).unwrap_or_default()
    }

    /// An instance, if it is there.
    pub fn instance(&self, id: InstanceId) -> Option<Found> {
        self.pools.find(id).map(|(pool, instance)| found(&pool, instance))
    }

    /// Stops an instance in order. False if it is not there.
    pub fn stop_instance(&self, id: InstanceId) -> bool {
        self.pools.stop(id)
    }

    /// Sums of what functions used, of those that are visible. It blocks.
    pub fn usage(&self, query: &UsageQuery, visible: Visible<'_>) -> Result<Usage, QueryError> {
        let mut usage = self.ledger.usage(query, visible)?;
        if query.from.is_none() && query.to.is_none() {
            self.add_parked_now(query, visible, &mut usage);
        }
        Ok(usage)
    }

    /// Asks the ledger on a thread where blocking is allowed.
    pub async fn ask_ledger<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Ledger) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let host = self.clone();
        self.tasks.blocking(move || question(&host.ledger)).await
    }

    /// The ledger learns how long an instance was parked when it wakes; until then the pools know.
    fn add_parked_now(&self, query: &UsageQuery, visible: Visible<'_>, usage: &mut Usage) {
        let now = clock::date();
        for pool in self.pools.all() {
            let is_other = query.function.as_ref().is_some_and(|only| only != pool.function());
            if is_other || !visible(pool.function().as_str()) {
                continue;
            }
            for (instance, parked, bytes) in pool.parked() {
                let rest = Rest { time: parked, bytes };
                usage.add_parked(query.group, (pool.function(), instance), rest, now);
            }
        }
    }

    /// Takes no new requests, answers those that were accepted, stops every instance, and closes the listeners.
    pub async fn drain(&self) {
        self.tasks.begin_drain();
        self.pools.retire_all();
        self.pools.capacity().emptied().await;
        self.tasks.begin_close();
        self.tasks.ended().await;
    }

    /// Ends what the drain has not ended: every request gets an answer and a record, every window its end. For whoever does
    /// not end even then it waits only for so long.
    pub async fn cut_off(&self) {
        self.tasks.begin_cut_off();
        self.pools.cut_off();
        let ended = async {
            self.pools.capacity().emptied().await;
            self.tasks.begin_close();
            self.tasks.ended().await;
        };
        if tokio::time::timeout(CUT_OFF_WITHIN, ended).await.is_err() {
            tracing::warn!(instances = self.instance_count(), "some tasks did not end when they were cut off");
        }
    }

    /// Stores what is still to be stored; nothing can be posted afterwards.
    pub fn close(&self) -> anyhow::Result<()> {
        self.logs.close();
        self.traces.close();
        let uses = self.access.store_uses();
        self.ledger.close().and(uses)
    }
}

fn found(pool: &Pool, instance: InstanceSnapshot) -> Found {
    Found { function: pool.function().clone(), revision: pool.revision(), version: pool.version(), instance }
}

fn instances_of(pool: &Pool, wanted: impl Fn(InstanceId) -> bool) -> Vec<Found> {
    pool.snapshots(wanted).into_iter().map(|instance| found(pool, instance)).collect()
}

fn log_capacity(machine: &Machine, bounds: CapacityBounds, memory_bytes_max: u64) {
    let large_instances_max = bounds.maps_max / MAPS_PER_LARGE_INSTANCE;
    tracing::info!(
        memory_mb = memory_bytes_max >> 20,
        large_instances_max,
        open_files = machine.open_files_max,
        "room for instances"
    );
}
