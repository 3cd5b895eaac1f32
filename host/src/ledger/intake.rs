//! Where posted readings wait for the writer, and how the writer is woken and given orders.
//!
//! Each posting thread has a shard of its own, as long as there are enough, so that no two threads write to the same
//! memory: a cache line that two cores write to costs more than all else here. The writer drains all shards. So
//! readings of one instance may reach it in another order than they were posted; `batch.rs` says why that does no harm.
//!
//! Before it sleeps, the writer sets `asleep` and then checks every shard under the shard's lock. A poster adds its
//! reading under the lock and then checks `asleep`. Whichever takes the lock second sees what the first one did, so no
//! reading is left without a wake.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use tokio::time::Instant;

use super::block::{Taken, Waiting};
use crate::meter::Reading;

/// Enough that posting threads seldom share one.
const SHARDS: usize = 64;

/// How many readings a shard takes, at most, between two checks if too many wait.
const LOOK_EACH_MAX: u64 = 1024;

/// Why the writer was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something was posted.
    Posted,
    /// The deadline passed.
    Due,
    /// Somebody waits for a flush, or the ledger closes.
    Ordered,
}

/// What callers ask of the writer, and its answers. Flushes are numbered; the writer answers all up to a number.
#[derive(Default)]
struct Orders {
    flush_wanted: u64,
    flush_tried: u64,
    flush_stored: u64,
    closing: bool,
    finished: bool,
}

/// One shard. It has two cache lines of its own, because processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    /// The total of readings posted here. Counted under the lock, so that the writer never holds an uncounted one.
    posted: AtomicU64,
    waiting: Mutex<Gate>,
}

/// What waits in a shard.
#[derive(Default)]
struct Gate {
    waiting: Waiting,
    /// The ledger is closed.
    closed: bool,
}

/// Flags that posters mostly only read.
#[repr(align(128))]
#[derive(Default)]
struct Signs {
    asleep: AtomicBool,
    /// Too many readings waited at the last check.
    full: AtomicBool,
}

/// The shared part of a ledger.
pub(super) struct Intake {
    shards: Box<[Shard]>,
    signs: Signs,
    /// How many readings may wait.
    room: u64,
    /// Readings that need not be stored any more: committed, or replaced by a later one.
    settled: AtomicU64,
    writer: OnceLock<Thread>,
    healthy: AtomicBool,
    late: AtomicU64,
    orders: Mutex<Orders>,
    answered: Condvar,
}

/// The calling thread's shard. Shards are assigned to threads in turn.
fn own_shard() -> usize {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(TURN.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Posting may happen while a panic unwinds. The data are consistent after every statement, so poison is ignored.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    /// An intake that has room until `room` readings wait.
    pub(super) fn new(room: u64) -> Intake {
        Intake {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            signs: Signs::default(),
            room,
            settled: AtomicU64::new(0),
            writer: OnceLock::new(),
            healthy: AtomicBool::new(true),
            late: AtomicU64::new(0),
            orders: Mutex::default(),
            answered: Condvar::new(),
        }
    }

    /// Puts `reading` into the calling thread's shard.
    pub(super) fn post(&self, reading: Reading<'_>) {
        let shard = &self.shards[own_shard()];
        let mut gate = lock(&shard.waiting);
        if gate.closed {
            drop(gate);
            self.came_late();
            return;
        }
        gate.waiting.add(reading);
        let posted = shard.posted.load(Ordering::Relaxed) + 1;
        shard.posted.store(posted, Ordering::Relaxed);
        drop(gate);
        if self.signs.asleep.load(Ordering::Relaxed) && self.signs.asleep.swap(false, Ordering::Relaxed) {
            self.wake();
        }
        if posted.is_multiple_of((self.room / SHARDS as u64).clamp(1, LOOK_EACH_MAX)) && self.backlog() >= self.room {
            self.signs.full.store(true, Ordering::Relaxed);
        }
    }

    fn came_late(&self) {
        // Logged once: a host that shuts down in the wrong order may post thousands.
        if self.late.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!("readings were posted after the ledger was closed; they are not stored");
        }
    }

    /// Readings that are posted and not settled.
    pub(super) fn backlog(&self) -> u64 {
        // `settled` is read first: what it counts was posted before, so `posted` includes it.
        let settled = self.settled.load(Ordering::Acquire);
        let posted: u64 = self.shards.iter().map(|shard| shard.posted.load(Ordering::Relaxed)).sum();
        posted.saturating_sub(settled)
    }

    /// True if fewer readings wait than there is room for. It counts them only if there were too many lately.
    pub(super) fn has_room(&self) -> bool {
        if !self.signs.full.load(Ordering::Relaxed) {
            return true;
        }
        let room = self.backlog() < self.room;
        if room {
            self.signs.full.store(false, Ordering::Relaxed);
        }
        room
    }

    /// Whether the last attempt to store succeeded.
    pub(super) fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Waits until everything posted before the call is stored. False if that failed or took longer than `within`.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let mut orders = lock(&self.orders);
        orders.flush_wanted += 1;
        let ticket = orders.flush_wanted;
        drop(orders);
        self.wake();
        let unanswered = |orders: &mut Orders| orders.flush_tried < ticket && !orders.finished;
        let (orders, _) = self
            .answered
            .wait_timeout_while(lock(&self.orders), within, unanswered)
            .unwrap_or_else(PoisonError::into_inner);
        orders.flush_stored >= ticket || (orders.finished && self.backlog() == 0)
    }

    /// Tells the writer to store everything and to end.
    pub(super) fn close(&self) {
        lock(&self.orders).closing = true;
        self.wake();
    }

    fn wake(&self) {
        // A writer that has not started needs no wake: it checks everything before it first parks.
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

/// The writer's side.
impl Intake {
    /// Registers the calling thread as the one to wake.
    pub(super) fn attend(&self) {
        self.writer.get_or_init(std::thread::current);
    }

    /// Parks until something is posted (only if `posts`), until `deadline`, or until there is an order.
    pub(super) fn wait(&self, posts: bool, deadline: Option<Instant>) -> Woken {
        loop {
            self.signs.asleep.store(posts, Ordering::Relaxed);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let woken = if self.has_orders() {
                Some(Woken::Ordered)
            } else if posts && self.shards.iter().any(|shard| !lock(&shard.waiting).waiting.is_empty()) {
                Some(Woken::Posted)
            } else {
                left.filter(Duration::is_zero).map(|_| Woken::Due)
            };
            if let Some(woken) = woken {
                self.signs.asleep.store(false, Ordering::Relaxed);
                return woken;
            }
            match left {
                None => std::thread::park(),
                Some(left) => std::thread::park_timeout(left),
            }
        }
    }

    fn has_orders(&self) -> bool {
        let orders = lock(&self.orders);
        orders.closing || orders.flush_wanted > orders.flush_tried
    }

    /// True if the ledger is closing.
    pub(super) fn closing(&self) -> bool {
        lock(&self.orders).closing
    }

    /// Passes what waits in each shard to `take`. If `last`, nothing can be posted afterwards.
    pub(super) fn drain(&self, last: bool, mut take: impl FnMut(Taken)) {
        for shard in &self.shards {
            let mut gate = lock(&shard.waiting);
            gate.closed |= last;
            if gate.waiting.is_empty() {
                continue;
            }
            let waiting = std::mem::take(&mut gate.waiting);
            drop(gate);
            take(waiting.into_taken());
        }
    }

    /// Counts `readings` as settled.
    pub(super) fn settle(&self, readings: u64) {
        self.settled.fetch_add(readings, Ordering::Release);
    }

    /// The newest flush that is wanted. It must be read before draining, and answered after storing.
    pub(super) fn flush_wanted(&self) -> u64 {
        lock(&self.orders).flush_wanted
    }

    /// Answers all flushes up to `ticket`.
    pub(super) fn answer(&self, ticket: u64, stored: bool) {
        self.healthy.store(stored, Ordering::Relaxed);
        let mut orders = lock(&self.orders);
        orders.flush_tried = ticket;
        if stored {
            orders.flush_stored = ticket;
        }
        drop(orders);
        self.answered.notify_all();
    }

    /// The writer has ended; `in_order` unless it panicked.
    pub(super) fn finished(&self, in_order: bool) {
        if !in_order {
            self.healthy.store(false, Ordering::Relaxed);
        }
        lock(&self.orders).finished = true;
        self.answered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{invocation, window};
    use super::*;

    /// Drains `intake` and counts what it held as settled.
    fn settle(intake: &Intake) -> u64 {
        let mut count = 0;
        intake.drain(false, |taken| {
            let blocks = taken.ended.iter().chain(&taken.invocations);
            count += blocks.map(|block| u64::from(block.count)).sum::<u64>() + taken.open.len() as u64;
        });
        intake.settle(count);
        count
    }

    #[test]
    fn there_is_room_until_too_many_wait_and_again_when_they_are_settled() {
        for room in [1, 100, 70_000] {
            let intake = Intake::new(room);
            let reading = invocation("f");
            for waiting in 1..=room + LOOK_EACH_MAX {
                assert!(intake.has_room() || waiting > room, "{waiting} of {room}");
                intake.post(Reading::Invocation(&reading));
            }
            assert!(!intake.has_room(), "{room}");
            assert_eq!(settle(&intake), room + LOOK_EACH_MAX);
            assert!(intake.has_room() && intake.backlog() == 0);
        }
    }

    #[test]
    fn threads_do_not_share_a_shard() {
        let shards: std::collections::HashSet<usize> =
            (0..8).map(|_| std::thread::spawn(own_shard).join().unwrap()).collect();
        // Threads of other tests take shards in between, so two of these may be a whole round apart and share one.
        assert!(shards.len() >= 7, "{shards:?}");
        assert_eq!(own_shard(), own_shard());
    }

    #[test]
    fn no_reading_is_slept_through() {
        const EACH: u64 = 20_000;
        let intake = Arc::new(Intake::new(u64::MAX));
        let posters: Vec<_> = (0..2)
            .map(|_| {
                let intake = intake.clone();
                std::thread::spawn(move || {
                    let (invocation, window) = (invocation("f"), window("f"));
                    for number in 0..EACH {
                        let reading =
                            if number % 2 == 0 { Reading::Invocation(&invocation) } else { Reading::Window(&window) };
                        intake.post(reading);
                    }
                })
            })
            .collect();
        intake.attend();
        let mut seen = 0;
        while seen < 2 * EACH {
            let give_up = Instant::now() + Duration::from_secs(10);
            assert_eq!(intake.wait(true, Some(give_up)), Woken::Posted, "after {seen}");
            seen += settle(&intake);
        }
        assert_eq!((seen, intake.backlog()), (2 * EACH, 0));
        posters.into_iter().for_each(|poster| poster.join().unwrap());
    }

    #[test]
    fn what_comes_after_the_last_drain_is_not_kept() {
        let intake = Intake::new(10);
        intake.drain(true, |_| panic!("nothing waits"));
        intake.post(Reading::Invocation(&invocation("f")));
        assert_eq!((intake.backlog(), settle(&intake)), (0, 0));
    }
}
