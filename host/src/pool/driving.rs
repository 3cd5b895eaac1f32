//! Running an awake instance. It has no task of its own: whoever brings something for it runs it on the spot.
//!
//! A caller runs the instance until it has its answer, so that a request passes from no task to another. What is left
//! then, such as pre-freeze or a guest that waits for something, goes on in tasks of one turn each, started whenever
//! something wakes the instance. Guests that compute have their turns on other threads (`compute.rs`). [`Turn`] sees to
//! it that only one runs an instance at a time and that no wake is lost.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use tokio::time::timeout;

use super::inside::{Inside, Phase};
use super::lot::Resting;
use super::pool::Pool;
use crate::ids::InstanceId;
use crate::instance::{Clock, Inbox, Instance, Job, Order, Outcome, Report, State, Timings};

/// An awake instance, and who runs it.
pub(super) struct Driven {
    id: InstanceId,
    inbox: Arc<Inbox>,
    pool: Pool,
    turn: Turn,
    /// None while somebody runs it, before it has a place on the host, and after it came to rest or went.
    instance: Mutex<Option<Box<Instance>>>,
}

impl Driven {
    /// An instance that nobody runs yet, because it has no place.
    pub(super) fn new(pool: &Pool, instance: &Instance) -> Arc<Driven> {
        Arc::new(Driven {
            id: instance.id(),
            inbox: instance.inbox(),
            pool: pool.clone(),
            turn: Turn::default(),
            instance: Mutex::new(None),
        })
    }

    /// Lets it be run from now on.
    pub(super) fn admit(&self, instance: Box<Instance>) {
        *self.lock() = Some(instance);
    }

    /// Waits until the host has room for a new instance. If it has none, its requests are told so.
    pub(super) async fn find_place(self: Arc<Self>, instance: Box<Instance>) {
        let ground = self.pool.0.ground.clone();
        let place = ground.find_place(self.pool.maps_per_instance());
        if let Some(place) = timeout(self.pool.0.settings.queue_timeout, place).await.ok().flatten() {
            if let Some(seated) = self.pool.lock().find(self.id) {
                seated.place = Some(place);
            }
            self.admit(instance);
            return self.run(None);
        }
        let seated = self.pool.lock().take(self.id);
        drop(seated);
        while let Some(job) = self.inbox.take() {
            let timings = Timings { start: job.assigned.elapsed(), ..Timings::default() };
            self.pool.count("host-full");
            job.answer(Outcome::HostFull, timings);
        }
        self.pool.serve_waiting();
    }

    /// Runs the instance for whoever asks: here, until the request `own` is answered or waits, unless it takes long.
    pub(super) fn run(self: &Arc<Self>, own: Option<u64>) {
        if self.pool.0.pace.is_long() {
            self.wake_by_ref();
        } else {
            self.run_here(own, Clock::Wall);
        }
    }

    /// Runs the instance on a thread for guests that compute.
    pub(super) fn compute(self: &Arc<Self>) {
        self.run_here(None, Clock::Cpu);
    }

    /// Runs the instance, unless somebody else does.
    fn run_here(self: &Arc<Self>, own: Option<u64>, clock: Clock) {
        if !self.turn.begin() {
            return;
        }
        let ran = catch_unwind(AssertUnwindSafe(|| self.run_turn(own, clock)));
        let left = ran.unwrap_or_else(|_| {
            // A fault of the engine or of the host. The instance went with it; its seat must not stay taken.
            self.gone();
            Left::Nothing
        });
        if left == Left::Something {
            self.turn.want();
        }
        if self.turn.end() {
            self.start_turn(left == Left::Computation);
        }
    }

    fn run_turn(self: &Arc<Self>, own: Option<u64>, clock: Clock) -> Left {
        let Some(mut instance) = self.lock().take() else { return Left::Nothing };
        let mut left = Left::Nothing;
        let waker = Waker::from(self.clone());
        let mut cx = Context::from_waker(&waker);
        while let Poll::Ready(report) = instance.poll_next(&mut cx, clock) {
            self.pool.0.pace.note(instance.take_longest_run());
            match report {
                Report::Moved(State::Parked | State::Suspended) => match self.settle(instance) {
                    Some(woken) => instance = woken,
                    None => return Left::Nothing,
                },
                Report::Moved(state) => self.moved(state, &instance),
                Report::Answered(answered) => {
                    let was_own = own == Some(answered.ticket());
                    self.answered(instance.state());
                    self.pool.count(answered.code());
                    answered.send();
                    // The answer must not wait for pre-freeze or for the next caller's request, and other functions not for
                    // all requests of this one.
                    let others_first = was_own || clock == Clock::Cpu;
                    if instance.has_more_to_do() || (others_first && self.inbox.has_jobs()) {
                        left = Left::Something;
                        break;
                    }
                }
                Report::Bounced(job) => self.bounced(job, instance.state()),
                Report::Stopped(answers) => {
                    drop(instance);
                    self.gone();
                    for answered in answers {
                        self.pool.count(answered.code());
                        answered.send();
                    }
                    return Left::Nothing;
                }
            }
        }
        self.pool.0.pace.note(instance.take_longest_run());
        if instance.is_preempted() {
            left = Left::Computation;
        }
        self.admit(instance);
        left
    }

    /// Starts another turn, of a guest that is in the middle of a computation or of any other.
    fn start_turn(self: &Arc<Self>, computes: bool) {
        let (driven, ground) = (self.clone(), &self.pool.0.ground);
        if computes || self.pool.0.pace.is_long() {
            ground.compute.push(Arc::as_ptr(&self.pool.0).addr(), driven);
        } else {
            ground.spawn(async move { driven.run_here(None, Clock::Wall) });
        }
    }

    fn moved(&self, state: State, instance: &Instance) {
        let mut inside = self.pool.lock();
        if let Some(seated) = inside.find(self.id) {
            seated.moved(state, instance.now());
        }
        self.look_for_work(inside);
    }

    fn answered(&self, state: State) {
        let mut inside = self.pool.lock();
        if let Some(seated) = inside.find(self.id) {
            // Its report comes later; who asks because of this answer must not find it active.
            seated.state = state;
            seated.in_flight = seated.in_flight.saturating_sub(1);
        }
        self.look_for_work(inside);
    }

    fn bounced(&self, job: Box<Job>, state: State) {
        self.pool.take_back(std::iter::once(job));
        self.answered(state);
    }

    /// Takes waiting requests; an instance of a retiring pool that finds none goes.
    fn look_for_work(&self, mut inside: MutexGuard<'_, Inside>) {
        if !inside.waiting.is_empty() {
            drop(inside);
            return self.pool.serve_waiting();
        }
        if let Phase::Retiring(reason) = inside.phase
            && let Some(seated) = inside.find(self.id)
            && seated.in_flight == 0
        {
            seated.order(Order::Stop(reason));
        }
    }

    /// Puts an instance that came to rest into the lot, unless it is wanted already.
    fn settle(&self, mut instance: Box<Instance>) -> Option<Box<Instance>> {
        let mut inside = self.pool.lock();
        let phase = inside.phase;
        let waiting = !inside.waiting.is_empty();
        let Some(mut seated) = inside.take(self.id) else { return Some(instance) };
        if let Phase::Retiring(reason) = phase
            && seated.in_flight == 0
        {
            seated.inbox.order(Order::Stop(reason));
        }
        let suspended = instance.state() == State::Suspended;
        let order = seated.inbox.current_order();
        let wanted = if suspended {
            order != Order::Suspend
        } else {
            seated.in_flight > 0 || matches!(order, Order::Stop(_)) || (waiting && phase != Phase::Suspended)
        };
        if wanted {
            instance.wake();
            seated.state = instance.state();
            inside.awake.push(seated);
            drop(inside);
            self.pool.serve_waiting();
            return Some(instance);
        }
        let since = instance.now();
        seated.moved(instance.state(), since);
        seated.driven = None;
        let resting = Resting { instance, seated, since };
        if suspended {
            inside.lot.suspend(resting);
        } else {
            inside.lot.park(resting);
        }
        drop(inside);
        if !suspended {
            self.pool.0.ground.reaper.expect(since + self.pool.0.settings.idle_timeout);
        }
        None
    }

    /// The instance is gone. What it had been given and not begun goes elsewhere.
    fn gone(&self) {
        let seated = self.pool.lock().take(self.id);
        drop(seated); // Its place on the host may be needed for what it leaves.
        let left: VecDeque<_> = std::iter::from_fn(|| self.inbox.take()).collect();
        self.pool.take_back(left.into_iter());
        self.pool.serve_waiting();
        self.pool.keep_minimum_soon();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Instance>>> {
        self.instance.lock().expect("no holder of this lock panics")
    }
}

impl Wake for Driven {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.turn.want() {
            self.start_turn(false);
        }
    }
}

/// What a turn left to do at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Something,
    /// The guest used up its slice.
    Computation,
}

/// Who runs an instance: nobody, somebody, or a task that was started for it.
#[derive(Default)]
struct Turn(AtomicU8);

impl Turn {
    const NOBODYS: u8 = 0;
    /// A task was started that will run it.
    const COMING: u8 = 1;
    const TAKEN: u8 = 2;
    /// Taken, and something came meanwhile that may need another turn.
    const TAKEN_AND_WANTED: u8 = 3;

    /// Takes the turn. False: somebody has it, and will see to it that there is another.
    fn begin(&self) -> bool {
        // The task that is coming, if there is one, finds nothing to do, or what came meanwhile.
        self.change(|turn| match turn {
            Self::NOBODYS | Self::COMING => Self::TAKEN,
            _ => Self::TAKEN_AND_WANTED,
        }) < Self::TAKEN
    }

    /// Ends the turn. True: there must be another, and a task for it.
    fn end(&self) -> bool {
        self.change(|turn| if turn == Self::TAKEN_AND_WANTED { Self::COMING } else { Self::NOBODYS })
            == Self::TAKEN_AND_WANTED
    }

    /// Asks for a turn, or for another from within one. True: a task must be started for it.
    fn want(&self) -> bool {
        self.change(|turn| match turn {
            Self::NOBODYS | Self::COMING => Self::COMING,
            _ => Self::TAKEN_AND_WANTED,
        }) == Self::NOBODYS
    }

    /// Returns the turn as it was. What one turn wrote, the next one sees.
    fn change(&self, next: impl Fn(u8) -> u8) -> u8 {
        let changed = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |turn| Some(next(turn)));
        changed.unwrap_or_else(|turn| turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_the_turn_and_whoever_comes_meanwhile_is_not_forgotten() {
        let turn = Turn::default();
        assert!(turn.begin(), "nobody has it");
        assert!(!turn.begin(), "it is taken");
        assert!(turn.end(), "somebody came meanwhile");
        assert!(turn.begin(), "before the task that was started for it");
        assert!(!turn.want(), "whoever has it will see");
        assert!(turn.end());
        assert!(!turn.want(), "a task is coming already");
        assert!(turn.begin());
        assert!(!turn.end(), "nothing came");
        assert!(turn.want(), "a task must be started");
    }
}
