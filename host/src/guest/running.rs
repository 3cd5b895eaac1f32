//! [`Guest`]: one instantiated component. It runs only while it is polled.
//!
//! A guest is one future: it instantiates the component, then takes calls from the mailbox and runs them concurrently.
//! The engine borrows the store while anything runs in it, so all calls in flight live inside this one future. To park
//! or suspend a guest in the middle of its calls, it is simply no longer polled.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use wasmtime::component::{Accessor, GuestTaskId};
use wasmtime::{AsContextMut as _, CallHook, Store, StoreContextMut, UpdateDeadline};

use super::blueprint::Blueprint;
use super::call::Call;
use super::ending::{Ending, Trap};
use super::epoch::Ticker;
use super::funcs::Funcs;
use super::mailbox::{Event, Mailbox, Preempted};
use super::world::World;
use crate::ids::InstanceId;

/// Epochs between two checks of how long guest code has been running.
const EPOCHS_PER_CHECK: u64 = 1;
/// The tick of a poll at which guest code yields. Not the first, which may come at any moment after the poll began: a
/// call of a few microseconds would be interrupted just because a tick fell into it.
const YIELDS_AT_TICK: u64 = 2;

/// Polls of a guest at a time. One that wakes itself for ever is not to keep others waiting.
const POLLS_MAX: usize = 8;

/// A component's instance in its store.
pub struct Guest {
    future: Pin<Box<dyn Future<Output = Ending> + Send>>,
    mailbox: Arc<Mailbox>,
    ticker: Arc<Ticker>,
    ended: bool,
}

impl Guest {
    /// A guest that will instantiate itself when it is polled.
    pub fn new(blueprint: Arc<Blueprint>, instance: InstanceId) -> Guest {
        let mailbox = Arc::new(Mailbox::default());
        let ticker = blueprint.ticker.clone();
        let future = Box::pin(run(blueprint, instance, mailbox.clone()));
        Guest { future, mailbox, ticker, ended: false }
    }

    /// Puts a call into the mailbox; the next poll starts it.
    pub fn call(&mut self, call: Call) {
        self.mailbox.put_call(call);
    }

    /// The next event since the last poll.
    pub fn take_event(&mut self) -> Option<Event> {
        self.mailbox.take_event()
    }

    /// Runs the guest until it waits or its time slice is over. Its events are then in the mailbox. `was_woken` tells whether
    /// the waker was called since it was last asked: a guest's tasks wake each other, and what they have to do at once is
    /// done at once.
    pub fn poll(&mut self, cx: &mut Context<'_>, mut was_woken: impl FnMut() -> bool) {
        if self.ended {
            return;
        }
        self.mailbox.begin_poll(self.ticker.ticks());
        // The ticker sleeps while nobody polls, and without its ticks guest code would never yield.
        let polling = self.ticker.poll();
        let mut polled = self.future.as_mut().poll(cx);
        for _ in 1..POLLS_MAX {
            if polled.is_ready() || self.preempted() != Preempted::No || !was_woken() {
                break;
            }
            polled = self.future.as_mut().poll(cx);
        }
        drop(polling);
        if let Poll::Ready(ending) = polled {
            self.ended = true;
            self.mailbox.put_event(Event::Ended(ending));
        } else {
            self.mailbox.stream_responses();
        }
    }

    /// The code that the last poll interrupted.
    pub fn preempted(&self) -> Preempted {
        self.mailbox.preempted()
    }

    /// Closes the guest's idle connections. Called when it is parked.
    pub fn rest(&self) {
        self.mailbox.connections.close();
    }

    /// Linear memory now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.mailbox.gauge.memory_bytes.load(Ordering::Relaxed)
    }

    /// The most linear memory it ever had, in bytes.
    pub fn memory_bytes_peak(&self) -> u64 {
        self.mailbox.gauge.memory_bytes_peak.load(Ordering::Relaxed)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Before `future` is dropped, which owns the store.
        self.mailbox.close_deliveries();
    }
}

/// Instantiates a guest and runs its calls until it cannot continue.
async fn run(blueprint: Arc<Blueprint>, instance: InstanceId, mailbox: Arc<Mailbox>) -> Ending {
    let mut store = blueprint.store(instance, &mailbox);
    record_task(&mut store, mailbox.clone());
    yield_in_time(&mut store, mailbox.clone(), blueprint.ticker.clone());
    let funcs = match Funcs::instantiate(&blueprint, &mut store).await {
        Ok(funcs) => funcs,
        Err(error) => {
            return match mailbox.gauge.memory_lack() {
                Some(lack) => Ending::OutOfMemory { lack, blamed: None },
                None => Ending::NotStarted(Trap::from_engine(&error)),
            };
        }
    };
    drop(blueprint);
    mailbox.put_event(Event::Started);
    let for_calls = mailbox.clone();
    let ran = store.run_concurrent(async move |accessor| take_calls(accessor, &funcs, &for_calls).await).await;
    let error = match ran {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) | Err(error) => error,
    };
    poll_fn(|cx| {
        mailbox.answer_whole(cx);
        Poll::Ready(())
    })
    .await;
    mailbox.close_deliveries();
    // A trap stops the whole store, and the engine may report it to no call; but its current task is still the one that
    // trapped.
    let blamed = mailbox.blamed(running_task(&mut store.as_context_mut()));
    match mailbox.gauge.memory_lack() {
        Some(lack) => Ending::OutOfMemory { lack, blamed },
        None => Ending::Crashed { trap: Trap::from_engine(&error), blamed },
    }
}

/// The root task of the code that the engine is running: the one that was started for an export's call.
fn running_task(store: &mut StoreContextMut<'_, World>) -> Option<GuestTaskId> {
    store.async_call_stack().ok()?.last()
}

/// Records, for each call from guest code into the host, which task makes it.
///
/// Host functions such as a write to standard output have no access to the store, so they cannot ask the engine which
/// call they serve. The call hook can: it runs at every transition between guest and host, and puts the task into the
/// mailbox before the host function starts. After any other transition guest code runs, perhaps that of another task,
/// so the record is cleared. Asking takes longer than most host calls, so it is done only if several calls are
/// candidates.
fn record_task(store: &mut Store<World>, mailbox: Arc<Mailbox>) {
    store.call_hook(move |mut store, transition| {
        if mailbox.is_ambiguous() {
            let calls_host = matches!(transition, CallHook::CallingHost);
            mailbox.set_current_task(if calls_host { running_task(&mut store) } else { None });
        }
        Ok(())
    });
}

/// Makes guest code yield when it has run for one to two milliseconds, and records its call.
///
/// Compiled code compares the engine's epoch with the store's deadline at each loop and function entry, and calls this
/// when the deadline has passed. The deadline alone does not tell how long the code has been running: it was set in an
/// earlier poll, or when the call began, and the ticker also ticks for other stores. So this counts the ticks since the
/// current poll began. To yield, the engine wakes the task and returns `Pending` from the poll. The driver can then
/// check its deadlines, and another instance can use the thread.
fn yield_in_time(store: &mut Store<World>, mailbox: Arc<Mailbox>, ticker: Arc<Ticker>) {
    store.epoch_deadline_callback(move |mut store| {
        if ticker.ticks() - mailbox.polled_at() < YIELDS_AT_TICK {
            return Ok(UpdateDeadline::Continue(EPOCHS_PER_CHECK));
        }
        mailbox.set_preempted(running_task(&mut store));
        Ok(UpdateDeadline::Yield(EPOCHS_PER_CHECK))
    });
    store.set_epoch_deadline(EPOCHS_PER_CHECK);
}

/// Starts each call that is put into the mailbox, and runs all of them until the guest ends. Collects their responses: the
/// engine polls this after each step of the guest.
///
/// A new call needs no waker: its sender polls the guest next, and each poll checks the mailbox. Calls that wait for
/// I/O wake the task through `under_way`.
async fn take_calls(
    accessor: &Accessor<World>,
    funcs: &Funcs,
    mailbox: &Arc<Mailbox>,
) -> wasmtime::Result<std::convert::Infallible> {
    // Not `accessor.spawn`: its tasks can be aborted and joined, and it takes twice as long.
    let mut under_way = FuturesUnordered::new();
    let one_by_one = funcs.handle_one_by_one();
    poll_fn(|cx| {
        loop {
            while let Some(call) = mailbox.take_call(one_by_one) {
                // If their background work is over, the new call is the only candidate and the engine need not be asked.
                mailbox.forget_answered_if(|| is_silent(accessor));
                // The epoch deadline of a store that was not polled for a while has passed. Without a new one, the
                // guest's first loop would call the epoch callback for nothing.
                accessor.with(|mut access| access.as_context_mut().set_epoch_deadline(EPOCHS_PER_CHECK));
                under_way.push(run_call(accessor, funcs, mailbox, call));
            }
            while let Poll::Ready(Some(ended)) = under_way.poll_next_unpin(cx) {
                if let Err(error) = ended {
                    return Poll::Ready(Err(error));
                }
            }
            // A response that is whole ends its call, and a call that returns lets the next one begin.
            if !mailbox.collect(cx) && !mailbox.has_call(one_by_one) {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// True if no task is left in the guest, not even background work of an answered call.
fn is_silent(accessor: &Accessor<World>) -> bool {
    accessor.poll_no_interesting_tasks(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Runs one call and reports its end. An error ends the guest: the engine cannot continue after a trap.
async fn run_call(
    accessor: &Accessor<World>,
    funcs: &Funcs,
    mailbox: &Arc<Mailbox>,
    call: Call,
) -> wasmtime::Result<()> {
    let (id, request) = (call.id, call.request.clone());
    match funcs.call(accessor, mailbox, call).await {
        Ok(returned) => {
            accessor.with(|mut access| access.get().end_lines_of(&request));
            // The guest carried on without the memory it was refused.
            mailbox.gauge.note_lack(None);
            mailbox.end_call(id, returned, is_silent(accessor));
            Ok(())
        }
        Err(error) => {
            mailbox.blame(id);
            Err(error)
        }
    }
}
