//! [`Room`]: memory that large events, replies or uploads may take together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What is smaller is not counted: connections are bounded, and most events and replies are small.
const SMALL_BYTES: usize = 64 << 10;

/// Memory that is shared out.
pub struct Room {
    free: Arc<Semaphore>,
    parts: usize,
}

/// A share of the memory, given back when it is dropped; none for what is small.
pub type Share = Option<OwnedSemaphorePermit>;

impl Room {
    /// Room for `megabytes` in all.
    pub fn new(megabytes: u64) -> Room {
        let parts = (megabytes << 20) / SMALL_BYTES as u64;
        let parts = usize::try_from(parts).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Room { free: Arc::new(Semaphore::new(parts)), parts }
    }

    /// A share of so many bytes, if there is one now.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        let Some(parts) = parts(bytes) else { return Some(None) };
        self.free.clone().try_acquire_many_owned(parts).ok().map(Some)
    }

    /// A share of so many bytes, if there is one before the time is up.
    pub async fn wait(&self, bytes: usize, limit: Duration) -> Option<Share> {
        let Some(parts) = parts(bytes) else { return Some(None) };
        timeout(limit, self.free.clone().acquire_many_owned(parts)).await.ok()?.ok().map(Some)
    }

    /// Bytes of all there is.
    pub fn bytes(&self) -> usize {
        self.parts * SMALL_BYTES
    }

    /// Bytes of all shares that are taken now.
    pub fn bytes_taken(&self) -> usize {
        (self.parts - self.free.available_permits()) * SMALL_BYTES
    }
}

/// The parts that so many bytes take; none if they are not counted.
fn parts(bytes: usize) -> Option<u32> {
    (bytes > SMALL_BYTES).then(|| u32::try_from(bytes.div_ceil(SMALL_BYTES)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_large_is_counted_until_it_is_dropped() {
        let room = Room::new(1);
        let first = room.take(600 << 10).unwrap();
        assert!(first.is_some());
        assert_eq!(room.bytes_taken(), 640 << 10, "in whole parts");
        assert!(room.take(600 << 10).is_none());
        assert!(room.wait(600 << 10, Duration::from_secs(1)).await.is_none());
        assert!(room.take(SMALL_BYTES).is_some_and(|share| share.is_none()), "small ones always fit");
        drop(first);
        assert_eq!(room.bytes_taken(), 0);
        assert!(room.take(1 << 20).is_some());
        assert!(room.take((1 << 20) + 1).is_none(), "it is more than there is");
    }
}
