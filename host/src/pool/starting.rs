//! How a pool's instances come: started for a request or to be kept, when the host has room; or woken.

use std::sync::Arc;

use tokio::time::timeout;

use super::entry::{Awake, Entry, Resting};
use super::policy::{self, Phase};
use super::pool::Inner;
use super::runner::Runner;
use super::state::State;
use crate::chance;
use crate::instance::{Instance, Job, Order, Outcome};

impl Inner {
    /// Wakes an instance at rest, for a job if there is one. It must be run then.
    pub(super) fn wake(&self, state: &mut State, resting: Resting, job: Option<Box<Job>>) -> Arc<Runner> {
        let Resting { mut instance, mut entry, .. } = resting;
        if let Some(job) = job {
            entry.give(job);
        }
        if state.phase != Phase::Suspended {
            // An order to suspend may have come when it was about to park.
            entry.inbox.order(Order::Run);
        }
        instance.wake();
        // Now, not when the driver reports it: requests that come with this one share the instance.
        entry.note(instance.state(), instance.now());
        let runner = self.runner(&instance);
        runner.admit(instance);
        state.awake.push(Awake { entry, runner: runner.clone() });
        runner
    }

    /// Starts an instance, for a job if there is one. It must be run then.
    pub(super) fn start(&self, state: &mut State, job: Option<Box<Job>>) -> Arc<Runner> {
        let instance = Box::new(Instance::new(self.terms.clone()));
        let runner = self.runner(&instance);
        let mut entry = Entry::new(&instance, self.board.clone());
        if let Some(job) = job {
            entry.give(job);
        }
        entry.reservation = self.context.capacity.reserve(self.maps_per_instance());
        if entry.reservation.is_some() {
            runner.admit(instance);
        } else if let Some(pool) = self.me.upgrade() {
            let waiting = runner.clone();
            self.context.spawn(async move { pool.start_when_there_is_room(instance, waiting).await });
        }
        state.awake.push(Awake { entry, runner: runner.clone() });
        runner
    }

    fn runner(&self, instance: &Instance) -> Arc<Runner> {
        // Whoever has a reference to the pool's inside has it through the handle, so it is there.
        let owner = self.me.upgrade().expect("a pool in use is there");
        Runner::new(instance, owner, self.context.clone())
    }

    /// Waits until the host has room for a new instance. If it has none, its requests are told so.
    async fn start_when_there_is_room(&self, instance: Box<Instance>, runner: Arc<Runner>) {
        let (id, inbox) = (instance.id(), instance.inbox());
        let reserved = tokio::select! {
            reserved = timeout(self.settings.queue_timeout, self.context.reserve(self.maps_per_instance())) => reserved,
            () = self.context.tasks.cut_off() => Ok(None),
        };
        if let Some(reservation) = reserved.ok().flatten() {
            if let Some(awake) = self.lock().find(id) {
                awake.entry.reservation = Some(reservation);
            }
            runner.admit(instance);
            return runner.run(None);
        }
        let gone = self.lock().take_awake(id);
        drop(gone);
        while let Some(job) = inbox.take() {
            let outcome = if self.context.tasks.is_cut_off() { Outcome::Draining } else { Outcome::HostFull };
            self.answer_unserved(job, outcome);
        }
        self.serve_waiting();
    }

    /// Starts instances until there are as many as are always kept.
    pub(super) fn keep_minimum(&self) {
        loop {
            let mut state = self.lock();
            if state.has_enough_instances() || state.phase != Phase::Open {
                return;
            }
            let runner = self.start(&mut state, None);
            drop(state);
            runner.wake();
        }
    }

    /// The same after a while: one instance is gone, which `was_ready` or not. However many go, one restart is planned,
    /// and its wait grows with each time that none became ready, so that a function that cannot start does not keep the
    /// host busy.
    pub(super) fn keep_minimum_soon(&self, was_ready: bool) {
        let mut state = self.lock();
        if was_ready {
            state.failures = 0;
        }
        if state.instances_min == 0 || state.restart_planned {
            return;
        }
        let Some(pool) = self.me.upgrade() else { return };
        state.restart_planned = true;
        if !was_ready {
            state.failures = state.failures.saturating_add(1);
        }
        let wait = policy::restart_wait(state.failures, chance::drawn());
        drop(state);
        self.context.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(wait) => {
                    pool.lock().restart_planned = false;
                    pool.keep_minimum();
                }
                () = pool.context.tasks.drained() => {}
            }
        });
    }

    /// Kernel maps that each of its instances needs.
    pub(super) fn maps_per_instance(&self) -> u64 {
        self.terms.blueprint.maps_per_instance
    }
}
