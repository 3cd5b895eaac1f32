//! [`Mailbox`]: calls for a guest, and the events it reports.
//!
//! The guest's future and its owner share it. Only one of them runs at a time, so the lock is never contended; it
//! exists because both move between threads.

use std::collections::VecDeque;
use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Context;

use tokio::sync::oneshot;
use wasmtime::component::GuestTaskId;

use super::attribution::{Attribution, Origin};
use super::call::{Call, CallId, Entry, Reply, Returned};
use super::client::Connections;
use super::delivery::{Body, Collecting, Delivery, Ended, Response};
use super::ending::Ending;
use super::limits::Gauge;
use crate::log::Author;

/// An event that a guest reports.
#[derive(Debug)]
pub enum Event {
    /// The guest is instantiated and takes calls.
    Started,
    /// The handler of a request answered with this response. The guest may write its body until the call returns.
    Responded(CallId, Box<Response>),
    /// A call returned, and the body of its response, if any, is no longer read.
    Returned(CallId, Returned),
    /// The guest cannot be called or polled any more.
    Ended(Ending),
}

/// The code that was running when the last poll returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempted {
    /// None: the guest waits.
    No,
    /// Code of this call, or of a task it started.
    Call(CallId),
    /// Code that belongs to no call in flight.
    Unknown,
}

/// What a guest's future and its owner share.
#[derive(Default)]
pub(super) struct Mailbox {
    pub(super) gauge: Arc<Gauge>,
    pub(super) connections: Connections,
    /// True if several calls are candidates, so the engine must be asked which one is running. Outside the lock,
    /// because every transition between guest and host reads it; `Relaxed`, because only the guest's side uses it.
    ambiguous: AtomicBool,
    contents: Mutex<Contents>,
}

struct Contents {
    calls: VecDeque<Call>,
    /// The handler's call that is under way, where they are made one after another.
    handling: Option<CallId>,
    events: VecDeque<Event>,
    attribution: Attribution,
    /// Responses whose bodies are being collected.
    collecting: Vec<(CallId, Collecting)>,
    /// Responses whose bodies are being read.
    deliveries: Vec<(CallId, Delivery)>,
    preempted: Preempted,
    /// The ticker's count when the current poll began.
    polled_at: u64,
    /// The first call that ended with an engine error.
    blamed: Option<CallId>,
}

impl Default for Contents {
    fn default() -> Contents {
        Contents {
            // Most guests never have more than one of each, and a parked guest keeps the allocation.
            calls: VecDeque::with_capacity(1),
            handling: None,
            events: VecDeque::with_capacity(1),
            attribution: Attribution::default(),
            collecting: Vec::new(),
            deliveries: Vec::new(),
            preempted: Preempted::No,
            polled_at: 0,
            blamed: None,
        }
    }
}

impl Contents {
    fn next_call(&self, one_by_one: bool) -> Option<usize> {
        let waits = |call: &Call| one_by_one && call.entry == Entry::Handler && self.handling.is_some();
        self.calls.iter().position(|call| !waits(call))
    }

    fn note_return(&mut self, call: CallId) {
        self.handling.take_if(|handled| *handled == call);
    }
}

/// The owner's side.
impl Mailbox {
    pub(super) fn put_call(&self, call: Call) {
        self.lock().calls.push_back(call);
    }

    pub(super) fn take_event(&self) -> Option<Event> {
        self.lock().events.pop_front()
    }

    pub(super) fn begin_poll(&self, ticks: u64) {
        let mut contents = self.lock();
        contents.preempted = Preempted::No;
        contents.polled_at = ticks;
    }

    /// Reports the responses that were begun in this poll and are not whole: the guest waits, or its slice is over.
    pub(super) fn stream_responses(&self) {
        let mut contents = self.lock();
        while let Some((call, collecting)) = contents.collecting.pop() {
            let (response, delivery) = collecting.stream();
            contents.deliveries.push((call, delivery));
            contents.events.push_back(Event::Responded(call, response));
        }
    }

    pub(super) fn preempted(&self) -> Preempted {
        self.lock().preempted
    }

    /// Must be called before the store is dropped: the reader cannot tell a dropped channel of the engine from the end
    /// of the body, and would take half a response for a whole one.
    pub(super) fn close_deliveries(&self) {
        let mut contents = self.lock();
        contents.deliveries.drain(..).for_each(|(_, delivery)| delivery.close());
        let collecting = take(&mut contents.collecting);
        drop((contents, collecting)); // In this order.
    }
}

/// The guest's side.
impl Mailbox {
    /// The next call to begin. `one_by_one`: the engine would let a call of the handler wait for the one before. It waits
    /// here instead, where it is no candidate for what the guest runs, and so the engine need not be asked.
    pub(super) fn take_call(&self, one_by_one: bool) -> Option<Call> {
        let mut contents = self.lock();
        let index = contents.next_call(one_by_one)?;
        let call = contents.calls.remove(index)?;
        if one_by_one && call.entry == Entry::Handler {
            contents.handling = Some(call.id);
        }
        Some(call)
    }

    /// Whether there is a call to begin.
    pub(super) fn has_call(&self, one_by_one: bool) -> bool {
        self.lock().next_call(one_by_one).is_some()
    }

    pub(super) fn put_event(&self, event: Event) {
        self.lock().events.push_back(event);
    }

    /// A call became a task of the engine.
    pub(super) fn begin_call(&self, call: CallId, task: GuestTaskId, origin: Origin) {
        let mut contents = self.lock();
        contents.attribution.begin(call, task, origin);
        self.note_candidates(&mut contents);
    }

    /// A call returned. `silent`: no task is left in the guest, not even background work of an answered call.
    pub(super) fn end_call(&self, call: CallId, returned: Returned, silent: bool) {
        let mut contents = self.lock();
        contents.deliveries.retain(|(delivered, _)| *delivered != call);
        contents.events.push_back(Event::Returned(call, returned));
        contents.note_return(call);
        contents.attribution.end(call, silent);
        self.note_candidates(&mut contents);
    }

    /// Forgets the answered calls if `silent` finds no task in the guest. `silent` asks the engine, so it is called
    /// only if there are any. It must run no guest code, which could wait for the lock held here.
    pub(super) fn forget_answered_if(&self, silent: impl FnOnce() -> bool) {
        let mut contents = self.lock();
        if contents.attribution.has_answered() && silent() {
            contents.attribution.forget_answered();
            self.note_candidates(&mut contents);
        }
    }

    fn note_candidates(&self, contents: &mut Contents) {
        let ambiguous = contents.attribution.is_ambiguous();
        self.ambiguous.store(ambiguous, Ordering::Relaxed);
        if !ambiguous {
            // Nothing is recorded until the calls are ambiguous again, and the task may be over by then.
            contents.attribution.set_current(None);
        }
    }

    /// Begins to collect a response. The receiver gets how its body ended.
    pub(super) fn respond(&self, call: CallId, response: http::Response<Body>) -> oneshot::Receiver<Ended> {
        let (collecting, end) = Collecting::new(response);
        self.lock().collecting.push((call, collecting));
        end
    }

    /// The guest's call has returned, so its response can leave as soon as it is whole. `is_final`: nothing of it runs on.
    pub(super) fn note_return(&self, call: CallId, is_final: bool) {
        let mut contents = self.lock();
        contents.note_return(call);
        for (_, response) in contents.collecting.iter_mut().filter(|(answered, _)| *answered == call) {
            (response.has_returned, response.is_final) = (true, is_final);
        }
        let read = contents.deliveries.iter().filter(|(answered, _)| is_final && *answered == call);
        read.for_each(|(_, delivery)| delivery.note_final());
    }

    /// Takes what the guest has written of its responses. True if one of them is whole now.
    pub(super) fn collect(&self, cx: &mut Context<'_>) -> bool {
        // Not under the lock: what a body does when it is read is the engine's affair.
        let before = take(&mut self.lock().collecting);
        if before.is_empty() {
            return false;
        }
        let count = before.len();
        let still: Vec<_> =
            before.into_iter().filter_map(|(call, response)| Some((call, response.collect(cx)?))).collect();
        let ended = still.len() < count;
        self.lock().collecting = still;
        ended
    }

    /// The guest has ended. A response that is whole is an answer all the same.
    pub(super) fn answer_whole(&self, cx: &mut Context<'_>) {
        let collecting = take(&mut self.lock().collecting);
        for (call, response) in collecting {
            if let Some(response) = response.whole(cx) {
                self.put_event(Event::Returned(call, Ok(Reply::Response(response))));
            }
        }
    }

    /// True if the engine must be asked which call is running.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Ordering::Relaxed)
    }

    pub(super) fn set_current_task(&self, task: Option<GuestTaskId>) {
        self.lock().attribution.set_current(task);
    }

    /// The ticker's count when the current poll began.
    pub(super) fn polled_at(&self) -> u64 {
        self.lock().polled_at
    }

    /// Records that guest code yielded in the middle of `task`, if the engine can name one.
    pub(super) fn set_preempted(&self, task: Option<GuestTaskId>) {
        let mut contents = self.lock();
        let call = task.and_then(|task| contents.attribution.call_of(task));
        contents.preempted = call.map_or(Preempted::Unknown, Preempted::Call);
    }

    /// A call ended with an engine error, which ends the guest. Only the first such call is to blame.
    pub(super) fn blame(&self, call: CallId) {
        self.lock().blamed.get_or_insert(call);
    }

    /// The call that ended the guest: the one that got the error, or else the one that runs as `task`.
    pub(super) fn blamed(&self, task: Option<GuestTaskId>) -> Option<CallId> {
        let contents = self.lock();
        contents.blamed.or_else(|| contents.attribution.call_of(task?))
    }

    /// The origin of the running call, if it is known.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.lock().attribution.origin()
    }

    /// The author of a line that the guest writes now.
    pub(super) fn author(&self) -> Author {
        self.lock().attribution.author()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("no holder of this lock panics")
    }
}
