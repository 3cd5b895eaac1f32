//! The host's room for instances: a count and a sum of memory, both bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What an instance needs beside its linear memory: the store, its tables and its stack.
const OVERHEAD_BYTES: u64 = 64 << 10;

/// How much the host may hold.
#[derive(Clone, Copy, Debug)]
pub struct RoomBounds {
    /// Instances in all, awake or at rest.
    pub instances_max: usize,
    /// Their memory in all.
    pub memory_bytes_max: u64,
}

/// The host's room; cheap to clone.
#[derive(Clone)]
pub struct Room(Arc<Shared>);

struct Shared {
    bounds: RoomBounds,
    instances: AtomicUsize,
    memory_bytes: Arc<AtomicU64>,
    freed: Notify,
}

/// One instance's place; free again when dropped.
pub struct Place(Room);

impl Room {
    /// Room within `bounds`; `memory_bytes` is the linear memory of all guests, kept by the engine.
    pub fn new(bounds: RoomBounds, memory_bytes: Arc<AtomicU64>) -> Room {
        Room(Arc::new(Shared { bounds, instances: AtomicUsize::new(0), memory_bytes, freed: Notify::new() }))
    }

    /// A place, if there is one.
    pub fn take(&self) -> Option<Place> {
        let RoomBounds { instances_max, memory_bytes_max } = self.0.bounds;
        let memory_bytes = self.0.memory_bytes.load(Ordering::Relaxed);
        let one_more = |count: usize| {
            let bytes = memory_bytes + (count + 1) as u64 * OVERHEAD_BYTES;
            (count < instances_max && bytes <= memory_bytes_max).then_some(count + 1)
        };
        // Nothing is taken and given back when there is no room: that would look like a place that was freed.
        self.0.instances.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Place(self.clone()))
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

    /// Linear memory of all instances, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.instances.fetch_sub(1, Ordering::Relaxed);
        self.0.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn room_is_bounded_by_count_and_by_memory_and_comes_back() {
        let memory = Arc::new(AtomicU64::new(0));
        let bounds = RoomBounds { instances_max: 2, memory_bytes_max: 10 << 20 };
        let room = Room::new(bounds, memory.clone());
        let first = room.take().unwrap();
        let _second = room.take().unwrap();
        assert!(room.take().is_none(), "two is the bound");
        let mut freed = Box::pin(room.freed());
        assert!(room.take().is_none());
        assert!((&mut freed).now_or_never().is_none(), "asking in vain frees nothing");
        drop(first);
        freed.await;
        memory.store(11 << 20, Ordering::Relaxed);
        assert!(room.take().is_none(), "no memory is left");
        assert_eq!(room.instances(), 1);
    }
}
