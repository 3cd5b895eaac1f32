//! What the host can hold: the number of instances, their kernel maps, and the host's memory, all bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::memory::Governor;

/// Memory that a new instance is taken for, until what it really has shows.
const INSTANCE_BYTES: u64 = 1 << 20;

/// How much the host may hold.
#[derive(Clone, Copy, Debug)]
pub struct CapacityBounds {
    /// Instances in all, awake or at rest.
    pub instances_max: usize,
    /// Their kernel maps in all.
    pub maps_max: u64,
}

/// What the host can hold; cheap to clone.
#[derive(Clone)]
pub struct Capacity(Arc<Inner>);

struct Inner {
    bounds: CapacityBounds,
    governor: Governor,
    instances: AtomicUsize,
    maps: AtomicU64,
    freed: Notify,
}

/// One instance's share; free again when dropped.
pub struct Reservation {
    capacity: Capacity,
    maps: u64,
}

impl Capacity {
    /// Capacity within `bounds` and the memory of `governor`.
    pub fn new(bounds: CapacityBounds, governor: Governor) -> Capacity {
        Capacity(Arc::new(Inner {
            bounds,
            governor,
            instances: AtomicUsize::new(0),
            maps: AtomicU64::new(0),
            freed: Notify::new(),
        }))
    }

    /// A share for an instance that needs so many maps, if there is room.
    pub fn reserve(&self, maps: u64) -> Option<Reservation> {
        let inner = &*self.0;
        if !inner.governor.take(INSTANCE_BYTES, 0) {
            return None;
        }
        // Nothing is taken and given back when there is no room: that would look like a share that was freed.
        let more_maps = |sum: u64| Some(sum + maps).filter(|sum| *sum <= inner.bounds.maps_max);
        inner.maps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more_maps).ok()?;
        let one_more = |count: usize| (count < inner.bounds.instances_max).then_some(count + 1);
        if inner.instances.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            inner.maps.fetch_sub(maps, Ordering::Relaxed);
            return None;
        }
        Some(Reservation { capacity: self.clone(), maps })
    }

    /// Whether maps are what an instance that needs so many lacks.
    pub fn lacks_maps(&self, maps: u64) -> bool {
        self.0.maps.load(Ordering::Relaxed) + maps > self.0.bounds.maps_max
    }

    /// The host's memory.
    pub fn governor(&self) -> &Governor {
        &self.0.governor
    }

    /// Ends when a share was freed after this call.
    pub fn freed(&self) -> impl Future<Output = ()> + '_ {
        self.0.freed.notified()
    }

    /// Ends when no instance has a share.
    pub async fn emptied(&self) {
        loop {
            let freed = self.freed();
            if self.instances() == 0 {
                return;
            }
            freed.await;
        }
    }

    /// Kernel maps that instances have a share of, and what there is of instances and of maps.
    pub fn maps(&self) -> (u64, CapacityBounds) {
        (self.0.maps.load(Ordering::Relaxed), self.0.bounds)
    }

    /// Instances that have a share.
    pub fn instances(&self) -> usize {
        self.0.instances.load(Ordering::Relaxed)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.capacity.0.maps.fetch_sub(self.maps, Ordering::Relaxed);
        self.capacity.0.instances.fetch_sub(1, Ordering::Relaxed);
        self.capacity.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const BOUNDS: CapacityBounds = CapacityBounds { instances_max: 2, maps_max: 20 };

    fn endless() -> Governor {
        Governor::new(u64::MAX, || 0)
    }

    #[tokio::test]
    async fn it_is_bounded_by_count_and_comes_back() {
        let capacity = Capacity::new(BOUNDS, endless());
        let first = capacity.reserve(0).unwrap();
        let _second = capacity.reserve(0).unwrap();
        assert!(capacity.reserve(0).is_none(), "two is the bound");
        let mut freed = Box::pin(capacity.freed());
        assert!(capacity.reserve(0).is_none());
        assert!((&mut freed).now_or_never().is_none(), "asking in vain frees nothing");
        drop(first);
        freed.await;
        assert_eq!(capacity.instances(), 1);
        assert!(capacity.reserve(0).is_some());
    }

    #[test]
    fn maps_are_bounded_and_come_back() {
        let capacity = Capacity::new(CapacityBounds { instances_max: 9, ..BOUNDS }, endless());
        let shares: Vec<Reservation> = (0..2).map(|_| capacity.reserve(8).unwrap()).collect();
        assert!(capacity.lacks_maps(8) && capacity.reserve(8).is_none());
        assert!(!capacity.lacks_maps(0) && capacity.reserve(0).is_some(), "who needs none gets a share");
        drop(shares);
        assert!(capacity.reserve(20).is_some());
    }

    #[test]
    fn memory_is_looked_at_again_while_there_is_too_much() {
        static BYTES: AtomicU64 = AtomicU64::new(0);
        let governor = Governor::new(100 << 20, || BYTES.load(Ordering::Relaxed));
        let capacity = Capacity::new(CapacityBounds { instances_max: 100, ..BOUNDS }, governor);
        assert!(capacity.reserve(0).is_some());
        BYTES.store(101 << 20, Ordering::Relaxed);
        assert!((0..200).any(|_| capacity.reserve(0).is_none()), "no memory is left");
        BYTES.store(99 << 20, Ordering::Relaxed);
        assert!(capacity.reserve(0).is_some());
    }
}
