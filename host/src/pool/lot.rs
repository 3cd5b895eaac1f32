//! The parking lot: instances at rest, as plain values.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::seat::Seated;
use crate::ids::InstanceId;
use crate::instance::Instance;

/// An instance at rest, with what the pool knows of it.
pub(super) struct Resting {
    pub(super) instance: Box<Instance>,
    pub(super) seated: Seated,
    pub(super) since: Instant,
}

/// A pool's instances at rest.
#[derive(Default)]
pub(super) struct Lot {
    /// The longest parked first.
    parked: VecDeque<Resting>,
    suspended: Vec<Resting>,
}

impl Lot {
    pub(super) fn park(&mut self, resting: Resting) {
        self.parked.push_back(resting);
    }

    pub(super) fn suspend(&mut self, resting: Resting) {
        self.suspended.push(resting);
    }

    /// The most recently parked: its memory is the warmest.
    pub(super) fn take_newest(&mut self) -> Option<Resting> {
        self.parked.pop_back()
    }

    pub(super) fn take_oldest(&mut self) -> Option<Resting> {
        self.parked.pop_front()
    }

    /// The longest parked one, if it was parked by `latest`.
    pub(super) fn take_parked_by(&mut self, latest: Instant) -> Option<Resting> {
        self.parked.pop_front_if(|resting| resting.since <= latest)
    }

    /// Since when the longest parked one has been parked.
    pub(super) fn oldest_since(&self) -> Option<Instant> {
        self.parked.front().map(|resting| resting.since)
    }

    pub(super) fn take_suspended(&mut self) -> Vec<Resting> {
        std::mem::take(&mut self.suspended)
    }

    pub(super) fn take(&mut self, id: InstanceId) -> Option<Resting> {
        if let Some(index) = self.parked.iter().position(|resting| resting.seated.id == id) {
            return self.parked.remove(index);
        }
        let index = self.suspended.iter().position(|resting| resting.seated.id == id)?;
        Some(self.suspended.swap_remove(index))
    }

    pub(super) fn parked_count(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn count(&self) -> usize {
        self.parked.len() + self.suspended.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Resting> {
        self.parked.iter().chain(&self.suspended)
    }
}
