//! What all pools of a host share.

use std::sync::{Arc, Once};

use tokio::runtime::Handle;

use super::board::Moves;
use super::capacity::{Capacity, Reservation};
use super::compute::Compute;
use super::metrics::Metrics;
use super::reaper::Reaper;
use crate::shutdown::Tasks;

/// Stops the longest parked instance of the host; if kernel maps are what is needed, the longest parked one that has
/// some. False: there is none.
pub(super) type Evict = Arc<dyn Fn(Needs) -> bool + Send + Sync>;

/// What a new instance needs that the host does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Maps,
    Anything,
}

/// What all pools of a host share; cheap to clone.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) tasks: Tasks,
    /// Instances may be woken on threads that know of no runtime.
    pub(super) runtime: Handle,
    pub(super) compute: Compute,
    pub(super) capacity: Capacity,
    pub(super) reaper: Reaper,
    pub(super) metrics: Arc<Metrics>,
    pub(super) moves: Arc<Moves>,
    pub(super) evict: Evict,
}

impl Context {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(&self.runtime, task);
    }

    pub(super) fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.tasks.spawn_blocking_on(&self.runtime, work);
    }

    /// Capacity for a new instance that needs so many maps. While there is none, the longest parked instance of the host is
    /// stopped for it; none if nothing is parked either.
    pub(super) async fn reserve(&self, maps: u64) -> Option<Reservation> {
        loop {
            let freed = self.capacity.freed();
            if let Some(reservation) = self.capacity.reserve(maps) {
                return Some(reservation);
            }
            let needs = if self.capacity.lacks_maps(maps) { Needs::Maps } else { Needs::Anything };
            if matches!(needs, Needs::Maps) {
                static TOLD: Once = Once::new();
                TOLD.call_once(|| {
                    tracing::warn!(
                        "instances of large components have all the kernel maps that this process may have, so parked ones stop for \
                         others; `sysctl -w vm.max_map_count=N` allows more (`dormouse doctor` says how many)"
                    );
                });
            }
            if !(self.evict)(needs) {
                return None;
            }
            freed.await;
        }
    }
}
