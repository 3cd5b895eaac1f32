//! [`Guest`]: one instantiated component. It runs only while it is polled.
//!
//! A guest is one future: it instantiates the component, then takes calls from the mailbox and runs them side by side.
//! One future, because the engine borrows the store for as long as anything runs in it; so the calls in flight live
//! inside, and parking or suspending a guest in the middle of them means no more than not polling it.

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
use super::limits::Exceeded;
use super::mailbox::{Event, Mailbox, Preempted};
use super::world::World;
use crate::ids::InstanceId;

/// Epochs between two checks of how long guest code has been running.
const EPOCHS_PER_CHECK: u64 = 1;
/// The tick of a poll at which guest code yields. Not the first, which comes at any time after the poll began: a call
/// that is over in microseconds would be interrupted just because a tick fell into it.
const YIELDS_AT_TICK: u64 = 2;

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

    /// Lets the guest run until it waits or its slice of the epoch is over. Events are in the mailbox afterwards.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        if self.ended {
            return;
        }
        self.mailbox.begin_poll(self.ticker.ticks());
        // The ticker sleeps while nobody polls, and without its ticks guest code would never yield.
        let polling = self.ticker.poll();
        let polled = self.future.as_mut().poll(cx);
        drop(polling);
        if let Poll::Ready(ending) = polled {
            self.ended = true;
            self.mailbox.put_event(Event::Ended(ending));
        }
    }

    /// Whose code the last poll interrupted.
    pub fn preempted(&self) -> Preempted {
        self.mailbox.preempted()
    }

    /// Closes the connections that the guest does not use: it is about to be parked.
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
        self.mailbox.close_deliveries();
    }
}

/// Instantiates a guest and runs its calls until it cannot go on.
async fn run(blueprint: Arc<Blueprint>, instance: InstanceId, mailbox: Arc<Mailbox>) -> Ending {
    let mut store = blueprint.store(instance, &mailbox);
    record_task(&mut store, mailbox.clone());
    yield_in_time(&mut store, mailbox.clone(), blueprint.ticker.clone());
    let funcs = match Funcs::instantiate(&blueprint, &mut store).await {
        Ok(funcs) => funcs,
        // A component may ask for more memory at its start already.
        Err(_) if mailbox.gauge.memory_refused.load(Ordering::Relaxed) => return Ending::OutOfMemory { blamed: None },
        Err(error) => return Ending::NotStarted(Trap::from_engine(&error)),
    };
    drop(blueprint);
    mailbox.put_event(Event::Started);
    let for_calls = mailbox.clone();
    let ran = store.run_concurrent(async move |accessor| take_calls(accessor, &funcs, &for_calls).await).await;
    let error = match ran {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) | Err(error) => error,
    };
    mailbox.close_deliveries();
    // A trap stops the whole store, and the engine may report it to no call; but it is still in the task that trapped.
    let blamed = mailbox.blamed(running_task(&mut store.as_context_mut()));
    if mailbox.gauge.memory_refused.load(Ordering::Relaxed) {
        return Ending::OutOfMemory { blamed };
    }
    Ending::Crashed { trap: Trap::from_engine(&error), blamed }
}

/// The task of the export's call that the engine is in.
fn running_task(store: &mut StoreContextMut<'_, World>) -> Option<GuestTaskId> {
    store.async_call_stack().ok()?.last()
}

/// Records, for each call from guest code into the host, which task makes it.
///
/// Host functions such as a write to standard output have no access to the store, so they cannot ask the engine for
/// which call they work. The call hook can: it runs at every transition between guest and host, and leaves the task in
/// the mailbox before the host function starts. On any other transition guest code goes on, perhaps that of another task,
/// and what was recorded is no longer true. Asking takes longer than most host calls, so it is done only if several calls
/// could be meant.
fn record_task(store: &mut Store<World>, mailbox: Arc<Mailbox>) {
    store.call_hook(move |mut store, transition| {
        if mailbox.is_ambiguous() {
            let calls_host = matches!(transition, CallHook::CallingHost);
            mailbox.set_current_task(if calls_host { running_task(&mut store) } else { None });
        }
        Ok(())
    });
}

/// Makes guest code yield when it has run for one to two milliseconds, and records whose it was.
///
/// Compiled code compares the engine's epoch with the store's deadline at each loop and function entry, and calls this
/// when the deadline has passed. The deadline alone does not tell how long the code has been running: it was set in some
/// earlier poll, or when the call began, and the ticker goes on for other stores. So this counts the ticks since the
/// current poll began. To yield means that the engine wakes the task and returns `Pending` from the poll: the driver looks
/// at its deadlines, and another instance may have the thread.
fn yield_in_time(store: &mut Store<World>, mailbox: Arc<Mailbox>, ticker: Arc<Ticker>) {
    store.epoch_deadline_callback(move |mut store| {
        if mailbox.gauge.output_exceeded.load(Ordering::Relaxed) {
            return Err(Exceeded::Output.into());
        }
        if ticker.ticks() - mailbox.polled_at() < YIELDS_AT_TICK {
            return Ok(UpdateDeadline::Continue(EPOCHS_PER_CHECK));
        }
        mailbox.set_preempted(running_task(&mut store));
        Ok(UpdateDeadline::Yield(EPOCHS_PER_CHECK))
    });
    store.set_epoch_deadline(EPOCHS_PER_CHECK);
}

/// Starts each call that appears in the mailbox and runs all of them, for ever.
///
/// No waker tells of a new call: whoever puts one into the mailbox polls the guest next, and each poll looks. Futures of
/// calls that wait for I/O wake the task through `under_way`.
async fn take_calls(
    accessor: &Accessor<World>,
    funcs: &Funcs,
    mailbox: &Arc<Mailbox>,
) -> wasmtime::Result<std::convert::Infallible> {
    // Not `accessor.spawn`, which is made for tasks that may be aborted and joined, and takes twice as long.
    let mut under_way = FuturesUnordered::new();
    poll_fn(|cx| {
        while let Some(call) = mailbox.take_call() {
            mailbox.forget_answered_if(|| is_silent(accessor));
            // The deadline of a store that was left alone has long passed. Without a new one, the first loop of the guest
            // would call the epoch callback for nothing.
            accessor.with(|mut access| access.as_context_mut().set_epoch_deadline(EPOCHS_PER_CHECK));
            under_way.push(run_call(accessor, funcs, mailbox, call));
        }
        while let Poll::Ready(Some(ended)) = under_way.poll_next_unpin(cx) {
            if let Err(error) = ended {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    })
    .await
}

/// Whether no task is left in the guest, not even background work of an answered call.
fn is_silent(accessor: &Accessor<World>) -> bool {
    accessor.poll_no_interesting_tasks(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Runs one call and reports its end. An error here is the end of the guest: the engine cannot go on after a trap.
async fn run_call(
    accessor: &Accessor<World>,
    funcs: &Funcs,
    mailbox: &Arc<Mailbox>,
    call: Call,
) -> wasmtime::Result<()> {
    let id = call.id;
    match funcs.call(accessor, mailbox, call).await {
        Ok(returned) => {
            // The guest carried on without the memory it was refused.
            mailbox.gauge.memory_refused.store(false, Ordering::Relaxed);
            mailbox.end_call(id, returned, is_silent(accessor));
            Ok(())
        }
        Err(error) => {
            mailbox.blame(id);
            Err(error)
        }
    }
}
