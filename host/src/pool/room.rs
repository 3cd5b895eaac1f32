//! The host's room for instances: their number, their kernel maps, and the host's memory, all bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The kernel is asked for the host's memory once for so many new instances.
const INSTANCES_PER_LOOK: usize = 16;

/// How much the host may hold.
#[derive(Clone, Copy, Debug)]
pub struct RoomBounds {
    /// Instances in all, awake or at rest.
    pub instances_max: usize,
    /// Their kernel maps in all.
    pub maps_max: u64,
    /// The host's memory, above which no instance is started.
    pub memory_bytes_max: u64,
}

/// The host's room; cheap to clone.
#[derive(Clone)]
pub struct Room(Arc<Shared>);

struct Shared {
    bounds: RoomBounds,
    /// Tells the memory that the host has.
    memory_bytes: fn() -> u64,
    memory_bytes_seen: AtomicU64,
    asked: AtomicUsize,
    instances: AtomicUsize,
    maps: AtomicU64,
    freed: Notify,
}

/// One instance's place; free again when dropped.
pub struct Place {
    room: Room,
    maps: u64,
}

impl Room {
    /// Room within `bounds`; `memory_bytes` tells the memory that the host has.
    pub fn new(bounds: RoomBounds, memory_bytes: fn() -> u64) -> Room {
        Room(Arc::new(Shared {
            bounds,
            memory_bytes,
            memory_bytes_seen: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            instances: AtomicUsize::new(0),
            maps: AtomicU64::new(0),
            freed: Notify::new(),
        }))
    }

    /// A place for an instance that needs so many maps, if there is one.
    pub fn take(&self, maps: u64) -> Option<Place> {
        let shared = &*self.0;
        if !self.has_memory() {
            return None;
        }
        // Nothing is taken and given back when there is no room: that would look like a place that was freed.
        let more_maps = |sum: u64| Some(sum + maps).filter(|sum| *sum <= shared.bounds.maps_max);
        shared.maps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more_maps).ok()?;
        let one_more = |count: usize| (count < shared.bounds.instances_max).then_some(count + 1);
        if shared.instances.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            shared.maps.fetch_sub(maps, Ordering::Relaxed);
            return None;
        }
        Some(Place { room: self.clone(), maps })
    }

    /// Whether maps are what an instance that needs so many lacks.
    pub fn lacks_maps(&self, maps: u64) -> bool {
        self.0.maps.load(Ordering::Relaxed) + maps > self.0.bounds.maps_max
    }

    fn has_memory(&self) -> bool {
        let shared = &*self.0;
        let seen = &shared.memory_bytes_seen;
        let asked = shared.asked.fetch_add(1, Ordering::Relaxed);
        // While there is too much, each one looks again: something may have gone meanwhile.
        if asked.is_multiple_of(INSTANCES_PER_LOOK) || seen.load(Ordering::Relaxed) > shared.bounds.memory_bytes_max {
            seen.store((shared.memory_bytes)(), Ordering::Relaxed);
        }
        seen.load(Ordering::Relaxed) <= shared.bounds.memory_bytes_max
    }

    /// Ends when a place was freed after this call.
    pub fn freed(&self) -> impl Future<Output = ()> + '_ {
        self.0.freed.notified()
    }

    /// Ends when no instance has a place.
    pub async fn emptied(&self) {
        loop {
            let freed = self.freed();
            if self.instances() == 0 {
                return;
            }
            freed.await;
        }
    }

    /// Instances that have a place.
    pub fn instances(&self) -> usize {
        self.0.instances.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.0.maps.fetch_sub(self.maps, Ordering::Relaxed);
        self.room.0.instances.fetch_sub(1, Ordering::Relaxed);
        self.room.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const BOUNDS: RoomBounds = RoomBounds { instances_max: 2, maps_max: 20, memory_bytes_max: 10 << 20 };

    #[tokio::test]
    async fn room_is_bounded_by_count_and_comes_back() {
        let room = Room::new(BOUNDS, || 0);
        let first = room.take(0).unwrap();
        let _second = room.take(0).unwrap();
        assert!(room.take(0).is_none(), "two is the bound");
        let mut freed = Box::pin(room.freed());
        assert!(room.take(0).is_none());
        assert!((&mut freed).now_or_never().is_none(), "asking in vain frees nothing");
        drop(first);
        freed.await;
        assert_eq!(room.instances(), 1);
        assert!(room.take(0).is_some());
    }

    #[test]
    fn maps_are_bounded_and_come_back() {
        let room = Room::new(RoomBounds { instances_max: 9, ..BOUNDS }, || 0);
        let places: Vec<Place> = (0..2).map(|_| room.take(8).unwrap()).collect();
        assert!(room.lacks_maps(8) && room.take(8).is_none());
        assert!(!room.lacks_maps(0) && room.take(0).is_some(), "who needs none gets a place");
        drop(places);
        assert!(room.take(20).is_some());
    }

    #[test]
    fn memory_is_looked_at_again_while_there_is_too_much() {
        static BYTES: AtomicU64 = AtomicU64::new(0);
        let room = Room::new(RoomBounds { instances_max: 100, ..BOUNDS }, || BYTES.load(Ordering::Relaxed));
        assert!(room.take(0).is_some());
        BYTES.store(11 << 20, Ordering::Relaxed);
        assert!((0..INSTANCES_PER_LOOK).any(|_| room.take(0).is_none()), "no memory is left");
        BYTES.store(9 << 20, Ordering::Relaxed);
        assert!(room.take(0).is_some());
    }
}
