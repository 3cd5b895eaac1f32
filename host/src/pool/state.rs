//! What a pool holds behind its lock: instances awake and at rest, and requests that wait. It moves values between its
//! lists and decides nothing.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::entry::{Awake, Entry, Resting};
use super::policy::{self, Bounds, Decision, Load, Phase};
use crate::ids::InstanceId;
use crate::instance::Job;

pub(super) struct State {
    pub(super) phase: Phase,
    /// Instances that are kept even when nobody calls.
    pub(super) instances_min: usize,
    /// Instances are to be started again, after a while.
    pub(super) restart_planned: bool,
    /// So often in a row an instance ended before it was ready.
    pub(super) failures: u32,
    pub(super) awake: Vec<Awake>,
    /// The longest parked first.
    parked: VecDeque<Resting>,
    suspended: Vec<Resting>,
    pub(super) waiting: VecDeque<Box<Job>>,
}

impl State {
    pub(super) fn new(phase: Phase, instances_min: usize) -> State {
        State {
            phase,
            instances_min,
            restart_planned: false,
            failures: 0,
            awake: Vec::new(),
            parked: VecDeque::new(),
            suspended: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// What becomes of a request that comes now.
    pub(super) fn decide(&self, bounds: Bounds) -> Decision {
        let seats = self.awake.iter().map(|awake| awake.entry.seat());
        let (parked, instances, waiting) = (self.parked.len(), self.instances(), self.waiting.len());
        policy::decide(seats, Load { phase: self.phase, parked, instances, waiting }, bounds)
    }

    /// Instances in all.
    pub(super) fn instances(&self) -> usize {
        self.awake.len() + self.parked.len() + self.suspended.len()
    }

    pub(super) fn has_enough_instances(&self) -> bool {
        self.instances() >= self.instances_min
    }

    /// Whether nothing is left in it.
    pub(super) fn is_empty(&self) -> bool {
        self.instances() == 0 && self.waiting.is_empty()
    }

    /// All entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let resting = self.parked.iter().chain(&self.suspended).map(|resting| &resting.entry);
        self.awake.iter().map(|awake| &awake.entry).chain(resting)
    }

    /// An awake instance.
    pub(super) fn find(&mut self, id: InstanceId) -> Option<&mut Awake> {
        self.awake.iter_mut().find(|awake| awake.entry.id == id)
    }

    /// Takes an awake instance out.
    pub(super) fn take_awake(&mut self, id: InstanceId) -> Option<Awake> {
        let index = self.awake.iter().position(|awake| awake.entry.id == id)?;
        Some(self.awake.swap_remove(index))
    }

    pub(super) fn park(&mut self, resting: Resting) {
        self.parked.push_back(resting);
    }

    pub(super) fn suspend(&mut self, resting: Resting) {
        self.suspended.push(resting);
    }

    /// The most recently parked: its memory is the warmest.
    pub(super) fn take_newest_parked(&mut self) -> Option<Resting> {
        self.parked.pop_back()
    }

    pub(super) fn take_oldest_parked(&mut self) -> Option<Resting> {
        self.parked.pop_front()
    }

    /// The longest parked one, if it was parked by `latest`.
    pub(super) fn take_parked_by(&mut self, latest: Instant) -> Option<Resting> {
        self.parked.pop_front_if(|resting| resting.since <= latest)
    }

    /// Since when the longest parked one has been parked.
    pub(super) fn oldest_parked_since(&self) -> Option<Instant> {
        self.parked.front().map(|resting| resting.since)
    }

    pub(super) fn parked(&self) -> impl Iterator<Item = &Resting> {
        self.parked.iter()
    }

    pub(super) fn take_suspended(&mut self) -> Vec<Resting> {
        std::mem::take(&mut self.suspended)
    }

    /// Takes an instance out that is at rest.
    pub(super) fn take_resting(&mut self, id: InstanceId) -> Option<Resting> {
        if let Some(index) = self.parked.iter().position(|resting| resting.entry.id == id) {
            return self.parked.remove(index);
        }
        let index = self.suspended.iter().position(|resting| resting.entry.id == id)?;
        Some(self.suspended.swap_remove(index))
    }

    /// Takes a request out that waits.
    pub(super) fn take_waiting(&mut self, ticket: u64) -> Option<Box<Job>> {
        let index = self.waiting.iter().position(|job| job.ticket == ticket)?;
        self.waiting.remove(index)
    }

    /// Takes the requests out whose callers left.
    pub(super) fn take_abandoned(&mut self) -> VecDeque<Box<Job>> {
        let (left, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|job| job.is_abandoned());
        self.waiting = waiting;
        left
    }
}
