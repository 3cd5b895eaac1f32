//! All pools of a host, and the reconciler that makes them what the catalog wants.
//!
//! [`Pools::follow`] compares every pool with what is wanted of it now and makes the difference go away. It does not
//! matter what happened before, or in which order: whoever changes the catalog or makes a pool calls it afterwards, under
//! one lock, so that the last call sees the last state of both.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use super::board::Moves;
use super::capacity::Capacity;
use super::compute::Compute;
use super::context::{Context, Needs};
use super::counts::InstanceCounts;
use super::entry::InstanceSnapshot;
use super::metrics::Metrics;
use super::policy::{Change, Wanted};
use super::pool::{Pinned, Pool, PoolSettings};
use super::reaper::Reaper;
use crate::ids::{FunctionName, InstanceId, RevisionId};
use crate::instance::{CutOff, StopReason, Terms};
use crate::shutdown::Tasks;

/// The pools by revision. Readers take no lock; a change copies the map.
type Registry = Arc<ArcSwap<HashMap<RevisionId, Pool>>>;

/// What is wanted of a revision's pool, or why it is wanted no more.
pub(crate) type WantedOf<'a> = &'a (dyn Fn(&FunctionName, RevisionId) -> Result<Wanted, StopReason> + Sync);

/// All pools of a host; cheap to clone.
#[derive(Clone)]
pub struct Pools {
    context: Context,
    registry: Registry,
    /// Held by whoever compares pools with the catalog.
    following: Arc<Mutex<()>>,
}

impl Pools {
    /// No pools yet; starts the reaper, and threads for guests that compute.
    pub fn new(tasks: Tasks, capacity: Capacity, metrics: Arc<Metrics>, moves_max: usize) -> std::io::Result<Pools> {
        let runtime = Handle::current();
        let compute = Compute::start(&runtime)?;
        let (reaper, registry) = (Reaper::default(), Registry::default());
        let parked = registry.clone();
        let evict = Arc::new(move |needs| evict(&parked, needs).is_some());
        let moves = Moves::new(moves_max);
        let context = Context { tasks, runtime, compute, capacity, reaper, metrics, moves, evict };
        let pools = Pools { context, registry, following: Arc::default() };
        let reaping = pools.clone();
        pools.context.spawn(async move { reaping.reap().await });
        let keeping = pools.clone();
        pools.context.spawn(async move { keeping.keep_memory().await });
        Ok(pools)
    }

    /// The pool of this revision, if there is one.
    pub fn get(&self, revision: RevisionId) -> Option<Pinned> {
        self.registry.load().get(&revision).cloned().map(Pool::pin)
    }

    /// The same, for those who only look: it may go meanwhile.
    pub fn peek(&self, revision: RevisionId) -> Option<Pool> {
        self.registry.load().get(&revision).cloned()
    }

    /// What is wrong with a revision's instances, if several in a row ended before they were ready.
    pub fn fault(&self, revision: RevisionId) -> Option<String> {
        self.registry.load().get(&revision)?.fault()
    }

    /// Makes the pool of a revision, unless there is one, and makes it what is wanted at once: the catalog may have
    /// changed while the revision was prepared.
    pub fn make(
        &self,
        revision: RevisionId,
        terms: Arc<Terms>,
        settings: PoolSettings,
        wanted_of: WantedOf<'_>,
    ) -> Pinned {
        let _following = self.following.lock().expect("no holder of this lock panics");
        if let Some(pool) = self.get(revision) {
            return pool;
        }
        let pool = Pool::new(revision, terms, settings, self.context.clone());
        let pinned = pool.clone().pin();
        if self.context.tasks.draining() {
            // The drain may have gone through all pools already.
            pool.retire(StopReason::Shutdown);
        }
        self.registry.rcu(|pools| {
            let mut pools = HashMap::clone(pools);
            pools.insert(revision, pool.clone());
            pools
        });
        pool.follow(wanted_of(pool.function(), revision).as_ref().map_err(|reason| *reason));
        pinned
    }

    /// Makes every pool what is wanted of it. Names the functions whose instances were told to stop for newer ones.
    pub fn follow(&self, wanted_of: WantedOf<'_>) -> Vec<FunctionName> {
        let _following = self.following.lock().expect("no holder of this lock panics");
        let mut updated = Vec::new();
        for pool in self.registry.load().values() {
            let wanted = wanted_of(pool.function(), pool.revision());
            let change = pool.follow(wanted.as_ref().map_err(|reason| *reason));
            if change == Some(Change::Retire(StopReason::Updated)) {
                updated.push(pool.function().clone());
            }
        }
        updated
    }

    /// The pools of a function: of `LATEST`, of versions, and of what is about to go.
    pub fn of(&self, function: &FunctionName) -> Vec<Pool> {
        self.registry.load().values().filter(|pool| pool.function() == function).cloned().collect()
    }

    /// Every pool.
    pub fn all(&self) -> Vec<Pool> {
        self.registry.load().values().cloned().collect()
    }

    /// How many instances of a function are in which state.
    pub fn counts(&self, function: &FunctionName) -> InstanceCounts {
        self.of(function).iter().map(Pool::counts).fold(InstanceCounts::default(), InstanceCounts::plus)
    }

    /// The same for all functions at once: asking for each would look at every pool for each.
    pub fn counts_by_function(&self) -> HashMap<FunctionName, InstanceCounts> {
        let mut counts: HashMap<FunctionName, InstanceCounts> = HashMap::new();
        for pool in self.registry.load().values() {
            let sum = counts.entry(pool.function().clone()).or_default();
            *sum = sum.plus(pool.counts());
        }
        counts
    }

    /// Requests that each function answered, and those of them that failed.
    pub fn requests_by_function(&self) -> HashMap<FunctionName, (u64, u64)> {
        let mut sums: HashMap<FunctionName, (u64, u64)> = HashMap::new();
        for pool in self.registry.load().values() {
            let (sum, own) = (sums.entry(pool.function().clone()).or_default(), pool.requests());
            *sum = (sum.0 + own.0, sum.1 + own.1);
        }
        sums
    }

    /// An instance, and the pool that it is in.
    pub fn find(&self, id: InstanceId) -> Option<(Pool, InstanceSnapshot)> {
        self.registry.load().values().find_map(|pool| {
            let snapshot = pool.snapshots(|own| own == id).pop()?;
            Some((pool.clone(), snapshot))
        })
    }

    /// Retires every pool.
    pub fn retire_all(&self) {
        let _following = self.following.lock().expect("no holder of this lock panics");
        self.registry.load().values().for_each(|pool| pool.retire(StopReason::Shutdown));
    }

    /// Ends what the drain has not ended. The tasks must know before.
    pub fn cut_off(&self) {
        self.registry.load().values().for_each(|pool| pool.cut_off_all(CutOff::DrainOver));
    }

    /// Stops one instance, in order. False if there is none of that name.
    pub fn stop(&self, id: InstanceId) -> bool {
        self.registry.load().values().any(|pool| pool.stop(id, StopReason::Operator))
    }

    /// Brings the gauges up to date; called when somebody looks at them. `memory_bytes` is the guests' linear memory.
    pub fn measure(&self, memory_bytes: u64) {
        let pools = self.registry.load();
        let counts = pools.values().map(Pool::counts).fold(InstanceCounts::default(), InstanceCounts::plus);
        self.context.metrics.measure(counts.named(), self.waiting(), (memory_bytes, self.parked_bytes()));
    }

    /// Linear memory of the parked instances.
    pub fn parked_bytes(&self) -> u64 {
        self.registry.load().values().map(Pool::parked_bytes).sum()
    }

    /// Requests that wait for an instance.
    pub fn waiting(&self) -> usize {
        self.registry.load().values().map(Pool::waiting).sum()
    }

    /// The newest moves of all instances.
    pub fn moves(&self) -> &Arc<Moves> {
        &self.context.moves
    }

    /// What the host can hold.
    pub fn capacity(&self) -> &Capacity {
        &self.context.capacity
    }

    /// Stops idle instances as their time comes and forgets pools that served theirs, until the host drains.
    async fn reap(&self) {
        loop {
            tokio::select! {
                () = self.context.reaper.due() => {}
                () = self.context.tasks.drained() => return,
            }
            let now = Instant::now();
            let pools = self.registry.load_full();
            for pool in pools.values() {
                if let Some(next) = pool.stop_idle(now) {
                    self.context.reaper.expect(next);
                }
            }
            if pools.values().any(Pool::is_over) {
                self.registry.rcu(|pools| {
                    let mut pools = HashMap::clone(pools);
                    pools.retain(|_, pool| !pool.is_over());
                    pools
                });
            }
        }
    }
}

/// Awake instances that have less memory are not ended for the host's: it would not help.
const ENDED_BYTES_LEAST: u64 = 8 << 20;
/// How long an instance that is stopped for its memory may take, pre-stop included. After that it is ended.
const STOPPED_WITHIN: Duration = Duration::from_secs(1);

/// The host's memory.
impl Pools {
    /// Stops instances while the host lacks memory, until it closes: parked ones first, then those without a request, in
    /// order and one after another. If none is left and the host has more than its bound, the awake one with most memory
    /// is ended: its function was granted that memory when there was room, and has touched it since.
    async fn keep_memory(&self) {
        let governor = self.capacity().governor();
        loop {
            tokio::select! {
                () = governor.shortage() => {}
                () = self.context.tasks.closing() => return,
            }
            while governor.missing() > 0 {
                let stopped = evict(&self.registry, Needs::Anything).or_else(|| self.stop_unused());
                let stopped = stopped.or_else(|| if governor.excess() > 0 { self.end_largest() } else { None });
                let Some((pool, instance)) = stopped else {
                    governor.answer(true);
                    break;
                };
                self.gone_or_cut_off(&pool, instance).await;
            }
            if governor.missing() == 0 {
                governor.answer(false);
            }
        }
    }

    /// Waits until an instance that was told to stop is gone, or the host lacks nothing any more.
    async fn gone_or_cut_off(&self, pool: &Pool, instance: InstanceId) {
        let deadline = Instant::now() + STOPPED_WITHIN;
        loop {
            let freed = self.capacity().freed();
            if !pool.has(instance) || self.capacity().governor().missing() == 0 {
                return;
            }
            if timeout_at(deadline, freed).await.is_err() {
                pool.cut_off(instance, CutOff::HostMemory);
                let _ = timeout(STOPPED_WITHIN, self.capacity().freed()).await;
                return;
            }
        }
    }

    fn stop_unused(&self) -> Option<(Pool, InstanceId)> {
        let stop = |pool: &Pool| pool.stop_unused(StopReason::Evicted).map(|instance| (pool.clone(), instance));
        self.registry.load().values().find_map(stop)
    }

    fn end_largest(&self) -> Option<(Pool, InstanceId)> {
        let pools = self.registry.load();
        let awake = pools.values().filter_map(|pool| pool.largest_awake().map(|(bytes, id)| (bytes, id, pool)));
        let largest = awake.max_by_key(|(bytes, ..)| *bytes).filter(|(bytes, ..)| *bytes >= ENDED_BYTES_LEAST);
        let (bytes, instance, pool) = largest?;
        let (function, memory_mb) = (pool.function(), bytes >> 20);
        tracing::warn!(%function, %instance, memory_mb, "the host has too little memory; the largest instance ends");
        pool.cut_off(instance, CutOff::HostMemory);
        Some((pool.clone(), instance))
    }
}

/// Stops the longest parked instance of all that help.
fn evict(registry: &Registry, needs: Needs) -> Option<(Pool, InstanceId)> {
    let pools = registry.load();
    let helps = |pool: &&Pool| needs == Needs::Anything || pool.maps_per_instance() > 0;
    let parked = pools.values().filter(helps).filter_map(|pool| pool.oldest_parked().map(|since| (since, pool)));
    let (_, pool) = parked.min_by_key(|(since, _)| *since)?;
    pool.stop_oldest(StopReason::Evicted).map(|instance| (pool.clone(), instance))
}
