//! The epoch ticker: advances the engines' epochs every millisecond while any store is polled, and has the host's memory
//! watched. Otherwise it sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::memory::Governor;
use crate::meter::EPOCH;

/// Ticks without a poll after which the thread goes to sleep. Longer than the pause between two requests of a busy
/// host, so that not every request must wake it; short enough that an idle host uses no CPU.
const IDLE_TICKS: u32 = 20;

/// Poll counters: enough that two polling threads seldom share one.
const SLOTS: usize = 64;

/// The ticker. Dropping it ends its thread.
pub(super) struct Ticker {
    polls: Arc<Polls>,
    thread: Option<JoinHandle<()>>,
}

/// State shared by the ticker's thread and the polling threads.
struct Polls {
    polling: [Slot; SLOTS],
    ticks: AtomicU64,
    asleep: AtomicBool,
    ended: AtomicBool,
}

/// The number of polls under way on the threads of this slot. Aligned so that polling on one core does not slow
/// another.
#[derive(Default)]
#[repr(align(128))]
struct Slot(AtomicUsize);

/// A poll of a store; ends when dropped.
pub(super) struct Polling<'a>(&'a Slot);

impl Polls {
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
    pub(super) fn start(engines: [wasmtime::Engine; 2], governor: Governor) -> std::io::Result<Ticker> {
        let polling = std::array::from_fn(|_| Slot::default());
        let (ticks, asleep, ended) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let polls = Arc::new(Polls { polling, ticks, asleep, ended });
        let own = polls.clone();
        let thread = thread::Builder::new().name("epoch".to_owned()).spawn(move || tick(&own, &engines, &governor))?;
        Ok(Ticker { polls, thread: Some(thread) })
    }

    /// Ticks so far.
    pub(super) fn ticks(&self) -> u64 {
        self.polls.ticks.load(Ordering::Relaxed)
    }

    /// Whether it sleeps, because nobody polls.
    pub(super) fn is_asleep(&self) -> bool {
        self.polls.asleep.load(Ordering::Relaxed)
    }

    /// Keeps the ticker awake. Call this before polling a store, and drop the result after the poll.
    pub(super) fn poll(&self) -> Polling<'_> {
        // No poll may run without ticks. Each side writes its own flag before it reads the other's: here the slot, then
        // `asleep`; in `tick` `asleep`, then the slots. With sequential consistency at least one side sees the other's
        // write, so the ticker stays awake or is woken.
        let slot = &self.polls.polling[own_slot()];
        slot.0.fetch_add(1, Ordering::SeqCst);
        if self.polls.asleep.load(Ordering::SeqCst)
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
        self.polls.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread ends within a tick and cannot panic; there is nothing to do about a failed join.
            let _ = thread.join();
        }
    }
}

fn tick(polls: &Polls, engines: &[wasmtime::Engine], governor: &Governor) {
    let mut idle_ticks = 0;
    while !polls.ended.load(Ordering::SeqCst) {
        thread::sleep(EPOCH);
        polls.ticks.fetch_add(1, Ordering::Relaxed);
        engines.iter().for_each(wasmtime::Engine::increment_epoch);
        // Guests that run may touch what they were granted long ago.
        governor.watch();
        idle_ticks = if polls.anybody_polls() { 0 } else { idle_ticks + 1 };
        if idle_ticks < IDLE_TICKS {
            continue;
        }
        polls.asleep.store(true, Ordering::SeqCst);
        while !polls.anybody_polls() && !polls.ended.load(Ordering::SeqCst) {
            // An `unpark` between the check and this is not lost: `park` then returns at once.
            thread::park();
        }
        polls.asleep.store(false, Ordering::SeqCst);
        idle_ticks = 0;
    }
}
