//! The instances of one function: borrow, return, wait.
//!
//! The pool counts and chooses; only an instance's driver moves its state. [`Driven`] runs the driver and passes its
//! reports on to the pool.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Wake;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::compute::Pace;
use super::driving::Driven;
use super::inside::{Inside, Phase, Placed};
use super::lot::Lot;
use super::policy::{Bounds, Decision};
use super::seat::{InstanceCounts, Portrait, Seated};
use super::{Ground, Refused};
use crate::ids::{InstanceId, RequestId};
use crate::instance::{Answer, Caller, Input, Job, Order, Outcome, Start, State, StopReason, Terms, Timings};
use crate::meter::InvocationMeter;

/// How long after an instance went its replacement starts, if one is always kept.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// What a pool needs beside the terms of its instances.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Instances and queue.
    pub bounds: Bounds,
    /// Instances that are kept even when nobody calls.
    pub instances_min: u32,
    /// Parked this long, an instance is stopped.
    pub idle_timeout: Duration,
    /// The longest wait for an instance.
    pub queue_timeout: Duration,
    /// The longest time in the handler.
    pub request_timeout: Duration,
    /// Whether the pool begins suspended.
    pub suspended: bool,
}

/// A request for a function.
pub struct Request {
    /// Its identifier.
    pub id: RequestId,
    /// What the handler gets.
    pub input: Input,
    /// The caller's W3C trace context.
    pub traceparent: Option<String>,
}

/// A cheap handle to the pool of one function's one revision.
#[derive(Clone)]
pub struct Pool(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) terms: Arc<Terms>,
    pub(super) settings: PoolSettings,
    pub(super) ground: Ground,
    // A std mutex: holders move values between lists and never wait.
    state: Mutex<Inside>,
    tickets: AtomicU64,
    pub(super) pace: Pace,
    /// The counter of answered requests: looking it up by its labels each time would cost an allocation.
    ok: Counter,
}

impl Pool {
    pub(super) fn new(terms: Arc<Terms>, settings: PoolSettings, ground: Ground) -> Pool {
        let phase = if settings.suspended { Phase::Suspended } else { Phase::Open };
        let inside = Inside { phase, awake: Vec::new(), lot: Lot::default(), waiting: VecDeque::new() };
        let ok = ground.metrics.counter(&terms.function, "ok");
        let state = Mutex::new(inside);
        let (tickets, pace) = (AtomicU64::new(0), Pace::default());
        Pool(Arc::new(Shared { terms, settings, ground, state, tickets, pace, ok }))
    }

    /// Runs a request and waits for its answer. If the caller leaves, a request that has an instance goes on; one that
    /// still waits is never started.
    pub async fn call(&self, request: Request) -> Result<Answer, Refused> {
        let (reply, mut answer) = oneshot::channel();
        let terms = &self.0.terms;
        let ticket = self.0.tickets.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let (function, version) = (terms.function.clone(), terms.version.clone());
        let meter = InvocationMeter::accept(request.id.clone(), function, version, now, terms.post.clone());
        let job = Box::new(Job {
            ticket,
            request: request.id,
            input: request.input,
            traceparent: request.traceparent,
            timeout: self.0.settings.request_timeout,
            start: Start::Active,
            accepted: now,
            assigned: now,
            meter,
            caller: Caller::Waiting(reply),
        });
        match self.give(job)? {
            Some(driven) => driven.run(Some(ticket)),
            None => match timeout(self.0.settings.queue_timeout, &mut answer).await {
                Ok(answer) => return answer.map_err(|_| self.unanswered()),
                Err(_elapsed) => self.give_up(ticket, now),
            },
        }
        answer.await.map_err(|_| self.unanswered())
    }

    /// Why a request was dropped without an answer: the drain's time was over, or the engine itself failed.
    fn unanswered(&self) -> Refused {
        if self.0.ground.tasks.draining() { Refused::Draining } else { Refused::Lost }
    }

    /// Answers a request that waited too long, unless an instance took it meanwhile.
    fn give_up(&self, ticket: u64, since: Instant) {
        let late = self.lock().take_waiting(ticket);
        if let Some(job) = late {
            self.count("function-busy");
            job.answer(Outcome::QueueTimedOut, Timings { queue: since.elapsed(), ..Timings::default() });
        }
    }

    /// Takes back jobs that an instance was given and will not run. They wait first in line, but not for ever.
    pub(super) fn take_back(&self, jobs: impl DoubleEndedIterator<Item = Box<Job>>) {
        for job in jobs.rev() {
            let (pool, ticket) = (self.clone(), job.ticket);
            self.lock().waiting.push_front(job);
            self.0.ground.spawn(async move {
                let since = Instant::now();
                tokio::select! {
                    () = tokio::time::sleep(pool.0.settings.queue_timeout) => pool.give_up(ticket, since),
                    () = pool.0.ground.tasks.closing() => {}
                }
            });
        }
    }

    /// Finds an instance for a job, which must be run then; none if the job has to wait.
    fn give(&self, job: Box<Job>) -> Result<Option<Arc<Driven>>, Refused> {
        let mut inside = self.lock();
        let (job, left) = match inside.place(job, self) {
            Placed::Given(driven) => return Ok(Some(driven)),
            // Callers that left do not keep others out.
            Placed::Left(job, Decision::Refuse) => match inside.take_abandoned() {
                left if left.is_empty() => {
                    drop(inside);
                    job.meter.forget();
                    self.count("function-busy");
                    return Err(Refused::Busy);
                }
                left => (job, left),
            },
            Placed::Left(job, _) => (job, VecDeque::new()),
        };
        inside.waiting.push_back(job);
        drop(inside);
        self.drop_cancelled(left);
        Ok(None)
    }

    /// Gives waiting requests to instances for as long as there is one for them.
    pub(super) fn serve_waiting(&self) {
        loop {
            let mut inside = self.lock();
            let Some(mut job) = inside.waiting.pop_front() else { return };
            if job.is_abandoned() {
                drop(inside);
                self.drop_cancelled([job]);
                continue;
            }
            job.assigned = Instant::now();
            match inside.place(job, self) {
                Placed::Given(driven) => {
                    drop(inside);
                    driven.wake();
                }
                Placed::Left(job, _) => return inside.waiting.push_front(job),
            }
        }
    }

    /// Starts instances until there are as many as are always kept.
    pub(super) fn keep_minimum(&self) {
        loop {
            let mut inside = self.lock();
            let enough = inside.awake.len() + inside.lot.count() >= self.0.settings.instances_min as usize;
            if enough || inside.phase != Phase::Open {
                return;
            }
            let driven = inside.start(self, None);
            drop(inside);
            driven.wake();
        }
    }

    /// The same after a while, so that a function that cannot start does not keep the host busy.
    pub(super) fn keep_minimum_soon(&self) {
        if self.0.settings.instances_min == 0 {
            return;
        }
        let pool = self.clone();
        self.0.ground.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(RESTART_DELAY) => pool.keep_minimum(),
                () = pool.0.ground.tasks.drained() => {}
            }
        });
    }

    /// Stops every instance where it stands; requests that come now wait.
    pub fn suspend(&self) {
        let mut inside = self.lock();
        if inside.phase == Phase::Open {
            inside.phase = Phase::Suspended;
            inside.awake.iter().for_each(|seated| seated.order(Order::Suspend));
        }
    }

    /// Lets all instances go on.
    pub fn resume(&self) {
        let mut inside = self.lock();
        if inside.phase != Phase::Suspended {
            return;
        }
        inside.phase = Phase::Open;
        inside.awake.iter().for_each(|seated| seated.order(Order::Run));
        let woken = inside.wake_suspended(Order::Run, self);
        drop(inside);
        woken.into_iter().for_each(Wake::wake);
        self.serve_waiting();
        self.keep_minimum();
    }

    /// Serves what was accepted, takes nothing new, and stops every instance that is done.
    pub(super) fn retire(&self, reason: StopReason) {
        let mut inside = self.lock();
        inside.phase = Phase::Retiring(reason);
        let mut woken = inside.wake_suspended(Order::Stop(reason), self);
        while let Some(resting) = inside.lot.take_oldest() {
            resting.seated.inbox.order(Order::Stop(reason));
            woken.push(inside.seat(resting, None, self));
        }
        for seated in &inside.awake {
            seated.order(Order::Run); // Ends a suspension that was ordered and not yet carried out.
            if seated.in_flight == 0 {
                seated.order(Order::Stop(reason));
            }
        }
        drop(inside);
        woken.into_iter().for_each(Wake::wake);
        self.serve_waiting();
    }

    /// Stops one instance, in order. False if it is not here.
    pub fn stop(&self, id: InstanceId, reason: StopReason) -> bool {
        let mut inside = self.lock();
        if let Some(seated) = inside.awake.iter().find(|seated| seated.id == id) {
            seated.order(Order::Stop(reason));
            return true;
        }
        let Some(resting) = inside.lot.take(id) else { return false };
        resting.seated.inbox.order(Order::Stop(reason));
        let driven = inside.seat(resting, None, self);
        drop(inside);
        driven.wake();
        true
    }

    /// Kernel maps that each of its instances needs.
    pub(super) fn maps_per_instance(&self) -> u64 {
        self.0.terms.blueprint.maps_per_instance
    }

    /// Since when its longest parked instance has been parked.
    pub(super) fn oldest_parked(&self) -> Option<Instant> {
        self.lock().lot.oldest_since()
    }

    /// Stops the longest parked instance, in order.
    pub(super) fn stop_oldest(&self, reason: StopReason) -> bool {
        let mut inside = self.lock();
        let Some(resting) = inside.lot.take_oldest() else { return false };
        resting.seated.inbox.order(Order::Stop(reason));
        let driven = inside.seat(resting, None, self);
        drop(inside);
        driven.wake();
        true
    }

    /// Stops instances that are parked too long; says when the next one will be.
    pub(super) fn stop_idle(&self, now: Instant) -> Option<Instant> {
        let idle_timeout = self.0.settings.idle_timeout;
        loop {
            let mut inside = self.lock();
            if inside.awake.len() + inside.lot.count() <= self.0.settings.instances_min as usize {
                return None;
            }
            let Some(latest) = now.checked_sub(idle_timeout) else { return Some(now + idle_timeout) };
            let Some(resting) = inside.lot.take_parked_by(latest) else {
                return inside.lot.oldest_since().map(|since| since + idle_timeout);
            };
            resting.seated.inbox.order(Order::Stop(StopReason::Idle));
            let driven = inside.seat(resting, None, self);
            drop(inside);
            driven.wake();
        }
    }

    /// All instances, oldest state first.
    pub fn portraits(&self) -> Vec<Portrait> {
        let inside = self.lock();
        let resting = inside.lot.iter().map(|resting| &resting.seated);
        let mut portraits: Vec<Portrait> = inside.awake.iter().chain(resting).map(Seated::portrait).collect();
        portraits.sort_by_key(|portrait| portrait.since);
        portraits
    }

    /// How many instances are in which state.
    pub fn counts(&self) -> InstanceCounts {
        let inside = self.lock();
        let mut counts = InstanceCounts::default();
        let resting = inside.lot.iter().map(|resting| &resting.seated);
        inside.awake.iter().chain(resting).for_each(|seated| counts.add(seated.state));
        counts
    }

    /// How long instances that are parked now have been parked, and their memory.
    pub fn parked(&self) -> Vec<(Duration, u64)> {
        let inside = self.lock();
        let parked = inside.lot.iter().filter(|resting| resting.seated.state == State::Parked);
        parked.map(|resting| (resting.since.elapsed(), resting.seated.vitals.memory_bytes())).collect()
    }

    /// Requests that wait for an instance.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Closes the records of requests whose callers left before an instance took them.
    fn drop_cancelled(&self, jobs: impl IntoIterator<Item = Box<Job>>) {
        for mut job in jobs {
            self.count("cancelled");
            job.meter.outcome("cancelled", false);
        }
    }

    pub(super) fn count(&self, code: &'static str) {
        match code {
            "ok" => self.0.ok.inc(),
            code => self.0.ground.metrics.counter(&self.0.terms.function, code).inc(),
        };
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.state.lock().expect("no holder of this lock panics")
    }
}
