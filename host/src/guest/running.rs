//! [`Guest`]: one instantiated component. It runs while it is polled, and only then; left alone it stands exactly still.
//!
//! The whole life of a store is one future: instantiate, then take calls. `instance::driver` owns the guest, puts calls
//! on its desk, polls it, and takes events off the desk. A parked or suspended guest is simply one that nobody polls.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use wasmtime::component::{Accessor, GuestTaskId};
use wasmtime::{AsContextMut as _, CallHook, Store, StoreContextMut, UpdateDeadline};

use super::call::{Call, CallId, Returned};
use super::client::Connections;
use super::delivery::{Body, Delivery, Response, ResponseBody};
use super::ending::{Ending, Trap};
use super::epoch::Ticker;
use super::funcs::Funcs;
use super::limits::{Exceeded, Gauge};
use super::world::{Blueprint, World};
use crate::ids::{InstanceId, RequestId};
use crate::log::Author;

/// Ticks of the epoch between two looks at how long guest code has been running.
const EPOCHS_PER_LOOK: u64 = 1;
/// The tick of a poll at which guest code yields. Not the first, which comes at any time after the poll began: a call
/// that is over in microseconds would be interrupted just because a tick fell into it.
const YIELDS_AT_TICK: u64 = 2;

/// Answered calls of which something may still run that are remembered: enough for lines to find their request, and a
/// bound for guests that begin work with each request and never end it.
const ANSWERED_MAX: usize = 16;

/// A component's instance in its store.
pub struct Guest {
    life: Pin<Box<dyn Future<Output = Ending> + Send>>,
    desk: Arc<Desk>,
    ticker: Arc<Ticker>,
    ended: bool,
}

/// What a guest has to tell.
#[derive(Debug)]
pub enum Event {
    /// It is instantiated and takes calls.
    Started,
    /// The handler of a request answered with this response. Its body may go on until the call returns.
    Responded(CallId, Box<Response>),
    /// A call returned, and nobody reads a body of its response any more.
    Returned(CallId, Returned),
    /// It cannot be called or polled any more.
    Ended(Ending),
}

/// Whose code was running when the last poll gave the thread back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempted {
    /// Nobody's: the guest waits.
    No,
    /// This call's, or that of a task it started.
    Call(CallId),
    /// Code that belongs to no call in flight.
    Unknown,
}

impl Guest {
    /// A guest that will instantiate itself when it is polled.
    pub fn new(blueprint: Arc<Blueprint>, instance: InstanceId) -> Guest {
        let desk = Arc::new(Desk::default());
        let ticker = blueprint.ticker.clone();
        let life = Box::pin(live(blueprint, instance, desk.clone()));
        Guest { life, desk, ticker, ended: false }
    }

    /// Puts a call on the desk; the next poll starts it.
    pub fn call(&mut self, call: Call) {
        self.desk.lock().calls.push_back(call);
    }

    /// The next event since the last poll.
    pub fn take_event(&mut self) -> Option<Event> {
        self.desk.lock().events.pop_front()
    }

    /// Lets the guest run until it waits or its slice of the epoch is over. Events are on the desk afterwards.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        if self.ended {
            return;
        }
        self.desk.begin_poll(self.ticker.ticks());
        let polling = self.ticker.poll();
        let life = self.life.as_mut().poll(cx);
        drop(polling);
        if let Poll::Ready(ending) = life {
            self.ended = true;
            self.desk.lock().events.push_back(Event::Ended(ending));
        }
    }

    /// Whose code the last poll interrupted.
    pub fn preempted(&self) -> Preempted {
        self.desk.lock().preempted
    }

    /// The guest comes to rest: closes the connections that it does not use.
    pub fn rest(&self) {
        self.desk.connections.close();
    }

    /// Linear memory now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.desk.gauge.memory_bytes.load(Ordering::Relaxed)
    }

    /// The most linear memory it ever had, in bytes.
    pub fn memory_bytes_peak(&self) -> u64 {
        self.desk.gauge.memory_bytes_peak.load(Ordering::Relaxed)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.desk.close_deliveries();
    }
}

/// Where the guest's future and its owner leave things for each other. Only one of them runs at a time, so the lock is
/// never contended; it is there because both may move between threads.
#[derive(Default)]
pub(super) struct Desk {
    gauge: Arc<Gauge>,
    pub(super) connections: Connections,
    /// Whether it takes the engine to tell for which call the guest works.
    asks: AtomicBool,
    papers: Mutex<Papers>,
}

struct Papers {
    calls: VecDeque<Call>,
    events: VecDeque<Event>,
    /// The calls in flight.
    calls_under_way: Vec<Calling>,
    /// Calls that were answered, the latest last, whose tasks may have left something running.
    calls_answered: VecDeque<Calling>,
    /// The task in which the guest asked for what the host does now, where the engine is asked for it.
    asking: Option<GuestTaskId>,
    /// Responses under way.
    deliveries: Vec<(CallId, Delivery)>,
    preempted: Preempted,
    /// The ticker's count when the poll at hand began.
    polled_at: u64,
    blamed: Option<CallId>,
}

/// A call, the engine's task that it is, and who made it.
struct Calling {
    task: GuestTaskId,
    call: CallId,
    origin: Origin,
}

/// Whom a guest works for.
#[derive(Clone)]
pub(super) struct Origin {
    /// The request, or the hook's own identifier.
    pub(super) request: RequestId,
    /// The caller's W3C trace context.
    pub(super) traceparent: Option<String>,
}

impl Default for Papers {
    fn default() -> Papers {
        Papers {
            // Most guests never have more than one of each, and a parked one keeps the space.
            calls: VecDeque::with_capacity(1),
            events: VecDeque::with_capacity(1),
            calls_under_way: Vec::new(),
            calls_answered: VecDeque::new(),
            asking: None,
            deliveries: Vec::new(),
            preempted: Preempted::No,
            polled_at: 0,
            blamed: None,
        }
    }
}

impl Desk {
    pub(super) fn gauge(&self) -> Arc<Gauge> {
        self.gauge.clone()
    }

    /// Whom the guest works for, if that is a call and the engine can tell which.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.lock().working_for().ok().flatten().map(|calling| calling.origin.clone())
    }

    /// Whose line it is that the guest writes now.
    pub(super) fn author(&self) -> Author {
        match self.lock().working_for() {
            Ok(Some(calling)) => Author::Request(calling.origin.request.clone()),
            Ok(None) => Author::Nobody,
            Err(Ambiguous) => Author::Unknown,
        }
    }

    pub(super) fn note_call(&self, call: CallId, task: GuestTaskId, origin: Origin) {
        let mut papers = self.lock();
        // The engine uses the names of tasks again that are gone.
        papers.calls_answered.retain(|calling| calling.task != task);
        papers.calls_under_way.push(Calling { task, call, origin });
        self.look_at_candidates(&mut papers);
    }

    /// Tells that a call returned; `silent` says whether nothing is left in the guest that it may have begun.
    fn note_return(&self, call: CallId, returned: Returned, silent: bool) {
        let mut papers = self.lock();
        papers.deliveries.retain(|(delivered, _)| *delivered != call);
        papers.events.push_back(Event::Returned(call, returned));
        // A hook that the component does not have never became a task.
        let Some(index) = papers.calls_under_way.iter().position(|calling| calling.call == call) else { return };
        let calling = papers.calls_under_way.swap_remove(index);
        if silent {
            papers.calls_answered.clear();
        } else {
            if papers.calls_answered.len() == ANSWERED_MAX {
                papers.calls_answered.pop_front();
            }
            papers.calls_answered.push_back(calling);
        }
        self.look_at_candidates(&mut papers);
    }

    /// Forgets calls that were answered, if `silent` says that nothing runs in the guest.
    fn forget_answered(&self, silent: impl FnOnce() -> bool) {
        let mut papers = self.lock();
        if !papers.calls_answered.is_empty() && silent() {
            papers.calls_answered.clear();
            self.look_at_candidates(&mut papers);
        }
    }

    fn look_at_candidates(&self, papers: &mut Papers) {
        let several = papers.candidates().nth(1).is_some();
        self.asks.store(several, Ordering::Relaxed);
        if !several {
            papers.asking = None;
        }
    }

    /// Hands out a response; what comes on the channel is how its body ended.
    pub(super) fn respond(
        &self,
        call: CallId,
        response: http::Response<Body>,
    ) -> oneshot::Receiver<Result<(), String>> {
        let (response, end) = ResponseBody::new(response);
        let mut papers = self.lock();
        papers.deliveries.push((call, response.body().delivery()));
        papers.events.push_back(Event::Responded(call, Box::new(response)));
        end
    }

    /// Must come before the store goes: what the engine leaves behind then looks like the end of a body.
    fn close_deliveries(&self) {
        self.lock().deliveries.drain(..).for_each(|(_, delivery)| delivery.close());
    }

    fn begin_poll(&self, ticks: u64) {
        let mut papers = self.lock();
        papers.preempted = Preempted::No;
        papers.polled_at = ticks;
    }

    fn take_call(&self) -> Option<Call> {
        self.lock().calls.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().expect("no holder of this lock panics")
    }

    /// The call that the engine's current task belongs to.
    fn current_call(&self, store: &mut StoreContextMut<'_, World>) -> Option<CallId> {
        let root = current_task(store)?;
        self.lock().calls_under_way.iter().find(|calling| calling.task == root).map(|calling| calling.call)
    }
}

/// There are several calls for which a guest may work.
struct Ambiguous;

impl Papers {
    /// The calls whose code may be running.
    fn candidates(&self) -> impl Iterator<Item = &Calling> {
        self.calls_under_way.iter().chain(&self.calls_answered)
    }

    fn working_for(&self) -> Result<Option<&Calling>, Ambiguous> {
        if self.candidates().nth(1).is_none() {
            return Ok(self.candidates().next());
        }
        self.candidates().find(|calling| Some(calling.task) == self.asking).map(Some).ok_or(Ambiguous)
    }
}

/// The task of the export's call that the engine is in.
fn current_task(store: &mut StoreContextMut<'_, World>) -> Option<GuestTaskId> {
    store.async_call_stack().ok()?.last()
}

/// A guest from its first instruction to its end.
async fn live(blueprint: Arc<Blueprint>, instance: InstanceId, desk: Arc<Desk>) -> Ending {
    let mut store = blueprint.store(instance, &desk);
    ask_for_the_task(&mut store, desk.clone());
    yield_in_time(&mut store, desk.clone(), blueprint.ticker.clone());
    let funcs = match Funcs::instantiate(&blueprint, &mut store).await {
        Ok(funcs) => funcs,
        // A component may ask for more memory at its start already.
        Err(_) if desk.gauge.memory_refused.load(Ordering::Relaxed) => return Ending::OutOfMemory { blamed: None },
        Err(error) => return Ending::NotStarted(Trap::from_engine(&error)),
    };
    drop(blueprint);
    desk.lock().events.push_back(Event::Started);
    let clerk = desk.clone();
    let ran = store.run_concurrent(async move |accessor| take_calls(accessor, &funcs, &clerk).await).await;
    let error = match ran {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) | Err(error) => error,
    };
    desk.close_deliveries();
    let blamed = desk.lock().blamed;
    let blamed = blamed.or_else(|| desk.current_call(&mut store.as_context_mut()));
    if desk.gauge.memory_refused.load(Ordering::Relaxed) {
        return Ending::OutOfMemory { blamed };
    }
    Ending::Crashed { trap: Trap::from_engine(&error), blamed }
}

/// Notes in whose task guest code asks the host for something, and that it does not when it goes on. The engine is asked
/// only where the answer is not clear: it takes longer than most of what guests ask for.
fn ask_for_the_task(store: &mut Store<World>, desk: Arc<Desk>) {
    store.call_hook(move |mut store, transition| {
        if desk.asks.load(Ordering::Relaxed) {
            let asks = matches!(transition, CallHook::CallingHost);
            desk.lock().asking = if asks { current_task(&mut store) } else { None };
        }
        Ok(())
    });
}

/// Makes guest code yield when it has run for one to two milliseconds, and notes whose it was.
fn yield_in_time(store: &mut Store<World>, desk: Arc<Desk>, ticker: Arc<Ticker>) {
    store.epoch_deadline_callback(move |mut store| {
        if desk.gauge.output_exceeded.load(Ordering::Relaxed) {
            return Err(Exceeded::Output.into());
        }
        if ticker.ticks() - desk.lock().polled_at < YIELDS_AT_TICK {
            return Ok(UpdateDeadline::Continue(EPOCHS_PER_LOOK));
        }
        let preempted = desk.current_call(&mut store).map_or(Preempted::Unknown, Preempted::Call);
        desk.lock().preempted = preempted;
        Ok(UpdateDeadline::Yield(EPOCHS_PER_LOOK))
    });
    store.set_epoch_deadline(EPOCHS_PER_LOOK);
}

/// Starts each call that appears on the desk, and runs all of them, for ever. Whoever puts one there polls the guest next,
/// so no waker is needed for that. Calls live inside the store, so they go on across parking.
async fn take_calls(
    accessor: &Accessor<World>,
    funcs: &Funcs,
    desk: &Arc<Desk>,
) -> wasmtime::Result<std::convert::Infallible> {
    // Not `accessor.spawn`, which is made for tasks that may be aborted and joined, and takes twice as long.
    let mut under_way = FuturesUnordered::new();
    poll_fn(|cx| {
        while let Some(call) = desk.take_call() {
            desk.forget_answered(|| is_silent(accessor));
            // The deadline of a store that was left alone has long passed; without a new one the first check would look.
            accessor.with(|mut access| access.as_context_mut().set_epoch_deadline(EPOCHS_PER_LOOK));
            under_way.push(run(accessor, funcs, desk, call));
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

/// Whether no task is left in the guest, not even one that was answered.
fn is_silent(accessor: &Accessor<World>) -> bool {
    accessor.poll_no_interesting_tasks(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Runs one call to its end and tells the desk.
async fn run(accessor: &Accessor<World>, funcs: &Funcs, desk: &Arc<Desk>, call: Call) -> wasmtime::Result<()> {
    let id = call.id;
    let returned = funcs.call(accessor, desk, call).await;
    match returned {
        Ok(returned) => {
            // It went on without the memory it was refused.
            desk.gauge.memory_refused.store(false, Ordering::Relaxed);
            desk.note_return(id, returned, is_silent(accessor));
            Ok(())
        }
        Err(error) => {
            desk.lock().blamed.get_or_insert(id);
            Err(error)
        }
    }
}
