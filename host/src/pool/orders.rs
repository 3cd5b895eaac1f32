//! What the catalog, an operator and the host order of a pool, and what they may read of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::counts::InstanceCounts;
use super::entry::{Awake, Entry, InstanceSnapshot, Resting};
use super::policy::{self, Change, Phase, Wanted};
use super::pool::{Inner, Pool};
use super::runner::Runner;
use super::state::State;
use crate::ids::{FunctionName, InstanceId, RevisionId};
use crate::instance::{self, CutOff, Order, StopReason};

impl Pool {
    /// The revision whose instances these are.
    pub fn revision(&self) -> RevisionId {
        self.0.revision
    }

    /// The function.
    pub fn function(&self) -> &FunctionName {
        &self.0.terms.function
    }

    /// The name that instances give as their version.
    pub fn version(&self) -> Arc<str> {
        self.0.terms.version.get()
    }

    /// Becomes what the catalog wants, or retires for the reason why it wants the pool no more. Says which change that was.
    pub(super) fn follow(&self, wanted: Result<&Wanted, StopReason>) -> Option<Change> {
        let change = policy::follow(self.0.lock().phase, wanted);
        match change {
            Some(Change::Retire(reason)) => self.retire(reason),
            Some(Change::Suspend) => self.suspend(),
            Some(Change::Resume) => self.resume(),
            None => {}
        }
        if let Ok(wanted) = wanted {
            self.0.terms.version.set(&wanted.version);
            let instances_min = wanted.instances_min as usize;
            let before = std::mem::replace(&mut self.0.lock().instances_min, instances_min);
            self.0.keep_minimum();
            if instances_min < before {
                // Some may have been parked for too long, and were kept.
                self.0.context.reaper.expect(Instant::now());
            }
        }
        change
    }

    /// Stops every instance where it stands; requests that come now wait.
    fn suspend(&self) {
        let mut state = self.0.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Suspended;
            state.awake.iter().for_each(|awake| awake.order(Order::Suspend));
        }
    }

    /// Lets all instances go on.
    fn resume(&self) {
        let mut state = self.0.lock();
        if state.phase != Phase::Suspended {
            return;
        }
        state.phase = Phase::Open;
        state.awake.iter().for_each(|awake| awake.order(Order::Run));
        let woken = self.0.wake_suspended(&mut state, Order::Run);
        drop(state);
        woken.iter().for_each(Runner::wake);
        self.0.serve_waiting();
    }

    /// Serves what was accepted, and stops every instance that is done.
    pub(super) fn retire(&self, reason: StopReason) {
        let mut state = self.0.lock();
        if matches!(state.phase, Phase::Retiring(_)) {
            return;
        }
        state.phase = Phase::Retiring(reason);
        state.instances_min = 0;
        let mut woken = self.0.wake_suspended(&mut state, Order::Stop(reason));
        while let Some(resting) = state.take_oldest_parked() {
            woken.push(self.0.wake_to_stop(&mut state, resting, reason));
        }
        for awake in &state.awake {
            awake.order(Order::Run); // Ends a suspension that was ordered and not yet carried out.
            if let Some(reason) = policy::stop_when_done(state.phase, awake.entry.in_flight()) {
                awake.order(Order::Stop(reason));
            }
        }
        drop(state);
        self.0.retiring.store(true, Ordering::Relaxed);
        woken.iter().for_each(Runner::wake);
        self.0.serve_waiting();
        self.0.look_whether_it_is_over();
    }

    /// Stops one instance, in order. False if it is not here.
    pub(super) fn stop(&self, id: InstanceId, reason: StopReason) -> bool {
        let mut state = self.0.lock();
        if let Some(awake) = state.find(id) {
            awake.order(Order::Stop(reason));
            return true;
        }
        let Some(resting) = state.take_resting(id) else { return false };
        let runner = self.0.wake_to_stop(&mut state, resting, reason);
        drop(state);
        runner.wake();
        true
    }

    /// Kernel maps that each of its instances needs.
    pub(super) fn maps_per_instance(&self) -> u64 {
        self.0.maps_per_instance()
    }

    /// Since when its longest parked instance has been parked.
    pub(super) fn oldest_parked(&self) -> Option<Instant> {
        self.0.lock().oldest_parked_since()
    }

    /// Stops the longest parked instance, in order.
    pub(super) fn stop_oldest(&self, reason: StopReason) -> Option<InstanceId> {
        let mut state = self.0.lock();
        let resting = state.take_oldest_parked()?;
        let id = resting.entry.id;
        let runner = self.0.wake_to_stop(&mut state, resting, reason);
        drop(state);
        runner.wake();
        Some(id)
    }

    /// Stops an awake instance that has no request, in order.
    pub(super) fn stop_unused(&self, reason: StopReason) -> Option<InstanceId> {
        let state = self.0.lock();
        let unused = |awake: &&Awake| {
            awake.entry.in_flight() == 0
                && matches!(awake.entry.state(), instance::State::Active | instance::State::Freezing)
        };
        let awake = state.awake.iter().find(unused)?;
        awake.order(Order::Stop(reason));
        Some(awake.entry.id)
    }

    /// Whether the instance is still there.
    pub(super) fn has(&self, id: InstanceId) -> bool {
        self.0.lock().entries().any(|entry| entry.id == id)
    }

    /// The awake instance that has most memory, and how much.
    pub(super) fn largest_awake(&self) -> Option<(u64, InstanceId)> {
        let state = self.0.lock();
        state
            .awake
            .iter()
            .map(|awake| (awake.entry.vitals.memory_bytes(), awake.entry.id))
            .max_by_key(|(bytes, _)| *bytes)
    }

    /// Ends an awake instance at once.
    pub(super) fn cut_off(&self, id: InstanceId, why: CutOff) {
        if let Some(awake) = self.0.lock().find(id) {
            awake.order(Order::CutOff(why));
        }
    }

    /// Ends every instance at once, and answers the requests that wait.
    pub(super) fn cut_off_all(&self, why: CutOff) {
        let mut state = self.0.lock();
        let mut woken = self.0.wake_suspended(&mut state, Order::CutOff(why));
        while let Some(resting) = state.take_oldest_parked() {
            resting.entry.inbox.order(Order::CutOff(why));
            woken.push(self.0.wake(&mut state, resting, None));
        }
        state.awake.iter().for_each(|awake| awake.order(Order::CutOff(why)));
        drop(state);
        woken.iter().for_each(Runner::wake);
        self.0.serve_waiting();
    }

    /// Stops instances that are parked too long; says when the next one will be.
    pub(super) fn stop_idle(&self, now: Instant) -> Option<Instant> {
        let idle_timeout = self.0.settings.idle_timeout;
        loop {
            let mut state = self.0.lock();
            if state.instances() <= state.instances_min {
                return None;
            }
            let Some(latest) = now.checked_sub(idle_timeout) else { return Some(now + idle_timeout) };
            let Some(resting) = state.take_parked_by(latest) else {
                return state.oldest_parked_since().map(|since| since + idle_timeout);
            };
            let runner = self.0.wake_to_stop(&mut state, resting, StopReason::Idle);
            drop(state);
            runner.wake();
        }
    }

    /// The instances that are wanted.
    pub fn snapshots(&self, wanted: impl Fn(InstanceId) -> bool) -> Vec<InstanceSnapshot> {
        self.0.lock().entries().filter(|entry| wanted(entry.id)).map(Entry::snapshot).collect()
    }

    /// How many instances are in which state.
    pub fn counts(&self) -> InstanceCounts {
        self.0.board.counts()
    }

    /// Linear memory of the parked instances.
    pub(super) fn parked_bytes(&self) -> u64 {
        self.0.board.parked_bytes()
    }

    /// Requests that were answered since the pool was made, and those of them that failed.
    pub fn requests(&self) -> (u64, u64) {
        self.0.board.requests()
    }

    /// Instances that are parked now, how long they have been, and their memory.
    pub fn parked(&self) -> Vec<(InstanceId, Duration, u64)> {
        let state = self.0.lock();
        let of = |resting: &Resting| (resting.entry.id, resting.since.elapsed(), resting.entry.vitals.memory_bytes());
        state.parked().map(of).collect()
    }

    /// What is wrong with its instances, if several in a row ended before they were ready.
    pub fn fault(&self) -> Option<String> {
        let failures = self.0.lock().failures;
        (failures >= policy::FAILURES_TOLD).then(|| {
            format!("{failures} times in a row an instance ended before it was ready; the function's log says why")
        })
    }

    /// Requests that wait for an instance.
    pub(super) fn waiting(&self) -> usize {
        self.0.lock().waiting()
    }
}

impl Inner {
    fn wake_suspended(&self, state: &mut State, order: Order) -> Vec<Arc<Runner>> {
        let suspended = state.take_suspended();
        let wake = |resting: Resting| {
            resting.entry.inbox.order(order);
            self.wake(state, resting, None)
        };
        suspended.into_iter().map(wake).collect()
    }

    fn wake_to_stop(&self, state: &mut State, resting: Resting, reason: StopReason) -> Arc<Runner> {
        resting.entry.inbox.order(Order::Stop(reason));
        self.wake(state, resting, None)
    }
}
