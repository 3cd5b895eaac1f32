//! [`Governor`]: the host's memory, and who may have more of it.
//!
//! Guests get addresses freely and memory only as they touch it, so what they were granted says little: the governor
//! knows what the process really has. Whoever wants more asks; while it does not fit, the keeper (`pool`) stops parked
//! instances. When none is left, the wish is refused. What was granted earlier may be touched at any time without a
//! question, so the epoch ticker looks too, and the keeper acts as well if the host has too much.
//!
//! The last part of the memory is kept for those who need little, so that they go on while others want whatever there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How old the last look at the process's memory may be.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// This part of the host's memory is kept for instances that have little: one of 16 equal parts.
const KEPT_PART: u64 = 16;
/// An instance has little if it has no more than this part of the host's memory: one of 64 equal parts.
const LITTLE_PART: u64 = 64;

/// The host's memory; cheap to clone.
#[derive(Clone)]
pub struct Governor(Arc<Inner>);

struct Inner {
    bytes_max: u64,
    /// Tells the memory that the host has.
    look: fn() -> u64,
    /// What that told last, and when, in nanoseconds since `made`.
    seen: AtomicU64,
    looked_at: AtomicU64,
    made: Instant,
    /// Granted since then, and perhaps not touched yet.
    granted: AtomicU64,
    /// What those who wait want, in sum.
    wanted: AtomicU64,
    /// The keeper found nothing more to stop for those who wait.
    exhausted: AtomicBool,
    /// Somebody waits, or the host has too much.
    short: Notify,
    /// Something was freed, or nothing more can be.
    answered: Notify,
}

impl Governor {
    /// A host that may have so many bytes; `look` tells how many it has.
    pub fn new(bytes_max: u64, look: fn() -> u64) -> Governor {
        Governor(Arc::new(Inner {
            bytes_max,
            look,
            seen: AtomicU64::new(look()),
            looked_at: AtomicU64::new(0),
            made: Instant::now(),
            granted: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            exhausted: AtomicBool::new(false),
            short: Notify::new(),
            answered: Notify::new(),
        }))
    }

    /// The most that the host may have.
    pub fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    /// Whether `bytes` more fit now, for an instance that `has` so many; if so, they count as taken.
    pub fn take(&self, bytes: u64, has: u64) -> bool {
        let inner = &*self.0;
        let has_little = has.saturating_add(bytes) <= inner.bytes_max / LITTLE_PART;
        let bytes_max = if has_little { inner.bytes_max } else { self.bytes_for_all() };
        let fits = || {
            let taken = inner.seen.load(Ordering::Relaxed).saturating_add(inner.granted.load(Ordering::Relaxed));
            taken.saturating_add(bytes) <= bytes_max
        };
        self.look_again();
        if !fits() {
            // What was granted since the last look is counted in full, and may not have been touched.
            self.look();
            if !fits() {
                return false;
            }
        }
        inner.granted.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Whether `bytes` more fit for an instance that `has` so many, once the keeper has stopped whatever it can for them.
    pub async fn grant(&self, bytes: u64, has: u64) -> bool {
        if self.take(bytes, has) {
            return true;
        }
        let inner = &*self.0;
        if bytes > self.bytes_for_all() {
            return false;
        }
        let _wish = Wish::new(inner, bytes);
        loop {
            let mut answered = std::pin::pin!(inner.answered.notified());
            answered.as_mut().enable();
            if self.take(bytes, has) {
                return true;
            }
            if inner.exhausted.load(Ordering::Relaxed) {
                return false;
            }
            inner.short.notify_one();
            answered.await;
        }
    }

    /// Looks whether the host has too much, and tells the keeper. For those who see guests run.
    pub fn watch(&self) {
        if self.look_again() && self.excess() > 0 {
            self.0.short.notify_one();
        }
    }

    /// Ends when the keeper is needed.
    pub async fn shortage(&self) {
        self.0.short.notified().await;
    }

    /// What everybody may have, also those who have much already.
    fn bytes_for_all(&self) -> u64 {
        self.0.bytes_max - self.0.bytes_max / KEPT_PART
    }

    /// How many bytes are missing now, counting those that somebody waits for.
    pub fn missing(&self) -> u64 {
        self.look();
        let inner = &*self.0;
        let needed = inner.seen.load(Ordering::Relaxed).saturating_add(inner.wanted.load(Ordering::Relaxed));
        needed.saturating_sub(self.bytes_for_all())
    }

    /// How many bytes the host has of what is kept, and beyond its bound, as last seen.
    pub fn excess(&self) -> u64 {
        self.0.seen.load(Ordering::Relaxed).saturating_sub(self.bytes_for_all())
    }

    /// The keeper's word to those who wait: look again. With `exhausted`, whoever finds no room then is refused.
    pub fn answer(&self, exhausted: bool) {
        self.0.exhausted.store(exhausted, Ordering::Relaxed);
        self.0.answered.notify_waiters();
    }

    /// Looks, unless somebody just did. Says whether it looked.
    fn look_again(&self) -> bool {
        let inner = &*self.0;
        let now = inner.made.elapsed().as_nanos() as u64;
        let before = inner.looked_at.load(Ordering::Relaxed);
        let due = now.saturating_sub(before) >= LOOK_INTERVAL.as_nanos() as u64;
        // One of those who come at once looks for all.
        let looks = due && inner.looked_at.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if looks {
            self.look();
        }
        looks
    }

    fn look(&self) {
        self.0.granted.store(0, Ordering::Relaxed);
        self.0.seen.store((self.0.look)(), Ordering::Relaxed);
    }
}

/// Bytes that somebody waits for.
struct Wish<'a> {
    inner: &'a Inner,
    bytes: u64,
}

impl<'a> Wish<'a> {
    fn new(inner: &'a Inner, bytes: u64) -> Wish<'a> {
        // A new wish is a new question: the answer to those before does not count.
        inner.exhausted.store(false, Ordering::Relaxed);
        inner.wanted.fetch_add(bytes, Ordering::Relaxed);
        Wish { inner, bytes }
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.inner.wanted.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// What those have who ask here: not little.
    const MUCH: u64 = 50;

    /// A governor of 106 bytes, 100 for everybody, over a process whose memory the test sets.
    macro_rules! governor {
        () => {{
            static BYTES: AtomicU64 = AtomicU64::new(0);
            (Governor::new(106, || BYTES.load(Ordering::Relaxed)), &BYTES)
        }};
    }

    #[test]
    fn what_was_granted_counts_until_the_next_look() {
        let (governor, bytes) = governor!();
        bytes.store(50, Ordering::Relaxed);
        governor.look();
        assert!(governor.take(40, MUCH));
        assert!(governor.take(40, MUCH), "nothing of the first 40 was touched, as a look shows");
        bytes.store(90, Ordering::Relaxed);
        governor.look();
        assert!(!governor.take(11, MUCH));
        assert!(governor.take(10, MUCH));
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_for_the_keeper() {
        let (governor, bytes) = governor!();
        bytes.store(95, Ordering::Relaxed);
        governor.look();
        let mut grant = std::pin::pin!(governor.grant(10, MUCH));
        assert_eq!((&mut grant).now_or_never(), None);
        governor.shortage().await;
        assert_eq!(governor.missing(), 5);
        bytes.store(92, Ordering::Relaxed);
        governor.answer(false);
        assert_eq!((&mut grant).now_or_never(), None, "not enough was freed");
        bytes.store(90, Ordering::Relaxed);
        governor.answer(false);
        assert!(grant.await);
        assert_eq!(governor.missing(), 0);
    }

    #[tokio::test]
    async fn a_wish_is_refused_when_nothing_more_can_be_freed_and_the_next_one_is_asked_anew() {
        let (governor, bytes) = governor!();
        bytes.store(95, Ordering::Relaxed);
        governor.look();
        for _ in 0..2 {
            let mut grant = std::pin::pin!(governor.grant(10, MUCH));
            assert_eq!((&mut grant).now_or_never(), None);
            governor.answer(true);
            assert!(!grant.await);
        }
        assert!(!governor.grant(101, MUCH).await, "it would never fit");
        let _ = governor.grant(10, MUCH).now_or_never();
        assert_eq!(governor.missing(), 0, "whoever waits no longer wants nothing");
    }

    #[test]
    fn the_last_part_is_kept_for_those_who_have_little() {
        static BYTES: AtomicU64 = AtomicU64::new(1000);
        // 1,024 bytes: 960 for everybody, the rest for those who have up to 16.
        let governor = Governor::new(1024, || BYTES.load(Ordering::Relaxed));
        assert!(!governor.take(17, 0), "this is not little");
        assert!(!governor.take(1, 16), "nor is this");
        assert!(governor.take(16, 0));
        assert!(governor.take(4, 12));
        BYTES.store(1020, Ordering::Relaxed);
        assert!(!governor.take(5, 0), "there is no more");
        assert_eq!(governor.excess(), 60, "what is kept should be free");
    }

    #[tokio::test]
    async fn memory_that_grows_by_itself_calls_the_keeper() {
        let (governor, bytes) = governor!();
        governor.watch();
        assert!(governor.shortage().now_or_never().is_none());
        bytes.store(101, Ordering::Relaxed);
        while governor.excess() == 0 {
            governor.watch();
        }
        governor.shortage().await;
        assert_eq!((governor.missing(), governor.excess()), (1, 1));
    }
}
