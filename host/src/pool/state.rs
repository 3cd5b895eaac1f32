//! What a pool holds behind its lock: instances awake and at rest, and requests that wait. It moves values between its
//! lists and decides nothing.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::entry::{Awake, Entry, Resting};
use super::policy::{self, Bounds, Decision, Line, Load, Phase, Turn};
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
    /// Callers that wait.
    callers: VecDeque<Box<Job>>,
    /// Waiting work that waits for an instance. It is bounded by whoever sends it.
    work: VecDeque<Box<Job>>,
    /// Callers that got an instance while work waited, since work last got one.
    callers_since_work: u32,
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
            callers: VecDeque::new(),
            work: VecDeque::new(),
            callers_since_work: 0,
        }
    }

    /// What becomes of a request that comes now.
    pub(super) fn decide(&self, bounds: Bounds) -> Decision {
        let seats = self.awake.iter().map(|awake| awake.entry.seat());
        let (parked, instances, waiting) = (self.parked.len(), self.instances(), self.callers.len());
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
        self.instances() == 0 && self.waiting() == 0
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

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.callers.len() + self.work.len()
    }

    /// Lets a request wait behind all others of its kind.
    pub(super) fn wait_last(&mut self, job: Box<Job>) {
        self.line(&job).push_back(job);
    }

    /// Lets a request wait before all others of its kind.
    pub(super) fn wait_first(&mut self, job: Box<Job>) {
        self.line(&job).push_front(job);
    }

    fn line(&mut self, job: &Job) -> &mut VecDeque<Box<Job>> {
        if job.is_work { &mut self.work } else { &mut self.callers }
    }

    /// Takes the request out whose turn it is.
    pub(super) fn take_next(&mut self, bounds: Bounds) -> Option<Box<Job>> {
        let (callers, work, callers_since_work) = (self.callers.len(), self.work.len(), self.callers_since_work);
        match policy::turn(Line { callers, work, callers_since_work }, bounds)? {
            Turn::Caller => self.callers.pop_front(),
            Turn::Work => self.work.pop_front(),
        }
    }

    /// Notes that a request got an instance.
    pub(super) fn note_turn(&mut self, is_work: bool) {
        let waits = !self.work.is_empty();
        self.callers_since_work = if is_work || !waits { 0 } else { self.callers_since_work.saturating_add(1) };
    }

    /// Takes all requests out that wait.
    pub(super) fn take_all_waiting(&mut self) -> impl Iterator<Item = Box<Job>> + use<> {
        std::mem::take(&mut self.callers).into_iter().chain(std::mem::take(&mut self.work))
    }

    /// Takes a request out that waits.
    pub(super) fn take_waiting(&mut self, ticket: u64) -> Option<Box<Job>> {
        let take = |line: &mut VecDeque<Box<Job>>| {
            let index = line.iter().position(|job| job.ticket == ticket)?;
            line.remove(index)
        };
        take(&mut self.callers).or_else(|| take(&mut self.work))
    }

    /// Takes the requests out whose callers left.
    pub(super) fn take_abandoned(&mut self) -> VecDeque<Box<Job>> {
        let (left, waiting) = std::mem::take(&mut self.callers).into_iter().partition(|job| job.is_abandoned());
        self.callers = waiting;
        left
    }
}
