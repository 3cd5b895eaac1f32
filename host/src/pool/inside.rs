//! What a pool holds behind its lock: instances awake and at rest, and requests that wait.

use std::collections::VecDeque;
use std::sync::Arc;

use super::driving::Driven;
use super::lot::{Lot, Resting};
use super::policy::{self, Bounds, Decision};
use super::pool::Pool;
use super::seat::Seated;
use crate::ids::InstanceId;
use crate::instance::{Instance, Job, Order, Start, State, StopReason};

pub(super) struct Inside {
    pub(super) phase: Phase,
    pub(super) awake: Vec<Seated>,
    pub(super) lot: Lot,
    pub(super) waiting: VecDeque<Box<Job>>,
}

/// What the pool as a whole is told to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Suspended,
    /// Serves what it has accepted; then its instances stop.
    Retiring(StopReason),
}

/// What became of a job.
pub(super) enum Placed {
    /// This instance has it, and must be run.
    Given(Arc<Driven>),
    /// Nobody has it, as was decided.
    Left(Box<Job>, Decision),
}

impl Inside {
    pub(super) fn decide(&self, bounds: Bounds) -> Decision {
        if self.phase == Phase::Suspended {
            let full = self.waiting.len() >= bounds.queue_depth as usize;
            return if full { Decision::Refuse } else { Decision::Wait };
        }
        let seats = self.awake.iter().map(Seated::seat);
        let instances = self.awake.len() + self.lot.count();
        policy::decide(seats, self.lot.parked_count(), instances, self.waiting.len(), bounds)
    }

    /// Finds an instance for a job, or says why it got none.
    pub(super) fn place(&mut self, mut job: Box<Job>, pool: &Pool) -> Placed {
        let decision = self.decide(pool.0.settings.bounds);
        match decision {
            Decision::Lend(index) => {
                let seated = &mut self.awake[index];
                job.start = match seated.state {
                    State::Starting | State::Initializing => Start::Cold,
                    _ => Start::Active,
                };
                match seated.driven.clone() {
                    Some(driven) => {
                        seated.give(job);
                        Placed::Given(driven)
                    }
                    None => Placed::Left(job, decision),
                }
            }
            Decision::Thaw => match self.lot.take_newest() {
                Some(resting) => {
                    job.start = Start::Parked;
                    Placed::Given(self.seat(resting, Some(job), pool))
                }
                None => Placed::Left(job, decision),
            },
            Decision::Start => {
                job.start = Start::Cold;
                Placed::Given(self.start(pool, Some(job)))
            }
            Decision::Wait | Decision::Refuse => Placed::Left(job, decision),
        }
    }

    /// Seats a resting instance among the awake ones, with a job if it is woken for one.
    pub(super) fn seat(&mut self, resting: Resting, job: Option<Box<Job>>, pool: &Pool) -> Arc<Driven> {
        let Resting { mut instance, mut seated, .. } = resting;
        if let Some(job) = job {
            seated.give(job);
        }
        if self.phase != Phase::Suspended {
            // An order to suspend may have come when it was about to park.
            seated.inbox.order(Order::Run);
        }
        instance.wake();
        // Now, not when the driver reports it: requests that come with this one share the instance.
        seated.state = instance.state();
        let driven = Driven::new(pool, &instance);
        driven.admit(instance);
        seated.driven = Some(driven.clone());
        self.awake.push(seated);
        driven
    }

    pub(super) fn start(&mut self, pool: &Pool, job: Option<Box<Job>>) -> Arc<Driven> {
        let instance = Box::new(Instance::new(pool.0.terms.clone()));
        let driven = Driven::new(pool, &instance);
        let mut seated = Seated::new(&instance, driven.clone());
        if let Some(job) = job {
            seated.give(job);
        }
        seated.place = pool.0.ground.room.take(pool.maps_per_instance());
        if seated.place.is_some() {
            driven.admit(instance);
        } else {
            pool.0.ground.spawn(driven.clone().find_place(instance));
        }
        self.awake.push(seated);
        driven
    }

    pub(super) fn wake_suspended(&mut self, order: Order, pool: &Pool) -> Vec<Arc<Driven>> {
        let suspended = self.lot.take_suspended();
        let wake = |resting: Resting| {
            resting.seated.inbox.order(order);
            self.seat(resting, None, pool)
        };
        suspended.into_iter().map(wake).collect()
    }

    pub(super) fn find(&mut self, id: InstanceId) -> Option<&mut Seated> {
        self.awake.iter_mut().find(|seated| seated.id == id)
    }

    pub(super) fn take(&mut self, id: InstanceId) -> Option<Seated> {
        let index = self.awake.iter().position(|seated| seated.id == id)?;
        Some(self.awake.swap_remove(index))
    }

    pub(super) fn take_waiting(&mut self, ticket: u64) -> Option<Box<Job>> {
        let index = self.waiting.iter().position(|job| job.ticket == ticket)?;
        self.waiting.remove(index)
    }

    pub(super) fn take_abandoned(&mut self) -> VecDeque<Box<Job>> {
        let (left, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|job| job.is_abandoned());
        self.waiting = waiting;
        left
    }
}
