//! [`Lane`]: a place for one at a time, where those in a hurry go first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

/// A place for one at a time; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Lane(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    taken: bool,
    urgent: VecDeque<oneshot::Sender<Turn>>,
    patient: VecDeque<oneshot::Sender<Turn>>,
}

/// How long one can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A request waits for it.
    Urgent,
    /// An operator does.
    Patient,
}

/// The place. Dropped, it goes to the next one.
pub(super) struct Turn(Lane);

impl Lane {
    /// Waits for the place. Whoever stops waiting holds nobody up.
    pub(super) async fn turn(&self, urgency: Urgency) -> Turn {
        let receiver = {
            let mut waiting = self.0.lock().expect("no holder of this lock panics");
            if !waiting.taken {
                waiting.taken = true;
                return Turn(self.clone());
            }
            let (sender, receiver) = oneshot::channel();
            match urgency {
                Urgency::Urgent => waiting.urgent.push_back(sender),
                Urgency::Patient => waiting.patient.push_back(sender),
            }
            receiver
        };
        receiver.await.expect("the lane has the sender until it sends")
    }

    /// The next one who waits; if there is none, the place is free.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut waiting = self.0.lock().expect("no holder of this lock panics");
        let next = waiting.urgent.pop_front().or_else(|| waiting.patient.pop_front());
        waiting.taken = next.is_some();
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        while let Some(next) = self.0.next() {
            match next.send(Turn(self.0.clone())) {
                Ok(()) => return,
                // That one stopped waiting; the turn that comes back is this one, which goes on looking.
                Err(turn) => std::mem::forget(turn),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn those_in_a_hurry_go_first_and_those_who_left_hold_nobody_up() {
        let lane = Lane::default();
        let first = lane.turn(Urgency::Patient).await;
        let mut patient = Box::pin(lane.turn(Urgency::Patient));
        let mut left = Box::pin(lane.turn(Urgency::Urgent));
        let mut urgent = Box::pin(lane.turn(Urgency::Urgent));
        for waiting in [&mut patient, &mut left, &mut urgent] {
            assert!(waiting.now_or_never().is_none(), "the place is taken");
        }
        drop(left);
        drop(first);
        assert!((&mut patient).now_or_never().is_none());
        let turn = urgent.now_or_never().expect("it goes first");
        drop(turn);
        drop(patient.now_or_never().expect("it is free"));
        assert!(lane.turn(Urgency::Patient).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_turn_that_came_too_late_goes_to_the_next_one() {
        let lane = Lane::default();
        let first = lane.turn(Urgency::Patient).await;
        let mut second = Box::pin(lane.turn(Urgency::Patient));
        let mut third = Box::pin(lane.turn(Urgency::Patient));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(first);
        drop(second); // It was given the place, and never looked.
        assert!(third.now_or_never().is_some());
    }
}
