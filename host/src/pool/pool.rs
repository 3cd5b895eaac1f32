//! The instances of one function: borrow, return, wait.
//!
//! The pool counts and chooses; only an instance's driver moves its state. Each awake instance has one task, [`drive`],
//! which passes the driver's reports on to the pool.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::lot::{Lot, Resting};
use super::policy::{self, Bounds, Decision};
use super::seat::{InstanceCounts, Portrait, Seated};
use super::{Ground, Refused};
use crate::ids::{InstanceId, RequestId};
use crate::instance::{Answer, Inbox, Instance, Job, Order, Outcome, Report, Start, State, StopReason, Terms, Timings};
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
    /// The event.
    pub event: Vec<u8>,
    /// The caller's W3C trace context.
    pub traceparent: Option<String>,
}

/// A cheap handle to the pool of one function's one revision.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    terms: Arc<Terms>,
    settings: PoolSettings,
    ground: Ground,
    // A std mutex: holders move values between lists and never wait.
    state: Mutex<Inside>,
    tickets: AtomicU64,
    /// The counter of answered requests: looking it up by its labels each time would cost an allocation.
    ok: Counter,
}

struct Inside {
    phase: Phase,
    awake: Vec<Seated>,
    lot: Lot,
    waiting: VecDeque<Job>,
}

/// What the pool as a whole is told to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Suspended,
    /// Serves what it has accepted; then its instances stop.
    Retiring(StopReason),
}

impl Pool {
    pub(super) fn new(terms: Arc<Terms>, settings: PoolSettings, ground: Ground) -> Pool {
        let phase = if settings.suspended { Phase::Suspended } else { Phase::Open };
        let inside = Inside { phase, awake: Vec::new(), lot: Lot::default(), waiting: VecDeque::new() };
        let ok = ground.metrics.counter(&terms.function, "ok");
        let state = Mutex::new(inside);
        Pool(Arc::new(Shared { terms, settings, ground, state, tickets: AtomicU64::new(0), ok }))
    }

    /// Runs a request and waits for its answer. If the caller leaves, a request that has an instance goes on; one that
    /// still waits is never started.
    pub async fn call(&self, request: Request) -> Result<Answer, Refused> {
        let (reply, mut answer) = oneshot::channel();
        let terms = &self.0.terms;
        let ticket = self.0.tickets.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let meter = InvocationMeter::accept(
            request.id.clone(),
            terms.function.clone(),
            terms.version.clone(),
            terms.post.clone(),
        );
        let job = Job {
            ticket,
            request: request.id,
            event: request.event,
            traceparent: request.traceparent,
            timeout: self.0.settings.request_timeout,
            start: Start::Active,
            accepted: now,
            assigned: now,
            meter,
            reply,
        };
        let queued = self.give(job)?;
        if queued {
            match timeout(self.0.settings.queue_timeout, &mut answer).await {
                Ok(answer) => return answer.map_err(|_| Refused::Draining),
                Err(_elapsed) => self.give_up(ticket, now),
            }
        }
        // The sender is dropped unanswered only if the host itself was cut off.
        answer.await.map_err(|_| Refused::Draining)
    }

    /// Answers a request that waited too long, unless an instance took it meanwhile.
    fn give_up(&self, ticket: u64, since: Instant) {
        let late = self.lock().take_waiting(ticket);
        if let Some(job) = late {
            self.count("function-busy");
            job.answer(Outcome::QueueTimedOut, Timings { queue: since.elapsed(), ..Timings::default() });
        }
    }

    /// Finds an instance for a job; says whether it has to wait.
    fn give(&self, mut job: Job) -> Result<bool, Refused> {
        let mut inside = self.lock();
        match inside.decide(self.0.settings.bounds) {
            Decision::Lend(index) => inside.lend(index, job),
            Decision::Thaw => {
                job.start = Start::Parked;
                let resting = inside.lot.take_newest();
                if let Some(instance) = resting.map(|resting| inside.seat(resting, Some(job))) {
                    drop(inside);
                    self.drive(instance);
                }
            }
            Decision::Start => {
                job.start = Start::Cold;
                let instance = inside.start(&self.0.terms, Some(job));
                drop(inside);
                self.drive(instance);
            }
            Decision::Wait => {
                inside.waiting.push_back(job);
                return Ok(true);
            }
            Decision::Refuse => {
                // Callers that left do not keep others out.
                let left = inside.take_abandoned();
                if left.is_empty() {
                    drop(inside);
                    job.meter.forget();
                    self.count("function-busy");
                    return Err(Refused::Busy);
                }
                inside.waiting.push_back(job);
                drop(inside);
                self.drop_cancelled(left);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives waiting requests to instances for as long as there is one for them.
    fn serve_waiting(&self) {
        loop {
            let mut inside = self.lock();
            let Some(mut job) = inside.waiting.pop_front() else { return };
            if job.reply.is_closed() {
                drop(inside);
                self.drop_cancelled(vec![job]);
                continue;
            }
            let instance = match inside.decide(self.0.settings.bounds) {
                Decision::Lend(index) => {
                    inside.lend(index, job);
                    continue;
                }
                Decision::Thaw => {
                    job.start = Start::Parked;
                    let Some(resting) = inside.lot.take_newest() else { return };
                    inside.seat(resting, Some(job))
                }
                Decision::Start => {
                    job.start = Start::Cold;
                    inside.start(&self.0.terms, Some(job))
                }
                Decision::Wait | Decision::Refuse => {
                    inside.waiting.push_front(job);
                    return;
                }
            };
            drop(inside);
            self.drive(instance);
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
            let instance = inside.start(&self.0.terms, None);
            drop(inside);
            self.drive(instance);
        }
    }

    /// The same after a while, so that a function that cannot start does not keep the host busy.
    fn keep_minimum_soon(&self) {
        if self.0.settings.instances_min == 0 {
            return;
        }
        let pool = self.clone();
        self.0.ground.tasks.spawn(async move {
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
            inside.awake.iter().for_each(|seated| seated.inbox.order(Order::Suspend));
        }
    }

    /// Lets all instances go on.
    pub fn resume(&self) {
        let mut inside = self.lock();
        if inside.phase != Phase::Suspended {
            return;
        }
        inside.phase = Phase::Open;
        inside.awake.iter().for_each(|seated| seated.inbox.order(Order::Run));
        let woken = inside.wake_suspended(Order::Run);
        drop(inside);
        woken.into_iter().for_each(|instance| self.drive(instance));
        self.serve_waiting();
        self.keep_minimum();
    }

    /// Serves what was accepted, takes nothing new, and stops every instance that is done.
    pub(super) fn retire(&self, reason: StopReason) {
        let mut inside = self.lock();
        inside.phase = Phase::Retiring(reason);
        let mut woken = inside.wake_suspended(Order::Stop(reason));
        while let Some(resting) = inside.lot.take_oldest() {
            resting.seated.inbox.order(Order::Stop(reason));
            woken.push(inside.seat(resting, None));
        }
        for seated in &inside.awake {
            seated.inbox.order(Order::Run); // Ends a suspension that was ordered and not yet carried out.
            if seated.in_flight == 0 {
                seated.inbox.order(Order::Stop(reason));
            }
        }
        drop(inside);
        woken.into_iter().for_each(|instance| self.drive(instance));
        self.serve_waiting();
    }

    /// Stops one instance, in order. False if it is not here.
    pub fn stop(&self, id: InstanceId, reason: StopReason) -> bool {
        let mut inside = self.lock();
        if let Some(seated) = inside.awake.iter().find(|seated| seated.id == id) {
            seated.inbox.order(Order::Stop(reason));
            return true;
        }
        let Some(resting) = inside.lot.take(id) else { return false };
        resting.seated.inbox.order(Order::Stop(reason));
        let instance = inside.seat(resting, None);
        drop(inside);
        self.drive(instance);
        true
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
        let instance = inside.seat(resting, None);
        drop(inside);
        self.drive(instance);
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
            let instance = inside.seat(resting, None);
            drop(inside);
            self.drive(instance);
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
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Closes the records of requests whose callers left before an instance took them.
    fn drop_cancelled(&self, jobs: Vec<Job>) {
        for mut job in jobs {
            self.count("cancelled");
            job.meter.outcome("cancelled", false);
        }
    }

    fn count(&self, code: &'static str) {
        match code {
            "ok" => self.0.ok.inc(),
            code => self.0.ground.metrics.counter(&self.0.terms.function, code).inc(),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.state.lock().expect("no holder of this lock panics")
    }

    fn drive(&self, instance: Box<Instance>) {
        let pool = self.clone();
        self.0.ground.tasks.spawn(async move { drive(pool, instance).await });
    }
}

impl Inside {
    fn decide(&self, bounds: Bounds) -> Decision {
        if self.phase == Phase::Suspended {
            let full = self.waiting.len() >= bounds.queue_depth as usize;
            return if full { Decision::Refuse } else { Decision::Wait };
        }
        let seats = self.awake.iter().map(Seated::seat);
        let instances = self.awake.len() + self.lot.count();
        policy::decide(seats, self.lot.parked_count(), instances, self.waiting.len(), bounds)
    }

    fn lend(&mut self, index: usize, mut job: Job) {
        let seated = &mut self.awake[index];
        seated.in_flight += 1;
        job.assigned = Instant::now();
        job.start = match seated.state {
            State::Starting | State::Initializing => Start::Cold,
            _ => Start::Active,
        };
        seated.inbox.send(job);
    }

    /// Seats a resting instance among the awake ones, with a job if it is woken for one.
    fn seat(&mut self, resting: Resting, job: Option<Job>) -> Box<Instance> {
        let Resting { mut instance, mut seated, .. } = resting;
        if let Some(mut job) = job {
            seated.in_flight += 1;
            job.assigned = Instant::now();
            seated.inbox.send(job);
        }
        if self.phase != Phase::Suspended {
            // An order to suspend may have come when it was about to park.
            seated.inbox.order(Order::Run);
        }
        instance.wake();
        // Now, not when the driver reports it: requests that come with this one share the instance.
        seated.state = instance.state();
        self.awake.push(seated);
        instance
    }

    fn start(&mut self, terms: &Arc<Terms>, job: Option<Job>) -> Box<Instance> {
        let instance = Box::new(Instance::new(terms.clone()));
        let seated = Seated::new(&instance, u32::from(job.is_some()));
        if let Some(mut job) = job {
            job.assigned = Instant::now();
            seated.inbox.send(job);
        }
        self.awake.push(seated);
        instance
    }

    #[expect(clippy::vec_box, reason = "instances move between lists as pointers")]
    fn wake_suspended(&mut self, order: Order) -> Vec<Box<Instance>> {
        let suspended = self.lot.take_suspended();
        let wake = |resting: Resting| {
            resting.seated.inbox.order(order);
            self.seat(resting, None)
        };
        suspended.into_iter().map(wake).collect()
    }

    fn find(&mut self, id: InstanceId) -> Option<&mut Seated> {
        self.awake.iter_mut().find(|seated| seated.id == id)
    }

    fn take(&mut self, id: InstanceId) -> Option<Seated> {
        let index = self.awake.iter().position(|seated| seated.id == id)?;
        Some(self.awake.swap_remove(index))
    }

    fn take_waiting(&mut self, ticket: u64) -> Option<Job> {
        let index = self.waiting.iter().position(|job| job.ticket == ticket)?;
        self.waiting.remove(index)
    }

    fn take_abandoned(&mut self) -> Vec<Job> {
        let (left, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|job| job.reply.is_closed());
        self.waiting = waiting;
        Vec::from_iter::<VecDeque<Job>>(left)
    }
}

/// What happens to an awake instance: one task, from waking to rest or end.
async fn drive(pool: Pool, instance: Box<Instance>) {
    let mut driving = Driving { id: instance.id(), inbox: instance.inbox(), pool, over: false };
    let Some(mut instance) = driving.find_place(instance).await else { return };
    loop {
        match instance.next().await {
            Report::Moved(State::Parked | State::Suspended) => match driving.settle(instance) {
                Some(woken) => instance = woken,
                None => return,
            },
            Report::Moved(state) => driving.moved(state),
            Report::Answered(answered) => {
                driving.answered();
                driving.pool.count(answered.code());
                answered.send();
                if driving.pool.0.terms.freeze_after.is_zero() {
                    // The caller's task goes first: its answer must not wait for pre-freeze.
                    tokio::task::yield_now().await;
                }
            }
            Report::Bounced(job) => driving.bounced(job),
            Report::Stopped(answers) => {
                drop(instance);
                driving.over();
                for answered in answers {
                    driving.pool.count(answered.code());
                    answered.send();
                }
                return;
            }
        }
    }
}

/// The pool's side of one awake instance. Dropped early, by a panic in the engine for example, it still frees the seat.
struct Driving {
    id: InstanceId,
    inbox: Arc<Inbox>,
    pool: Pool,
    over: bool,
}

impl Driving {
    /// Waits until the host has room for a new instance. If it has none, its requests are told so.
    async fn find_place(&mut self, instance: Box<Instance>) -> Option<Box<Instance>> {
        if self.pool.lock().find(self.id).is_none_or(|seated| seated.place.is_some()) {
            return Some(instance);
        }
        let ground = self.pool.0.ground.clone();
        match timeout(self.pool.0.settings.queue_timeout, ground.find_place()).await.ok().flatten() {
            Some(place) => {
                if let Some(seated) = self.pool.lock().find(self.id) {
                    seated.place = Some(place);
                }
                Some(instance)
            }
            None => {
                let seated = self.pool.lock().take(self.id);
                self.over = true;
                drop(seated);
                while let Some(job) = self.inbox.take() {
                    let timings = Timings { start: job.assigned.elapsed(), ..Timings::default() };
                    self.pool.count("host-full");
                    job.answer(Outcome::HostFull, timings);
                }
                self.pool.serve_waiting();
                None
            }
        }
    }

    fn moved(&self, state: State) {
        let mut inside = self.pool.lock();
        if let Some(seated) = inside.find(self.id) {
            seated.moved(state);
        }
        self.look_for_work(inside);
    }

    fn answered(&self) {
        let mut inside = self.pool.lock();
        if let Some(seated) = inside.find(self.id) {
            seated.in_flight = seated.in_flight.saturating_sub(1);
        }
        self.look_for_work(inside);
    }

    fn bounced(&self, job: Job) {
        self.pool.lock().waiting.push_front(job);
        self.answered();
    }

    /// Takes waiting requests; an instance of a retiring pool that finds none goes.
    fn look_for_work(&self, mut inside: MutexGuard<'_, Inside>) {
        if !inside.waiting.is_empty() {
            drop(inside);
            return self.pool.serve_waiting();
        }
        if let Phase::Retiring(reason) = inside.phase
            && let Some(seated) = inside.find(self.id)
            && seated.in_flight == 0
        {
            seated.inbox.order(Order::Stop(reason));
        }
    }

    /// Puts an instance that came to rest into the lot, unless it is wanted already.
    fn settle(&mut self, mut instance: Box<Instance>) -> Option<Box<Instance>> {
        let mut inside = self.pool.lock();
        let phase = inside.phase;
        let waiting = !inside.waiting.is_empty();
        let Some(mut seated) = inside.take(self.id) else { return Some(instance) };
        if let Phase::Retiring(reason) = phase
            && seated.in_flight == 0
        {
            seated.inbox.order(Order::Stop(reason));
        }
        let suspended = instance.state() == State::Suspended;
        let order = seated.inbox.current_order();
        let wanted = if suspended {
            order != Order::Suspend
        } else {
            seated.in_flight > 0 || matches!(order, Order::Stop(_)) || (waiting && phase != Phase::Suspended)
        };
        if wanted {
            instance.wake();
            seated.state = instance.state();
            inside.awake.push(seated);
            drop(inside);
            self.pool.serve_waiting();
            return Some(instance);
        }
        let now = Instant::now();
        seated.moved(instance.state());
        let resting = Resting { instance, seated, since: now };
        if suspended {
            inside.lot.suspend(resting);
        } else {
            inside.lot.park(resting);
        }
        drop(inside);
        self.over = true;
        if !suspended {
            self.pool.0.ground.reaper.expect(now + self.pool.0.settings.idle_timeout);
        }
        None
    }

    /// The instance is gone. What it had been given and not begun goes elsewhere.
    fn over(&mut self) {
        self.over = true;
        let mut inside = self.pool.lock();
        let seated = inside.take(self.id);
        while let Some(job) = self.inbox.take() {
            inside.waiting.push_front(job);
        }
        drop(inside);
        drop(seated);
        self.pool.serve_waiting();
        self.pool.keep_minimum_soon();
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        if !self.over {
            self.over();
        }
    }
}
