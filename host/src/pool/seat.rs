//! What a pool knows of one instance.

use std::sync::Arc;
use std::task::Wake as _;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::driving::Driven;
use super::policy::Seat;
use super::room::Place;
use crate::ids::InstanceId;
use crate::instance::{Inbox, Instance, Job, Order, State, Vitals};

/// An instance of the pool, awake or at rest.
pub(super) struct Seated {
    pub(super) id: InstanceId,
    pub(super) state: State,
    /// Counts changes of state.
    pub(super) generation: u64,
    pub(super) since: Instant,
    /// Requests it was given and has not answered.
    pub(super) in_flight: u32,
    /// Requests it was ever given.
    pub(super) given: u32,
    pub(super) inbox: Arc<Inbox>,
    /// Runs it; none while it rests.
    pub(super) driven: Option<Arc<Driven>>,
    pub(super) vitals: Arc<Vitals>,
    /// Its place on the host; none until there was room.
    pub(super) place: Option<Place>,
}

/// One instance, for an operator.
#[derive(Clone, Debug)]
pub struct Portrait {
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

/// How many instances are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceCounts {
    /// Starting or initializing.
    pub starting: u32,
    /// Running requests, or lingering after one.
    pub active: u32,
    /// In pre-freeze.
    pub freezing: u32,
    /// Parked.
    pub parked: u32,
    /// Suspended in the middle of execution.
    pub suspended: u32,
    /// Finishing their requests or in pre-stop.
    pub stopping: u32,
}

impl InstanceCounts {
    pub(super) fn add(&mut self, state: State) {
        let count = match state {
            State::Starting | State::Initializing => &mut self.starting,
            State::Active => &mut self.active,
            State::Freezing => &mut self.freezing,
            State::Parked => &mut self.parked,
            State::Suspended => &mut self.suspended,
            State::Stopping | State::Stopped => &mut self.stopping,
        };
        *count += 1;
    }

    /// The counts with the names of their states.
    pub(super) fn named(self) -> [(&'static str, u32); 6] {
        [
            ("starting", self.starting),
            ("active", self.active),
            ("freezing", self.freezing),
            ("parked", self.parked),
            ("suspended", self.suspended),
            ("stopping", self.stopping),
        ]
    }
}

impl Seated {
    pub(super) fn new(instance: &Instance, driven: Arc<Driven>) -> Seated {
        Seated {
            id: instance.id(),
            state: State::Starting,
            generation: 0,
            since: instance.now(),
            in_flight: 0,
            given: 0,
            inbox: instance.inbox(),
            driven: Some(driven),
            vitals: instance.vitals(),
            place: None,
        }
    }

    /// Hands a job to the instance, which must be run then.
    pub(super) fn give(&mut self, job: Box<Job>) {
        self.in_flight += 1;
        self.given = self.given.saturating_add(1);
        self.inbox.send(job);
    }

    /// Gives an order to the instance, and wakes it if it is awake.
    pub(super) fn order(&self, order: Order) {
        self.inbox.order(order);
        if let Some(driven) = &self.driven {
            driven.wake_by_ref();
        }
    }

    pub(super) fn moved(&mut self, state: State, now: Instant) {
        self.state = state;
        self.generation += 1;
        self.since = now;
    }

    pub(super) fn seat(&self) -> Seat {
        Seat { state: self.state, in_flight: self.in_flight, given: self.given }
    }

    pub(super) fn portrait(&self) -> Portrait {
        Portrait {
            id: self.id,
            state: self.state,
            generation: self.generation,
            since: SystemTime::now() - self.since.elapsed(),
            in_flight: self.in_flight,
            vitals: self.vitals.clone(),
        }
    }
}
