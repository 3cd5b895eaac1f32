//! How many instances are in which state.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::instance::State;

/// How many instances are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceCounts {
    /// Starting or initializing.
    pub starting: u32,
    /// Running requests, or lingering after one.
    pub active: u32,
    /// In pre-freeze.
    pub freezing: u32,
    /// Parked.
    pub parked: u32,
    /// Suspended in the middle of execution.
    pub suspended: u32,
    /// Finishing their requests or in pre-stop.
    pub stopping: u32,
}

impl InstanceCounts {
    /// Kinds of states that are counted.
    pub(super) const KINDS: usize = 6;

    /// The place of a state's kind among them.
    pub(super) fn kind(state: State) -> usize {
        match state {
            State::Starting | State::Initializing => 0,
            State::Active => 1,
            State::Freezing => 2,
            State::Parked => 3,
            State::Suspended => 4,
            State::Stopping | State::Stopped => 5,
        }
    }

    /// The counts, of which each kind's is asked for.
    pub(super) fn of(count: impl Fn(usize) -> u32) -> InstanceCounts {
        let of = |state| count(InstanceCounts::kind(state));
        InstanceCounts {
            starting: of(State::Starting),
            active: of(State::Active),
            freezing: of(State::Freezing),
            parked: of(State::Parked),
            suspended: of(State::Suspended),
            stopping: of(State::Stopping),
        }
    }

    /// The sum of both.
    pub fn plus(self, other: InstanceCounts) -> InstanceCounts {
        InstanceCounts {
            starting: self.starting + other.starting,
            active: self.active + other.active,
            freezing: self.freezing + other.freezing,
            parked: self.parked + other.parked,
            suspended: self.suspended + other.suspended,
            stopping: self.stopping + other.stopping,
        }
    }

    /// All of them.
    pub fn total(self) -> u32 {
        self.named().iter().map(|(_, count)| count).sum()
    }

    /// The counts with the names of their states.
    pub fn named(self) -> [(&'static str, u32); 6] {
        [
            ("starting", self.starting),
            ("active", self.active),
            ("freezing", self.freezing),
            ("parked", self.parked),
            ("suspended", self.suspended),
            ("stopping", self.stopping),
        ]
    }
}
