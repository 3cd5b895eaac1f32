//! Where posted readings wait for the writer, and how the writer is woken and spoken to.
//!
//! Posters take one of many short locks and never SQLite's time; the writer drains all of them. The readings of one
//! instance always go through the same shard, so that the writer sees them in the order in which they were posted.
//!
//! Waking is by numbers: the writer says at which count of posted readings it wants to be woken (`wake_at`) and parks;
//! the poster that reaches the count unparks it. Both sides write first and then read, in sequentially consistent
//! order, so one of them always sees the other.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::meter::Reading;

/// Enough that posters on all cores seldom meet in one.
const SHARDS: usize = 64;

/// A drained shard gets room for as many readings as it had, but for no more than these.
const SHARD_ROOM_KEPT: usize = 1024;

/// `wake_at` while the writer is awake.
const NEVER: u64 = u64::MAX;

/// Why the writer was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The count of posted readings was reached.
    Posted,
    /// The deadline passed.
    Due,
    /// Somebody waits for a flush, or the ledger closes.
    Ordered,
}

/// What callers ask of the writer, and what it answered. Flushes are numbered; the writer answers all up to a number.
#[derive(Default)]
struct Orders {
    flush_wanted: u64,
    flush_tried: u64,
    flush_stored: u64,
    closing: bool,
    finished: bool,
}

/// Readings of one shard; none once the ledger is closed. A cache line each, so that shards do not slow each other.
#[repr(align(64))]
struct Shard(Mutex<Option<Vec<Reading>>>);

/// The shared part of a ledger.
pub(super) struct Intake {
    shards: Box<[Shard]>,
    turn: AtomicUsize,
    /// Readings ever posted. It is counted under the shard's lock, so that the writer never holds an uncounted one.
    posted: AtomicU64,
    /// Readings that need no more storing: committed, or replaced by a later one.
    settled: AtomicU64,
    wake_at: AtomicU64,
    writer: OnceLock<Thread>,
    healthy: AtomicBool,
    late: AtomicU64,
    orders: Mutex<Orders>,
    answered: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Posting happens while other panics unwind; the data are whole after every statement, so poison means nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    pub(super) fn new() -> Intake {
        Intake {
            shards: (0..SHARDS).map(|_| Shard(Mutex::new(Some(Vec::new())))).collect(),
            turn: AtomicUsize::new(0),
            posted: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            wake_at: AtomicU64::new(NEVER),
            writer: OnceLock::new(),
            healthy: AtomicBool::new(true),
            late: AtomicU64::new(0),
            orders: Mutex::default(),
            answered: Condvar::new(),
        }
    }

    /// Puts `reading` into its shard.
    pub(super) fn post(&self, reading: Reading) {
        let turn = match &reading {
            Reading::Window(window) => window.instance.as_u64() as usize,
            Reading::Invocation(_) => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let mut shard = lock(&self.shards[turn % SHARDS].0);
        let Some(readings) = shard.as_mut() else {
            drop(shard);
            self.came_late();
            return;
        };
        readings.push(reading);
        let posted = self.posted.fetch_add(1, Ordering::SeqCst) + 1;
        drop(shard);
        if posted >= self.wake_at.load(Ordering::SeqCst) && self.wake_at.swap(NEVER, Ordering::SeqCst) != NEVER {
            self.wake();
        }
    }

    fn came_late(&self) {
        // Once, not for each: a host that ends in the wrong order may have thousands.
        if self.late.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!("readings were posted after the ledger was closed; they are not stored");
        }
    }

    /// Readings that are posted and not settled.
    pub(super) fn backlog(&self) -> u64 {
        let settled = self.settled.load(Ordering::SeqCst);
        self.posted.load(Ordering::SeqCst) - settled
    }

    /// Whether the last attempt to store succeeded.
    pub(super) fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Waits until everything posted before the call is stored; false if that failed or took longer than `within`.
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
        // Before the writer has started there is nobody to wake; it looks at everything before it first parks.
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

/// The writer's side.
impl Intake {
    /// Makes the calling thread the one that is woken.
    pub(super) fn attend(&self) {
        self.writer.get_or_init(std::thread::current);
    }

    /// Parks until `wake_at` readings were ever posted, until `deadline`, or until there is an order.
    pub(super) fn wait(&self, wake_at: u64, deadline: Option<Instant>) -> Woken {
        loop {
            self.wake_at.store(wake_at, Ordering::SeqCst);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let woken = if self.has_orders() {
                Some(Woken::Ordered)
            } else if self.posted.load(Ordering::SeqCst) >= wake_at {
                Some(Woken::Posted)
            } else {
                left.filter(Duration::is_zero).map(|_| Woken::Due)
            };
            if let Some(woken) = woken {
                self.wake_at.store(NEVER, Ordering::SeqCst);
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

    /// Whether the ledger closes.
    pub(super) fn closing(&self) -> bool {
        lock(&self.orders).closing
    }

    /// Hands every waiting reading to `take`, in each shard's order; the number of them. If `last`, nothing can be
    /// posted afterwards.
    pub(super) fn drain(&self, last: bool, mut take: impl FnMut(Reading)) -> u64 {
        let mut count = 0;
        for shard in &self.shards {
            let mut shard = lock(&shard.0);
            let waiting = shard.as_ref().map_or(0, Vec::len);
            if waiting == 0 && !last {
                continue;
            }
            let emptied = (!last).then(|| Vec::with_capacity(waiting.min(SHARD_ROOM_KEPT)));
            let readings = std::mem::replace(&mut *shard, emptied);
            drop(shard);
            for reading in readings.into_iter().flatten() {
                count += 1;
                take(reading);
            }
        }
        count
    }

    /// Counts `readings` as settled.
    pub(super) fn settle(&self, readings: u64) {
        self.settled.fetch_add(readings, Ordering::SeqCst);
    }

    /// The newest flush that is wanted. It must be asked before draining, and answered after storing.
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
