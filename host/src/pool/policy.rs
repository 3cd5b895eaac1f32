//! Which instance a request gets. Pure: the pool asks with what it knows, and carries the decision out.

use crate::instance::State;

/// Bounds of one function's pool.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests that one instance may have in flight.
    pub concurrency: u32,
    /// Requests that one instance may be given in its life; none: any number.
    pub requests_max: Option<u32>,
    /// Instances that may exist at once.
    pub instances_max: u32,
    /// Requests that may wait.
    pub queue_depth: u32,
}

/// An instance that is awake, as the policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) state: State,
    /// Requests it was given and has not answered.
    pub(super) in_flight: u32,
    /// Requests it was ever given.
    pub(super) given: u32,
}

impl Seat {
    fn has_room(self, bounds: Bounds) -> bool {
        self.in_flight < bounds.concurrency && bounds.requests_max.is_none_or(|most| self.given < most)
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Give it to this awake instance.
    Lend(usize),
    /// Wake the most recently parked instance.
    Thaw,
    /// Start an instance.
    Start,
    /// Let it wait.
    Wait,
    /// Turn it away.
    Refuse,
}

/// How willingly an awake instance is taken; smaller is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    Active,
    /// Comes after parked instances, which answer at once.
    Starting,
    /// The last resort before a new instance: the request may have to wait for pre-freeze.
    Freezing,
}

/// Decides about one request, given the awake instances, how many are parked, how many there are in all, and how many
/// requests wait.
pub(super) fn decide(
    awake: impl Iterator<Item = Seat>,
    parked: usize,
    instances: usize,
    waiting: usize,
    bounds: Bounds,
) -> Decision {
    let best = awake
        .enumerate()
        .filter(|(_, seat)| seat.has_room(bounds))
        .filter_map(|(index, seat)| preference(seat.state).map(|preference| (index, seat, preference)))
        // Of equals the fullest is taken, so that the others come to rest.
        .min_by_key(|(_, seat, preference)| (*preference, std::cmp::Reverse(seat.in_flight)));
    match best {
        Some((index, _, Preference::Active)) => Decision::Lend(index),
        Some(_) | None if parked > 0 => Decision::Thaw,
        Some((index, _, Preference::Starting | Preference::Freezing)) => Decision::Lend(index),
        None if instances < bounds.instances_max as usize => Decision::Start,
        None if waiting < bounds.queue_depth as usize => Decision::Wait,
        None => Decision::Refuse,
    }
}

fn preference(state: State) -> Option<Preference> {
    match state {
        State::Active => Some(Preference::Active),
        State::Starting | State::Initializing => Some(Preference::Starting),
        State::Freezing => Some(Preference::Freezing),
        State::Parked | State::Suspended | State::Stopping | State::Stopped => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATES: [State; 8] = [
        State::Starting,
        State::Initializing,
        State::Active,
        State::Freezing,
        State::Parked,
        State::Suspended,
        State::Stopping,
        State::Stopped,
    ];

    fn has_room(seat: Seat, bounds: Bounds) -> bool {
        let spent = bounds.requests_max.is_some_and(|most| seat.given >= most);
        seat.in_flight < bounds.concurrency && !spent && preference(seat.state).is_some()
    }

    fn seats() -> impl Strategy<Value = Vec<Seat>> {
        let seat = (0..STATES.len(), 0..5u32, 0..4u32).prop_map(|(state, in_flight, before)| Seat {
            state: STATES[state],
            in_flight,
            given: before + in_flight,
        });
        prop::collection::vec(seat, 0..8)
    }

    fn bounds() -> impl Strategy<Value = Bounds> {
        let requests_max = prop::option::of(1..6u32);
        (1..5u32, requests_max, 1..12u32, 0..4u32).prop_map(
            |(concurrency, requests_max, instances_max, queue_depth)| Bounds {
                concurrency,
                requests_max,
                instances_max,
                queue_depth,
            },
        )
    }

    proptest! {
        #[test]
        fn every_decision_keeps_the_bounds(awake in seats(), parked in 0..4usize, waiting in 0..5usize, bounds in bounds()) {
            let instances = awake.len() + parked;
            match decide(awake.iter().copied(), parked, instances, waiting, bounds) {
                Decision::Lend(index) => {
                    prop_assert!(has_room(awake[index], bounds), "never above concurrency, never to one that stops or is spent");
                    if parked > 0 {
                        prop_assert_eq!(awake[index].state, State::Active, "a parked one answers sooner");
                    }
                    for other in awake.iter().filter(|seat| has_room(**seat, bounds)) {
                        if awake[index].state != State::Active {
                            prop_assert_ne!(other.state, State::Active);
                        }
                        if other.state == awake[index].state {
                            prop_assert!(other.in_flight <= awake[index].in_flight, "the fullest is taken");
                        }
                    }
                }
                Decision::Thaw => prop_assert!(parked > 0),
                Decision::Start => prop_assert!(instances < bounds.instances_max as usize),
                Decision::Wait => {
                    prop_assert!(waiting < bounds.queue_depth as usize);
                    prop_assert_eq!(parked, 0);
                    prop_assert!(instances >= bounds.instances_max as usize);
                    prop_assert!(!awake.iter().any(|seat| has_room(*seat, bounds)), "nobody waits while one has room");
                }
                Decision::Refuse => {
                    prop_assert!(waiting >= bounds.queue_depth as usize);
                    prop_assert!(!awake.iter().any(|seat| has_room(*seat, bounds)));
                }
            }
        }
    }

    #[test]
    fn the_order_is_active_parked_starting_freezing_new() {
        let bounds = Bounds { concurrency: 1, requests_max: None, instances_max: 9, queue_depth: 1 };
        let seat = |state| Seat { state, in_flight: 0, given: 0 };
        let all = [seat(State::Freezing), seat(State::Starting), seat(State::Active)];
        assert_eq!(decide(all.iter().copied(), 1, 4, 0, bounds), Decision::Lend(2));
        assert_eq!(decide(all[..2].iter().copied(), 1, 3, 0, bounds), Decision::Thaw);
        assert_eq!(decide(all[..2].iter().copied(), 0, 2, 0, bounds), Decision::Lend(1));
        assert_eq!(decide(all[..1].iter().copied(), 0, 1, 0, bounds), Decision::Lend(0));
        assert_eq!(decide([].into_iter(), 0, 0, 0, bounds), Decision::Start);
    }
}
