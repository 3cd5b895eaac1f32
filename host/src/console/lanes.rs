//! Instances over time: what each was in, and since when. Pure: moves go in, lanes come out.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::ids::{InstanceId, RevisionId};
use crate::instance::State;
use crate::pool::Move;

/// A stretch of time in which an instance was in one state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stretch {
    pub(super) state: State,
    /// Where it begins and ends in the window, from 0 to 1.
    pub(super) from: f64,
    pub(super) to: f64,
}

/// One instance over the window.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) instance: InstanceId,
    /// What it runs.
    pub(super) revision: RevisionId,
    pub(super) stretches: Vec<Stretch>,
    /// The state it is in now.
    pub(super) state: State,
}

impl Lane {
    /// The lane of one that has been in the same state for so long.
    pub(super) fn resting(
        (instance, revision): (InstanceId, RevisionId),
        state: State,
        ago: Duration,
        window: Duration,
    ) -> Lane {
        let from = (1.0 - ago.as_secs_f64() / window.as_secs_f64()).max(0.0);
        Lane { instance, revision, stretches: vec![Stretch { state, from, to: 1.0 }], state }
    }
}

/// The lanes of a window that ends at `now`, of those that moved last first, and behind them of those that are gone; at most
/// `most`. The moves are in their order.
pub(super) fn of(moves: &[Move], now: Instant, window: Duration, most: usize) -> Vec<Lane> {
    let place = |at: Instant| (1.0 - now.saturating_duration_since(at).as_secs_f64() / window.as_secs_f64()).max(0.0);
    let mut lanes: Vec<Lane> = Vec::new();
    // Which lane is an instance's; none if there are enough without it.
    let mut of_instances: HashMap<InstanceId, Option<usize>> = HashMap::new();
    let (mut room, mut room_for_gone) = (most, most);
    for moved in moves.iter().rev() {
        let Move { instance, revision, state, .. } = *moved;
        let lane = of_instances.entry(instance).or_insert_with(|| {
            // The newest move says what it is in now.
            let room = if state == State::Stopped { &mut room_for_gone } else { &mut room };
            *room = room.checked_sub(1)?;
            lanes.push(Lane { instance, revision, stretches: Vec::new(), state });
            Some(lanes.len() - 1)
        });
        if let Some(lane) = *lane {
            let stretches = &mut lanes[lane].stretches;
            let to = stretches.last().map_or(1.0, |later| later.from);
            stretches.push(Stretch { state, from: place(moved.at), to });
        }
    }
    // One that is gone ends where it went, and is forgotten when nothing of it is left in the window.
    for lane in &mut lanes {
        lane.stretches.retain(|stretch| stretch.state != State::Stopped && stretch.to > 0.0);
        lane.stretches.reverse();
    }
    lanes.retain(|lane| !lane.stretches.is_empty());
    lanes.sort_by_key(|lane| lane.state == State::Stopped);
    lanes.truncate(most);
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lane_is_what_an_instance_did_in_the_window() {
        tokio::time::advance(Duration::from_secs(100)).await;
        let (now, one, other, gone) =
            (Instant::now(), InstanceId::random(), InstanceId::random(), InstanceId::random());
        let mut sequence = 0;
        let mut moved = |instance, ago, state| {
            sequence += 1;
            let at = now - Duration::from_secs(ago);
            Move { sequence, at, revision: RevisionId(1), instance, state }
        };
        let moves = [
            moved(gone, 90, State::Active),
            moved(one, 80, State::Active),
            moved(gone, 70, State::Stopped),
            moved(one, 30, State::Parked),
            moved(other, 20, State::Starting),
            moved(other, 10, State::Stopped),
        ];
        let lanes = of(&moves, now, Duration::from_secs(40), 10);
        let told: Vec<_> = lanes.iter().map(|lane| (lane.instance, lane.stretches.clone())).collect();
        let stretch = |state, from, to| Stretch { state, from, to };
        let expected = [
            (one, vec![stretch(State::Active, 0.0, 0.25), stretch(State::Parked, 0.25, 1.0)]),
            (other, vec![stretch(State::Starting, 0.5, 0.75)]),
        ];
        assert_eq!(told, expected, "the one that is gone long ago is not shown");
        assert_eq!(of(&moves, now, Duration::from_secs(40), 1).len(), 1);
        let (of, window) = ((one, RevisionId(1)), Duration::from_secs(40));
        let resting = |ago| Lane::resting(of, State::Parked, Duration::from_secs(ago), window);
        assert_eq!(resting(10).stretches, [stretch(State::Parked, 0.75, 1.0)]);
        assert_eq!(resting(4000).stretches, [stretch(State::Parked, 0.0, 1.0)]);
    }
}
