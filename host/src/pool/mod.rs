//! The instances of all functions: each function's pool, the host's room, and the reaper of idle instances.
//!
//! `http` runs requests through [`Pool::call`], `control` suspends, resumes and stops. A pool knows nothing of HTTP and
//! names no engine; which instance a request gets is decided in `policy`, which is pure.

mod compute;
mod driving;
mod inside;
mod lot;
mod metrics;
mod policy;
#[expect(clippy::module_inception, reason = "the file holds the type that the module is named after")]
mod pool;
mod reaper;
mod room;
mod seat;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::time::Instant;

use self::compute::Compute;
use self::reaper::Reaper;
use crate::ids::{FunctionName, InstanceId};
use crate::instance::{StopReason, Terms};
use crate::shutdown::Tasks;

pub use metrics::Metrics;
pub use policy::Bounds;
pub use pool::{Pool, PoolSettings, Request};
pub use room::{Place, Room, RoomBounds};
pub use seat::{InstanceCounts, Portrait};

/// Why a request got no instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// All instances are busy and the queue is full.
    #[error("all instances are busy and the queue is full")]
    Busy,
    /// The host drains.
    #[error("the host is shutting down")]
    Draining,
    /// Its instance was lost through a fault of the host.
    #[error("the instance was lost through a fault of the host")]
    Lost,
}

/// What all pools of a host stand on.
#[derive(Clone)]
struct Ground {
    tasks: Tasks,
    /// Instances may be woken on threads that know of no runtime.
    runtime: Handle,
    compute: Compute,
    room: Room,
    reaper: Reaper,
    metrics: Arc<Metrics>,
    registry: Registry,
}

/// The pools by function. Readers take no lock; a change copies the map.
#[derive(Clone, Default)]
struct Registry(Arc<ArcSwap<HashMap<FunctionName, Slot>>>);

#[derive(Clone)]
struct Slot {
    revision: u64,
    pool: Pool,
}

/// All pools of a host; cheap to clone.
#[derive(Clone)]
pub struct Pools {
    ground: Ground,
}

impl Pools {
    /// No pools yet; starts the reaper, and threads for guests that compute.
    pub fn new(tasks: Tasks, room: Room, metrics: Arc<Metrics>) -> std::io::Result<Pools> {
        let runtime = Handle::current();
        let compute = Compute::start(&runtime)?;
        let (reaper, registry) = (Reaper::default(), Registry::default());
        let ground = Ground { tasks, runtime, compute, room, reaper, metrics, registry };
        let pools = Pools { ground };
        let reaping = pools.clone();
        pools.ground.spawn(async move { reaping.reap().await });
        Ok(pools)
    }

    /// The pool of this revision of the function, if it was installed.
    pub fn get(&self, function: &FunctionName, revision: u64) -> Option<Pool> {
        let slots = self.ground.registry.0.load();
        slots.get(function).filter(|slot| slot.revision == revision).map(|slot| slot.pool.clone())
    }

    /// The function's pool, of whichever revision.
    pub fn newest(&self, function: &FunctionName) -> Option<Pool> {
        self.ground.registry.0.load().get(function).map(|slot| slot.pool.clone())
    }

    /// Makes the pool of a new revision; the pool of the one before retires.
    pub fn install(&self, revision: u64, terms: Arc<Terms>, settings: PoolSettings) -> Pool {
        let function = terms.function.clone();
        let pool = Pool::new(terms, settings, self.ground.clone());
        let slot = Slot { revision, pool: pool.clone() };
        if let Some(before) = self.ground.registry.replace(&function, Some(slot)) {
            before.pool.retire(StopReason::Updated);
        }
        pool.keep_minimum();
        pool
    }

    /// Retires the function's pool.
    pub fn remove(&self, function: &FunctionName, reason: StopReason) {
        if let Some(slot) = self.ground.registry.replace(function, None) {
            slot.pool.retire(reason);
        }
    }

    /// Retires every pool.
    pub fn retire_all(&self) {
        for slot in self.ground.registry.0.load().values() {
            slot.pool.retire(StopReason::Shutdown);
        }
    }

    /// Stops one instance, in order. False if there is none of that name.
    pub fn stop(&self, id: InstanceId) -> bool {
        self.ground.registry.0.load().values().any(|slot| slot.pool.stop(id, StopReason::Operator))
    }

    /// Every function that has a pool, and its pool.
    pub fn all(&self) -> Vec<(FunctionName, Pool)> {
        let slots = self.ground.registry.0.load();
        slots.iter().map(|(function, slot)| (function.clone(), slot.pool.clone())).collect()
    }

    /// Brings the gauges up to date; called when somebody looks at them. `memory_bytes` is the guests' linear memory.
    pub fn measure(&self, memory_bytes: u64) {
        let mut totals = [("", 0); 6];
        let mut waiting = 0;
        for slot in self.ground.registry.0.load().values() {
            waiting += slot.pool.waiting();
            for (total, (state, count)) in totals.iter_mut().zip(slot.pool.counts().named()) {
                *total = (state, total.1 + count);
            }
        }
        self.ground.metrics.measure(totals, waiting, memory_bytes);
    }

    /// The host's room.
    pub fn room(&self) -> &Room {
        &self.ground.room
    }

    /// Stops idle instances as their time comes, until the host drains.
    async fn reap(&self) {
        loop {
            tokio::select! {
                () = self.ground.reaper.due() => {}
                () = self.ground.tasks.drained() => return,
            }
            let now = Instant::now();
            for slot in self.ground.registry.0.load().values() {
                if let Some(next) = slot.pool.stop_idle(now) {
                    self.ground.reaper.expect(next);
                }
            }
        }
    }
}

impl Registry {
    /// Puts a slot in, or takes it out; returns the one that was there.
    fn replace(&self, function: &FunctionName, slot: Option<Slot>) -> Option<Slot> {
        let before = self.0.rcu(|slots| {
            let mut slots = HashMap::clone(slots);
            match &slot {
                Some(slot) => slots.insert(function.clone(), slot.clone()),
                None => slots.remove(function),
            };
            slots
        });
        before.get(function).cloned()
    }
}

impl Ground {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(&self.runtime, task);
    }

    /// A place for a new instance that needs so many maps. While there is none, the longest parked instance of the host is stopped for it; none
    /// if nothing is parked either.
    async fn find_place(&self, maps: u64) -> Option<Place> {
        loop {
            let freed = self.room.freed();
            if let Some(place) = self.room.take(maps) {
                return Some(place);
            }
            if !self.evict(self.room.lacks_maps(maps)) {
                return None;
            }
            freed.await;
        }
    }

    /// Stops the longest parked instance; if maps are needed, the longest parked one that has some.
    fn evict(&self, for_maps: bool) -> bool {
        let slots = self.registry.0.load();
        let helps = |slot: &&Slot| !for_maps || slot.pool.maps_per_instance() > 0;
        let parked =
            slots.values().filter(helps).filter_map(|slot| slot.pool.oldest_parked().map(|since| (since, &slot.pool)));
        let longest = parked.min_by_key(|(since, _)| *since);
        longest.is_some_and(|(_, pool)| pool.stop_oldest(StopReason::Evicted))
    }
}
