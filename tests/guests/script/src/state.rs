//! What an instance remembers between its calls.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::World;

#[derive(Default)]
pub(crate) struct State {
    requests: Cell<u64>,
    freezes: Cell<u64>,
    /// When the first request since the last freeze began.
    awake_since: Cell<Option<Instant>>,
    count: Cell<u64>,
    /// Shared with the tasks that tick.
    ticks: Rc<Cell<u64>>,
    in_flight: Cell<u64>,
    max_in_flight: Cell<u64>,
    lifecycle: RefCell<Vec<String>>,
    kept: RefCell<Vec<Vec<u8>>>,
}

impl State {
    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn enter(&self, request_id: &str) -> InFlight<'_> {
        increment(&self.requests);
        self.awake_since.set(Some(self.awake_since()));
        self.max_in_flight.set(self.max_in_flight.get().max(increment(&self.in_flight)));
        self.log(format!("handler:{request_id}"));
        InFlight(self)
    }

    /// When the first request since the last freeze began; now, if there was none yet.
    #[allow(clippy::disallowed_methods, reason = "a guest has the clock of its instance, and no other")]
    pub(crate) fn awake_since(&self) -> Instant {
        self.awake_since.get().unwrap_or_else(Instant::now)
    }

    /// The freeze's hook is done; the next request is the first again.
    pub(crate) fn froze(&self) {
        self.awake_since.set(None);
    }

    /// Notes a call into the instance.
    pub(crate) fn log(&self, call: String) {
        self.lifecycle.borrow_mut().push(call);
    }

    pub(crate) fn lifecycle(&self) -> Vec<String> {
        self.lifecycle.borrow().clone()
    }

    pub(crate) fn count(&self) -> u64 {
        increment(&self.count)
    }

    pub(crate) fn count_freeze(&self) -> u64 {
        increment(&self.freezes)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    pub(crate) fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    pub(crate) fn max_in_flight(&self) -> u64 {
        self.max_in_flight.get()
    }

    /// Keeps memory for as long as the instance lives.
    pub(crate) fn keep(&self, memory: Vec<u8>) {
        self.kept.borrow_mut().push(memory);
    }

    pub(crate) fn spawn_ticker<W: World>(&self, period: Duration) {
        let ticks = self.ticks.clone();
        W::spawn(async move {
            loop {
                W::sleep(period).await;
                increment(&ticks);
            }
        });
    }

    /// Goes with every reply.
    pub(crate) fn summary(&self) -> Value {
        json!({
            "requests": self.requests.get(),
            "freezes": self.freezes.get(),
            "count": self.count.get(),
            "ticks": self.ticks.get(),
            "inFlight": self.in_flight.get(),
            "maxInFlight": self.max_in_flight.get(),
            "keptMb": self.kept.borrow().iter().map(Vec::len).sum::<usize>() >> 20,
        })
    }
}

/// A request in flight.
pub(crate) struct InFlight<'a>(&'a State);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

fn increment(counter: &Cell<u64>) -> u64 {
    counter.set(counter.get() + 1);
    counter.get()
}
