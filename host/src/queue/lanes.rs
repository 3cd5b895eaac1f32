//! Which lane comes next: each that has work due in turn, so that one function's million events make no other wait. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use super::invocation::{LaneId, LaneKey};
use crate::ids::FunctionName;

/// Attempts that begin in one step of a lane.
const STEP_MAX: usize = 16;

/// The lanes that have work or had some.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<LaneId, Lane>,
    /// Those that may have work due, in the order of their turns.
    turns: VecDeque<LaneId>,
    /// Attempts that run, in all lanes, and those of each function.
    running: usize,
    of_function: HashMap<FunctionName, usize>,
    /// Lanes that could run more, but their functions have their shares.
    for_share: Vec<LaneId>,
}

struct Lane {
    key: LaneKey,
    /// When the next one is due; none: none waits.
    due: Option<SystemTime>,
    running: usize,
    /// Work is being taken out of it.
    is_claimed: bool,
    /// Work came in meanwhile.
    came: Option<SystemTime>,
    /// It has a turn.
    has_turn: bool,
    /// Nothing of it can begin before then, as far as is known.
    rests_until: Option<SystemTime>,
}

/// A lane whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) lane: LaneId,
    pub(super) key: LaneKey,
    /// How many attempts may begin.
    pub(super) limit: usize,
    /// Only what was due by then is taken out.
    pub(super) due_by: SystemTime,
}

/// What a lane may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Run so many attempts at once.
    For(usize),
    /// Nothing but letting those expire that were due by then.
    OnlyExpired(SystemTime),
}

/// How often a lane is looked at whose function takes no work.
const BLOCKED_LOOK: Duration = Duration::from_secs(5);

fn earlier(one: Option<SystemTime>, other: Option<SystemTime>) -> Option<SystemTime> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Lanes {
    /// Notes that something in a lane is due then.
    pub(super) fn due(&mut self, id: LaneId, key: &LaneKey, at: SystemTime) {
        let lane = self.lanes.entry(id).or_insert_with(|| Lane {
            key: key.clone(),
            due: None,
            running: 0,
            is_claimed: false,
            came: None,
            has_turn: false,
            rests_until: None,
        });
        if lane.is_claimed {
            lane.came = earlier(lane.came, Some(at));
        } else {
            lane.due = earlier(lane.due, Some(at));
        }
        self.give_turn(id);
    }

    /// The next lane with work due and room for it, as `room_of` says; at most `max` attempts run in all. Else when to look
    /// again, if something waits for its time.
    pub(super) fn next(
        &mut self,
        now: SystemTime,
        max: usize,
        mut room_of: impl FnMut(&LaneKey) -> Room,
    ) -> Result<Turn, Option<SystemTime>> {
        let free = max.saturating_sub(self.running);
        if free == 0 {
            return Err(None); // An attempt that ends brings the next look.
        }
        let mut soonest = None;
        for _ in 0..self.turns.len() {
            let Some(id) = self.turns.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let Some(due) = lane.due.filter(|_| !lane.is_claimed) else {
                // It gets another turn when something comes, or the claim ends.
                lane.has_turn = false;
                self.forget_if_empty(id);
                continue;
            };
            let looked_at = lane.rests_until.map_or(due, |until| until.max(due));
            if looked_at > now {
                self.turns.push_back(id);
                soonest = earlier(soonest, Some(looked_at));
                continue;
            }
            let (limit, due_by) = match room_of(&lane.key) {
                Room::For(attempts) => (attempts.saturating_sub(lane.running), now),
                Room::OnlyExpired(by) if due <= by => (STEP_MAX, by),
                Room::OnlyExpired(_) => {
                    lane.rests_until = Some(now + BLOCKED_LOOK);
                    self.turns.push_back(id);
                    soonest = earlier(soonest, lane.rests_until);
                    continue;
                }
            };
            // As many as are free go to others, so that one function with slow events leaves room for theirs, two leave some,
            // and so on.
            let own = self.of_function.get(&lane.key.function).copied().unwrap_or_default();
            let share = (free + own).div_ceil(2).saturating_sub(own);
            let limit = limit.min(share).min(STEP_MAX);
            if limit == 0 {
                lane.has_turn = false; // It gets another one when an attempt ends: of its own, or one that frees a share.
                if share == 0 {
                    self.for_share.push(id);
                }
                continue;
            }
            self.turns.push_back(id);
            *self.of_function.entry(lane.key.function.clone()).or_default() += limit;
            lane.is_claimed = true;
            lane.running += limit;
            self.running += limit;
            return Ok(Turn { lane: id, key: lane.key.clone(), limit, due_by });
        }
        Err(soonest)
    }

    /// The claim of a turn ended: so few began, and the next one is due then.
    pub(super) fn claimed(&mut self, turn: &Turn, began: usize, next: Option<SystemTime>) {
        let Some(lane) = self.lanes.get_mut(&turn.lane) else { return };
        lane.is_claimed = false;
        lane.due = earlier(next, lane.came.take());
        let unused = turn.limit - began;
        lane.running -= unused;
        self.running -= unused;
        self.release(&turn.key.function, unused);
        self.give_turn(turn.lane);
        self.forget_if_empty(turn.lane);
    }

    /// An attempt ended; what it was at is due again then, if at all.
    pub(super) fn ended(&mut self, id: LaneId, again: Option<SystemTime>) {
        self.running = self.running.saturating_sub(1);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.running = lane.running.saturating_sub(1);
        let key = lane.key.clone();
        self.release(&key.function, 1);
        if let Some(at) = again {
            self.due(id, &key, at);
        }
        self.give_turn(id);
        self.forget_if_empty(id);
    }

    /// A function has so many attempts less. Whoever waited for a share gets another turn.
    fn release(&mut self, function: &FunctionName, count: usize) {
        if count == 0 {
            return;
        }
        if let Some(running) = self.of_function.get_mut(function) {
            *running = running.saturating_sub(count);
            if *running == 0 {
                self.of_function.remove(function);
            }
        }
        std::mem::take(&mut self.for_share).into_iter().for_each(|id| self.give_turn(id));
    }

    /// Looks at all lanes again: what a function may do has changed.
    pub(super) fn look_again(&mut self) {
        let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
        for id in ids {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.rests_until = None;
            }
            self.give_turn(id);
        }
    }

    fn give_turn(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id)
            && lane.due.is_some()
            && !lane.has_turn
        {
            lane.has_turn = true;
            self.turns.push_back(id);
        }
    }

    fn forget_if_empty(&mut self, id: LaneId) {
        let is_empty = |lane: &Lane| lane.running == 0 && lane.due.is_none() && !lane.is_claimed && !lane.has_turn;
        if self.lanes.get(&id).is_some_and(is_empty) {
            self.lanes.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(name: &str) -> LaneKey {
        LaneKey { function: name.parse().unwrap(), qualifier: None, url: None }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    const A: LaneId = LaneId(1);
    const B: LaneId = LaneId(2);

    #[test]
    fn lanes_take_turns_however_much_is_in_one() {
        let mut lanes = Lanes::default();
        lanes.due(A, &key("a"), at(1));
        lanes.due(B, &key("b"), at(5));
        let mut order = Vec::new();
        for _ in 0..6 {
            let turn = lanes.next(at(9), 1, |_| Room::For(100)).unwrap();
            order.push(turn.lane);
            // A million more wait in A, and some in B.
            lanes.claimed(&turn, 1, Some(at(2)));
            assert_eq!(lanes.next(at(9), 1, |_| Room::For(100)), Err(None), "as many run as may");
            lanes.ended(turn.lane, None);
        }
        assert_eq!(order, [A, B, A, B, A, B]);
    }

    #[test]
    fn one_function_with_slow_events_leaves_room_for_others() {
        let mut lanes = Lanes::default();
        let begin = |lanes: &mut Lanes, max| match lanes.next(at(9), max, |_| Room::For(1000)) {
            Ok(turn) => {
                lanes.claimed(&turn, turn.limit, Some(at(1)));
                Some(turn)
            }
            Err(_) => None,
        };
        lanes.due(A, &key("a"), at(1));
        let of_a: usize = std::iter::from_fn(|| begin(&mut lanes, 64)).map(|turn| turn.limit).sum();
        assert_eq!(of_a, 32, "half of what may run");
        lanes.due(B, &key("b"), at(1));
        let of_b: usize = std::iter::from_fn(|| begin(&mut lanes, 64)).map(|turn| turn.limit).sum();
        assert_eq!(of_b, 16, "half of what is left");
        lanes.ended(A, Some(at(1)));
        assert!(begin(&mut lanes, 64).is_some(), "what is free again is shared anew");
    }

    #[test]
    fn nothing_begins_before_it_is_due_or_beyond_the_bounds() {
        let mut lanes = Lanes::default();
        lanes.due(A, &key("a"), at(10));
        assert_eq!(lanes.next(at(9), 9, |_| Room::For(9)), Err(Some(at(10))));
        let turn = lanes.next(at(10), 9, |_| Room::For(3)).unwrap();
        assert_eq!(turn.limit, 3);
        lanes.due(A, &key("a"), at(11));
        assert_eq!(lanes.next(at(20), 9, |_| Room::For(9)), Err(None), "it is being claimed");
        lanes.claimed(&turn, 1, None);
        let turn = lanes.next(at(20), 9, |_| Room::For(3)).expect("what came meanwhile is due");
        assert_eq!(turn.limit, 2, "one runs");
        lanes.claimed(&turn, 2, None);
        assert_eq!(lanes.next(at(20), 9, |_| Room::For(9)), Err(None));
        lanes.ended(A, Some(at(30)));
        assert_eq!(lanes.next(at(20), 9, |_| Room::For(9)), Err(Some(at(30))));
        lanes.ended(A, None);
        lanes.ended(A, None);
        assert_eq!(lanes.running, 0);
    }

    #[test]
    fn where_nothing_can_run_only_what_is_too_old_comes_out_and_an_empty_lane_is_forgotten() {
        let mut lanes = Lanes::default();
        lanes.due(A, &key("a"), at(10));
        let look = |lanes: &mut Lanes, now, by| lanes.next(at(now), 9, |_| Room::OnlyExpired(at(by)));
        assert_eq!(look(&mut lanes, 20, 9), Err(Some(at(25))));
        assert_eq!(look(&mut lanes, 24, 10), Err(Some(at(25))), "it rests");
        lanes.look_again();
        assert_eq!(look(&mut lanes, 24, 9), Err(Some(at(29))), "it was looked at");
        let turn = look(&mut lanes, 29, 10).unwrap();
        assert_eq!((turn.limit, turn.due_by), (5, at(10)));
        lanes.claimed(&turn, 0, None);
        assert_eq!(look(&mut lanes, 29, 10), Err(None));
        assert!(lanes.lanes.is_empty() && lanes.turns.is_empty());
    }
}
