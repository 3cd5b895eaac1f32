//! What a pool decides: which instance a request gets, whether an instance stays at rest, and how the pool follows the
//! catalog. Pure: the pool asks with what it knows, and carries the decision out.

use std::time::Duration;

use crate::instance::{Order, State, StopReason};

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

/// What the pool as a whole is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Suspended,
    /// Serves what it has accepted; then its instances stop.
    Retiring(StopReason),
}

/// How much a pool has to do, and what with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) phase: Phase,
    /// Instances that are parked.
    pub(super) parked: usize,
    /// Instances in all.
    pub(super) instances: usize,
    /// Callers that wait.
    pub(super) waiting: usize,
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

/// Whose turn it is among the requests that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// A caller's, who waits for the answer.
    Caller,
    /// Waiting work's: an asynchronous invocation.
    Work,
}

/// The requests that wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Callers that wait.
    pub(super) callers: usize,
    /// Waiting work that waits for an instance.
    pub(super) work: usize,
    /// Callers that got an instance while work waited, since work last got one.
    pub(super) callers_since_work: u32,
}

/// So many callers get an instance before waiting work gets one, if both wait.
const CALLERS_BEFORE_WORK: u32 = 3;

/// Decides who comes next when both wait: callers, but every fourth turn is waiting work's, so that it is never starved. A
/// function that can run one request at a time always serves its callers first.
pub(super) fn turn(line: Line, bounds: Bounds) -> Option<Turn> {
    let is_single = bounds.instances_max == 1 && bounds.concurrency == 1;
    match (line.callers, line.work) {
        (0, 0) => None,
        (_, 0) => Some(Turn::Caller),
        (0, _) => Some(Turn::Work),
        (_, _) if !is_single && line.callers_since_work >= CALLERS_BEFORE_WORK => Some(Turn::Work),
        (_, _) => Some(Turn::Caller),
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

/// Decides about one request, given the awake instances.
pub(super) fn decide(awake: impl Iterator<Item = Seat>, load: Load, bounds: Bounds) -> Decision {
    let wait = || if load.waiting < bounds.queue_depth as usize { Decision::Wait } else { Decision::Refuse };
    if load.phase == Phase::Suspended {
        return wait();
    }
    let best = awake
        .enumerate()
        .filter(|(_, seat)| seat.has_room(bounds))
        .filter_map(|(index, seat)| preference(seat.state).map(|preference| (index, seat, preference)))
        // Of equals the fullest is taken, so that the others come to rest.
        .min_by_key(|(_, seat, preference)| (*preference, std::cmp::Reverse(seat.in_flight)));
    match best {
        Some((index, _, Preference::Active)) => Decision::Lend(index),
        Some(_) | None if load.parked > 0 => Decision::Thaw,
        Some((index, _, Preference::Starting | Preference::Freezing)) => Decision::Lend(index),
        None if load.instances < bounds.instances_max as usize => Decision::Start,
        None => wait(),
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

/// An instance that came to rest, as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Whether it was suspended; else it was parked.
    pub(super) suspended: bool,
    /// Requests it was given and has not answered.
    pub(super) in_flight: u32,
    /// The newest order that it was given.
    pub(super) order: Order,
}

/// What becomes of an instance that came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settling {
    /// It stays at rest.
    Rest,
    /// Something came meanwhile: it is woken again.
    Wake,
    /// It is woken to stop.
    Stop(StopReason),
}

/// Decides about an instance that came to rest while so many requests wait.
pub(super) fn settle(arrival: Arrival, phase: Phase, waiting: usize) -> Settling {
    if let Some(reason) = stop_when_done(phase, arrival.in_flight) {
        return Settling::Stop(reason);
    }
    let wanted = match (arrival.suspended, arrival.order) {
        (_, Order::Stop(_) | Order::CutOff(_)) => true,
        (true, order) => order != Order::Suspend,
        (false, _) => arrival.in_flight > 0 || (waiting > 0 && phase != Phase::Suspended),
    };
    if wanted { Settling::Wake } else { Settling::Rest }
}

/// Why an awake instance with so many requests in flight must stop, when nobody waits for one.
pub(super) fn stop_when_done(phase: Phase, in_flight: u32) -> Option<StopReason> {
    match phase {
        Phase::Retiring(reason) if in_flight == 0 => Some(reason),
        Phase::Retiring(_) | Phase::Open | Phase::Suspended => None,
    }
}

/// What the catalog wants of a pool whose revision has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whether an operator suspended the function.
    pub suspended: bool,
    /// Instances that are kept even when nobody calls.
    pub instances_min: u32,
    /// The name that instances give as their version: a number, or `LATEST`.
    pub version: std::sync::Arc<str>,
}

/// How a pool becomes what the catalog wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Suspend,
    Resume,
    Retire(StopReason),
}

/// How long to wait before instances that are always kept are started again, after `failures` in a row that were not
/// ready when they ended: a second, then twice as long each time, up to a minute. `drawn`, from 0 to 1, spreads the
/// restarts of many functions.
pub(super) fn restart_wait(failures: u32, drawn: f64) -> Duration {
    let doubled = Duration::from_secs(1 << failures.saturating_sub(1).min(6)).min(Duration::from_secs(60));
    doubled.mul_f64(0.75 + drawn / 2.0)
}

/// From so many failures in a row on, they are the function's state.
pub(super) const FAILURES_TOLD: u32 = 3;

/// Compares a pool with what the catalog wants of it, or with why it wants it no more; none: it is as it should be.
pub(super) fn follow(phase: Phase, wanted: Result<&Wanted, StopReason>) -> Option<Change> {
    match (phase, wanted) {
        // A revision that lost its last name never gets one again, and a host that drains starts nothing new.
        (Phase::Retiring(_), _) => None,
        (Phase::Open | Phase::Suspended, Err(reason)) => Some(Change::Retire(reason)),
        (Phase::Open, Ok(wanted)) => wanted.suspended.then_some(Change::Suspend),
        (Phase::Suspended, Ok(wanted)) => (!wanted.suspended).then_some(Change::Resume),
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
            match decide(awake.iter().copied(), Load { phase: Phase::Open, parked, instances, waiting }, bounds) {
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
    fn callers_come_first_and_waiting_work_is_not_starved() {
        let bounds =
            |instances_max, concurrency| Bounds { concurrency, requests_max: None, instances_max, queue_depth: 9 };
        let of = |callers, work, since, bounds| turn(Line { callers, work, callers_since_work: since }, bounds);
        assert_eq!(of(0, 0, 0, bounds(9, 9)), None);
        assert_eq!(of(0, 3, 0, bounds(9, 9)), Some(Turn::Work));
        assert_eq!(of(1, 0, 9, bounds(9, 9)), Some(Turn::Caller));
        for (instances, concurrency) in [(2, 1), (1, 3), (10, 10)] {
            let turns = [0, 2, 3].map(|since| of(1, 1, since, bounds(instances, concurrency)));
            assert_eq!(turns, [Some(Turn::Caller), Some(Turn::Caller), Some(Turn::Work)], "{instances} {concurrency}");
        }
        assert_eq!(of(1, 1, 1000, bounds(1, 1)), Some(Turn::Caller));
    }

    #[test]
    fn the_order_is_active_parked_starting_freezing_new() {
        let bounds = Bounds { concurrency: 1, requests_max: None, instances_max: 9, queue_depth: 1 };
        let seat = |state| Seat { state, in_flight: 0, given: 0 };
        let load = |parked, instances| Load { phase: Phase::Open, parked, instances, waiting: 0 };
        let all = [seat(State::Freezing), seat(State::Starting), seat(State::Active)];
        assert_eq!(decide(all.iter().copied(), load(1, 4), bounds), Decision::Lend(2));
        assert_eq!(decide(all[..2].iter().copied(), load(1, 3), bounds), Decision::Thaw);
        assert_eq!(decide(all[..2].iter().copied(), load(0, 2), bounds), Decision::Lend(1));
        assert_eq!(decide(all[..1].iter().copied(), load(0, 1), bounds), Decision::Lend(0));
        assert_eq!(decide([].into_iter(), load(0, 0), bounds), Decision::Start);
    }

    const REASON: StopReason = StopReason::Updated;
    const PHASES: [Phase; 3] = [Phase::Open, Phase::Suspended, Phase::Retiring(REASON)];

    #[test]
    fn a_suspended_pool_lets_requests_wait_up_to_its_bound() {
        let bounds = Bounds { concurrency: 1, requests_max: None, instances_max: 9, queue_depth: 2 };
        let decided = |waiting| {
            decide([].into_iter(), Load { phase: Phase::Suspended, parked: 3, instances: 3, waiting }, bounds)
        };
        assert_eq!([0, 1, 2].map(decided), [Decision::Wait, Decision::Wait, Decision::Refuse]);
    }

    /// Columns: open, suspended, retiring. Rows: how it rests, its requests in flight, its order, whether others wait.
    const SETTLED: &str = "\
parked 0 run -:         rest rest stop
parked 0 run waiting:   wake rest stop
parked 0 suspend -:     rest rest stop
parked 0 suspend waiting: wake rest stop
parked 0 stop -:        wake wake stop
parked 0 stop waiting:  wake wake stop
parked 1 run -:         wake wake wake
parked 1 run waiting:   wake wake wake
parked 1 suspend -:     wake wake wake
parked 1 suspend waiting: wake wake wake
parked 1 stop -:        wake wake wake
parked 1 stop waiting:  wake wake wake
suspended 0 run -:      wake wake stop
suspended 0 run waiting: wake wake stop
suspended 0 suspend -:  rest rest stop
suspended 0 suspend waiting: rest rest stop
suspended 0 stop -:     wake wake stop
suspended 0 stop waiting: wake wake stop
suspended 1 run -:      wake wake wake
suspended 1 run waiting: wake wake wake
suspended 1 suspend -:  rest rest rest
suspended 1 suspend waiting: rest rest rest
suspended 1 stop -:     wake wake wake
suspended 1 stop waiting: wake wake wake
";

    #[test]
    fn what_becomes_of_an_instance_at_rest_is_in_the_table() {
        let orders = [("run", Order::Run), ("suspend", Order::Suspend), ("stop", Order::Stop(StopReason::Operator))];
        let mut printed = String::new();
        for (suspended, in_flight) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
            for (name, order) in orders {
                for (waiting, wait) in [(0, "-"), (1, "waiting")] {
                    let arrival = Arrival { suspended, in_flight, order };
                    let settled = PHASES.map(|phase| match settle(arrival, phase, waiting) {
                        Settling::Rest => "rest",
                        Settling::Wake => "wake",
                        Settling::Stop(_) => "stop",
                    });
                    let how = if suspended { "suspended" } else { "parked" };
                    let row = format!("{how} {in_flight} {name} {wait}:");
                    printed += &format!("{row:<23} {}\n", settled.join(" "));
                }
            }
        }
        assert_eq!(printed, SETTLED);
    }

    #[test]
    fn a_pool_becomes_what_the_catalog_wants_from_wherever_it_is() {
        let wanted = |suspended| Wanted { suspended, instances_min: 0, version: "1".into() };
        let (running, suspended) = (wanted(false), wanted(true));
        let changes = |wanted| PHASES.map(|phase| follow(phase, wanted));
        assert_eq!(changes(Ok(&running)), [None, Some(Change::Resume), None]);
        assert_eq!(changes(Ok(&suspended)), [Some(Change::Suspend), None, None]);
        let retired = Some(Change::Retire(REASON));
        assert_eq!(changes(Err(REASON)), [retired, retired, None]);
    }

    #[test]
    fn waits_between_restarts_grow_to_a_minute() {
        let waits: Vec<u64> = (0..10).map(|failures| restart_wait(failures, 0.5).as_secs()).collect();
        assert_eq!(waits, [1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(restart_wait(1, 0.0), Duration::from_millis(750));
        assert_eq!(restart_wait(u32::MAX, 1.0), Duration::from_secs(75));
    }
}
