//! What a pool knows of one instance.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::board::{Board, Shown};
use super::capacity::Reservation;
use super::policy::Seat;
use super::runner::Runner;
use crate::clock;
use crate::ids::InstanceId;
use crate::instance::{Inbox, Instance, Job, Order, State, Vitals};

/// What a pool knows of one instance, awake or at rest.
pub(super) struct Entry {
    pub(super) id: InstanceId,
    pub(super) inbox: Arc<Inbox>,
    pub(super) vitals: Arc<Vitals>,
    /// Its share of what the host can hold; none until there was room.
    pub(super) reservation: Option<Reservation>,
    /// Its state, where others see it.
    shown: Shown,
    /// Counts changes of state.
    generation: u64,
    was_ready: bool,
    since: Instant,
    /// Requests it was given and has not answered.
    in_flight: u32,
    /// Requests it was ever given.
    given: u32,
}

/// An instance that somebody runs, or will.
pub(super) struct Awake {
    pub(super) entry: Entry,
    pub(super) runner: Arc<Runner>,
}

/// An instance that nobody runs: it is parked or suspended.
pub(super) struct Resting {
    pub(super) entry: Entry,
    pub(super) instance: Box<Instance>,
    pub(super) since: Instant,
}

/// One instance at one time, for an operator.
#[derive(Clone, Debug)]
pub struct InstanceSnapshot {
    /// The instance.
    pub id: InstanceId,
    /// Its state.
    pub state: State,
    /// Counts changes of state.
    pub generation: u64,
    /// Since when it is in that state.
    pub since: SystemTime,
    /// Requests in flight.
    pub in_flight: u32,
    /// Its figures.
    pub vitals: Arc<Vitals>,
}

impl Entry {
    pub(super) fn new(instance: &Instance, board: Arc<Board>) -> Entry {
        Entry {
            id: instance.id(),
            inbox: instance.inbox(),
            vitals: instance.vitals(),
            reservation: None,
            shown: Shown::new(board, instance.id(), instance.state(), instance.now()),
            generation: 0,
            was_ready: false,
            since: instance.now(),
            in_flight: 0,
            given: 0,
        }
    }

    /// Hands a job to the instance, which must be run then.
    pub(super) fn give(&mut self, job: Box<Job>) {
        self.in_flight += 1;
        self.given = self.given.saturating_add(1);
        self.inbox.send(job);
    }

    /// Notes that one of its requests was answered, or handed back.
    pub(super) fn gave_back(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Notes the instance's state; the only place where the pool's copy of it changes.
    pub(super) fn note(&mut self, state: State, now: Instant) {
        self.was_ready |= matches!(state, State::Active | State::Parked);
        if self.shown.state() != state {
            self.shown.moved(state, self.vitals.memory_bytes(), now);
            self.generation += 1;
            self.since = now;
        }
    }

    pub(super) fn state(&self) -> State {
        self.shown.state()
    }

    /// Whether it was ever ready for requests.
    pub(super) fn was_ready(&self) -> bool {
        self.was_ready
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// What the policy sees of it.
    pub(super) fn seat(&self) -> Seat {
        Seat { state: self.shown.state(), in_flight: self.in_flight, given: self.given }
    }

    pub(super) fn snapshot(&self) -> InstanceSnapshot {
        InstanceSnapshot {
            id: self.id,
            state: self.shown.state(),
            generation: self.generation,
            since: clock::ago(self.since.elapsed()),
            in_flight: self.in_flight,
            vitals: self.vitals.clone(),
        }
    }
}

impl Awake {
    /// Tells the instance to stop a request, if it has it.
    pub(super) fn stop_request(&self, ticket: u64) {
        self.entry.inbox.stop_request(ticket);
        self.runner.wake();
    }

    /// Gives an order to the instance, and sees to it that it is run.
    pub(super) fn order(&self, order: Order) {
        self.entry.inbox.order(order);
        self.runner.wake();
    }
}
