//! The epoch ticker: advances the engines' epochs every millisecond while a store is being polled, and sleeps otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::meter::EPOCH;

/// Ticks without a poll after which the thread goes to sleep. Longer than the pause between two requests of a busy host,
/// which would wake it each time; short enough that an idle host uses no CPU.
const IDLE_TICKS: u32 = 20;

/// Counters of polls; so many that two polling threads seldom share one.
const SLOTS: usize = 64;

/// Ticks while anybody polls. Dropping the last handle ends the thread.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    polling: [Slot; SLOTS],
    ticks: AtomicU64,
    asleep: AtomicBool,
    ended: AtomicBool,
}

/// Polls under way on some of the threads. A cache line each, so that polling on one core does not slow another.
#[derive(Default)]
#[repr(align(128))]
struct Slot(AtomicUsize);

/// A poll of a store; ends when dropped.
pub(super) struct Polling<'a>(&'a Slot);

impl Shared {
    fn anybody_polls(&self) -> bool {
        self.polling.iter().any(|slot| slot.0.load(Ordering::SeqCst) > 0)
    }
}

/// This thread's slot.
fn own_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS);
    OWN.with(|own| *own)
}

impl Ticker {
    pub(super) fn start(engines: [wasmtime::Engine; 2]) -> std::io::Result<Ticker> {
        let polling = std::array::from_fn(|_| Slot::default());
        let (ticks, asleep, ended) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared { polling, ticks, asleep, ended });
        let own = shared.clone();
        let thread = thread::Builder::new().name("epoch".to_owned()).spawn(move || tick(&own, &engines))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Ticks so far.
    pub(super) fn ticks(&self) -> u64 {
        self.shared.ticks.load(Ordering::Relaxed)
    }

    /// Call before a store is polled, and drop the result after.
    pub(super) fn poll(&self) -> Polling<'_> {
        // Each side writes its own flag, then reads the other's: here the slot, then `asleep`; in `tick` `asleep`, then the
        // slots. With sequential consistency at least one of them sees the other, so no poll goes without ticks.
        let slot = &self.shared.polling[own_slot()];
        slot.0.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Polling(slot)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It ends within a tick and cannot panic; a failed join would leave nothing to do.
            let _ = thread.join();
        }
    }
}

fn tick(shared: &Shared, engines: &[wasmtime::Engine]) {
    let mut idle_ticks = 0;
    while !shared.ended.load(Ordering::SeqCst) {
        thread::sleep(EPOCH);
        shared.ticks.fetch_add(1, Ordering::Relaxed);
        engines.iter().for_each(wasmtime::Engine::increment_epoch);
        idle_ticks = if shared.anybody_polls() { 0 } else { idle_ticks + 1 };
        if idle_ticks < IDLE_TICKS {
            continue;
        }
        shared.asleep.store(true, Ordering::SeqCst);
        while !shared.anybody_polls() && !shared.ended.load(Ordering::SeqCst) {
            thread::park();
        }
        shared.asleep.store(false, Ordering::SeqCst);
        idle_ticks = 0;
    }
}
