//! What the host can hold: the number of instances, their kernel maps, and the host's memory, all bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The kernel is asked for the host's memory once for so many new instances.
const INSTANCES_PER_LOOK: usize = 16;

/// How much the host may hold.
#[derive(Clone, Copy, Debug)]
pub struct CapacityBounds {
    /// Instances in all, awake or at rest.
    pub instances_max: usize,
    /// Their kernel maps in all.
    pub maps_max: u64,
    /// The host's memory, above which no instance is started.
    pub memory_bytes_max: u64,
}

/// What the host can hold; cheap to clone.
#[derive(Clone)]
pub struct Capacity(Arc<Inner>);

struct Inner {
    bounds: CapacityBounds,
    /// Tells the memory that the host has.
    memory_bytes: fn() -> u64,
    memory_bytes_seen: AtomicU64,
    asked: AtomicUsize,
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
    /// Capacity within `bounds`; `memory_bytes` tells the memory that the host has.
    pub fn new(bounds: CapacityBounds, memory_bytes: fn() -> u64) -> Capacity {
        Capacity(Arc::new(Inner {
            bounds,
            memory_bytes,
            memory_bytes_seen: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            instances: AtomicUsize::new(0),
            maps: AtomicU64::new(0),
            freed: Notify::new(),
        }))
    }

    /// A share for an instance that needs so many maps, if there is room.
    pub fn reserve(&self, maps: u64) -> Option<Reservation> {
        let inner = &*self.0;
        if !self.has_memory() {
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

    fn has_memory(&self) -> bool {
        let inner = &*self.0;
        let seen = &inner.memory_bytes_seen;
        let asked = inner.asked.fetch_add(1, Ordering::Relaxed);
        // While there is too much, each one looks again: something may have gone meanwhile.
        if asked.is_multiple_of(INSTANCES_PER_LOOK) || seen.load(Ordering::Relaxed) > inner.bounds.memory_bytes_max {
            seen.store((inner.memory_bytes)(), Ordering::Relaxed);
        }
        seen.load(Ordering::Relaxed) <= inner.bounds.memory_bytes_max
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

    const BOUNDS: CapacityBounds = CapacityBounds { instances_max: 2, maps_max: 20, memory_bytes_max: 10 << 20 };

    #[tokio::test]
    async fn it_is_bounded_by_count_and_comes_back() {
        let capacity = Capacity::new(BOUNDS, || 0);
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
        let capacity = Capacity::new(CapacityBounds { instances_max: 9, ..BOUNDS }, || 0);
        let shares: Vec<Reservation> = (0..2).map(|_| capacity.reserve(8).unwrap()).collect();
        assert!(capacity.lacks_maps(8) && capacity.reserve(8).is_none());
        assert!(!capacity.lacks_maps(0) && capacity.reserve(0).is_some(), "who needs none gets a share");
        drop(shares);
        assert!(capacity.reserve(20).is_some());
    }

    #[test]
    fn memory_is_looked_at_again_while_there_is_too_much() {
        static BYTES: AtomicU64 = AtomicU64::new(0);
        let capacity = Capacity::new(CapacityBounds { instances_max: 100, ..BOUNDS }, || BYTES.load(Ordering::Relaxed));
        assert!(capacity.reserve(0).is_some());
        BYTES.store(11 << 20, Ordering::Relaxed);
        assert!((0..INSTANCES_PER_LOOK).any(|_| capacity.reserve(0).is_none()), "no memory is left");
        BYTES.store(9 << 20, Ordering::Relaxed);
        assert!(capacity.reserve(0).is_some());
    }
}
