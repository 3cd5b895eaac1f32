//! The task of one awake instance: it passes the driver's reports on to the pool, from waking to rest or end.

use std::sync::{Arc, MutexGuard};

use tokio::time::{Instant, timeout};

use super::inside::{Inside, Phase};
use super::lot::Resting;
use super::pool::Pool;
use crate::ids::InstanceId;
use crate::instance::{Inbox, Instance, Job, Order, Outcome, Report, State, Timings};

/// What happens to an awake instance: one task, from waking to rest or end.
pub(super) async fn drive(pool: Pool, instance: Box<Instance>) {
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
        self.pool.take_back(vec![job]);
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
        let seated = self.pool.lock().take(self.id);
        drop(seated); // Its place on the host may be needed for what it leaves.
        let mut left = Vec::new();
        while let Some(job) = self.inbox.take() {
            left.push(job);
        }
        self.pool.take_back(left);
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
