//! What a pool does when an instance reports.

use std::collections::VecDeque;
use std::sync::MutexGuard;

use tokio::time::Instant;

use super::compute::Pace;
use super::entry::{Awake, Resting};
use super::policy::{self, Arrival, Settling};
use super::pool::Inner;
use super::runner::Owner;
use super::state::State;
use crate::ids::InstanceId;
use crate::instance::{self, Ended, Instance, Job, Order};

impl Owner for Inner {
    fn line(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn pace(&self) -> &Pace {
        &self.pace
    }

    fn moved(&self, id: InstanceId, state: instance::State, now: Instant) {
        let mut pool = self.lock();
        if let Some(awake) = pool.find(id) {
            awake.entry.note(state, now);
        }
        self.look_for_work(id, pool);
    }

    fn answered(&self, id: InstanceId, state: instance::State, now: Instant, ended: Ended) {
        self.gave_back(id, state, now);
        self.count(ended);
    }

    fn bounced(&self, job: Box<Job>, id: InstanceId, state: instance::State, now: Instant) {
        self.take_back(std::iter::once(job));
        self.gave_back(id, state, now);
    }

    fn settled(&self, mut instance: Box<Instance>) -> Option<Box<Instance>> {
        let (suspended, since) = (instance.state() == instance::State::Suspended, instance.now());
        let mut state = self.lock();
        let Some(Awake { mut entry, runner }) = state.take_awake(instance.id()) else { return Some(instance) };
        let arrival = Arrival { suspended, in_flight: entry.in_flight(), order: entry.inbox.current_order() };
        let settling = policy::settle(arrival, state.phase, state.waiting());
        match settling {
            Settling::Stop(reason) => entry.inbox.order(Order::Stop(reason)),
            Settling::Wake => {}
            Settling::Rest => {
                entry.note(instance.state(), since);
                let resting = Resting { entry, instance, since };
                if suspended {
                    state.suspend(resting);
                } else {
                    state.park(resting);
                    drop(state);
                    self.context.reaper.expect(since + self.settings.idle_timeout);
                }
                return None;
            }
        }
        instance.wake();
        entry.note(instance.state(), instance.now());
        state.awake.push(Awake { entry, runner });
        drop(state);
        self.serve_waiting();
        Some(instance)
    }

    fn gone(&self, id: InstanceId) {
        let Some(Awake { entry, .. }) = self.lock().take_awake(id) else { return };
        let (inbox, was_ready) = (entry.inbox.clone(), entry.was_ready());
        drop(entry); // What it leaves may need its share of the host's capacity.
        let left: VecDeque<_> = std::iter::from_fn(|| inbox.take()).collect();
        self.take_back(left.into_iter());
        self.serve_waiting();
        self.keep_minimum_soon(was_ready);
        self.look_whether_it_is_over();
    }

    fn count(&self, ended: Ended) {
        Inner::count(self, ended);
    }
}

impl Inner {
    /// An instance has one request less.
    fn gave_back(&self, id: InstanceId, state: instance::State, now: Instant) {
        let mut pool = self.lock();
        if let Some(awake) = pool.find(id) {
            // The report of this state comes later; who asks because of the answer must not find the one before.
            awake.entry.note(state, now);
            awake.entry.gave_back();
        }
        self.look_for_work(id, pool);
    }

    /// Takes waiting requests; an instance of a retiring pool that finds none goes.
    fn look_for_work(&self, id: InstanceId, mut state: MutexGuard<'_, State>) {
        if state.waiting() > 0 {
            drop(state);
            return self.serve_waiting();
        }
        let phase = state.phase;
        if let Some(awake) = state.find(id)
            && let Some(reason) = policy::stop_when_done(phase, awake.entry.in_flight())
        {
            awake.order(Order::Stop(reason));
        }
    }
}
