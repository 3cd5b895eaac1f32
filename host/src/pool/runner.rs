//! Running an awake instance. It has no task of its own: whoever brings something for it runs it on the spot.
//!
//! A caller runs the instance until it has its answer, so that a request passes from no task to another. What is left
//! then, such as pre-freeze or a guest that waits for something, goes on in tasks of one turn each, started whenever
//! something wakes the instance. Guests that compute have their turns on other threads (`compute.rs`).
//!
//! Two threads must never run an instance at once, and something that comes while one runs it must not be forgotten:
//! the thread that has the turn may have looked at the mailbox already. So whoever comes during a turn leaves a note in
//! [`Turn`]. Whoever has the turn takes the note and looks again, or ends the turn with the note in it and starts another.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use tokio::time::Instant;

use super::compute::Pace;
use super::context::Context;
use crate::ids::InstanceId;
use crate::instance::{Answered, Clock, Ended, Inbox, Instance, Job, Report, State};

/// Memory that is given back to the kernel on the spot. More takes it milliseconds, so that is done on another thread,
/// after the answers.
const QUICKLY_FREED_BYTES_MAX: u64 = 32 << 20;

/// Whose an instance is: it learns what the instance reports. A trait, so that runners know nothing of pools, which know
/// runners.
pub(super) trait Owner: Send + Sync {
    /// Tells functions apart where they take turns.
    fn line(&self) -> usize;
    /// How long the function's guests run at a time.
    fn pace(&self) -> &Pace;
    /// The instance is in another state.
    fn moved(&self, id: InstanceId, state: State, now: Instant);
    /// A request of it was answered, and it is in this state now.
    fn answered(&self, id: InstanceId, state: State, now: Instant, ended: Ended);
    /// It does not run this job, and is in this state now.
    fn bounced(&self, job: Box<Job>, id: InstanceId, state: State, now: Instant);
    /// It came to rest; it is given back if it is wanted again at once.
    fn settled(&self, instance: Box<Instance>) -> Option<Box<Instance>>;
    /// It is gone.
    fn gone(&self, id: InstanceId);
    /// Counts a request that was answered with its instance's end.
    fn count(&self, ended: Ended);
}

/// An awake instance, and who runs it.
pub(super) struct Runner {
    id: InstanceId,
    inbox: Arc<Inbox>,
    owner: Arc<dyn Owner>,
    context: Context,
    turn: Turn,
    /// None while somebody runs it, before it has a share of the host's capacity, and after it came to rest or went.
    instance: Mutex<Option<Box<Instance>>>,
}

impl Runner {
    /// A runner of an instance that may not run yet, because the host has no room for it.
    pub(super) fn new(instance: &Instance, owner: Arc<dyn Owner>, context: Context) -> Arc<Runner> {
        Arc::new(Runner {
            id: instance.id(),
            inbox: instance.inbox(),
            owner,
            context,
            turn: Turn::default(),
            instance: Mutex::new(None),
        })
    }

    /// Lets the instance be run from now on.
    pub(super) fn admit(&self, instance: Box<Instance>) {
        *self.lock() = Some(instance);
    }

    /// Runs the instance for whoever asks: here, until the request `own` is answered or waits, unless it takes long.
    pub(super) fn run(self: &Arc<Self>, own: Option<u64>) {
        if self.owner.pace().is_long() {
            self.wake();
        } else {
            self.run_here(own, Clock::Wall);
        }
    }

    /// Sees to it that the instance is run soon, by another task.
    pub(super) fn wake(self: &Arc<Self>) {
        if self.turn.want() {
            self.start_turn(false);
        }
    }

    /// Runs the instance, unless somebody else does.
    fn run_here(self: &Arc<Self>, own: Option<u64>, clock: Clock) {
        if !self.turn.begin() {
            return;
        }
        let ran = catch_unwind(AssertUnwindSafe(|| self.run_turn(own, clock)));
        let left = ran.unwrap_or_else(|_| {
            // A fault of the engine or of the host. The instance went with it; its entry must not stay.
            self.owner.gone(self.id);
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
        let owner = &self.owner;
        let mut left = Left::Nothing;
        let waker = Waker::from(self.clone());
        let mut cx = TaskContext::from_waker(&waker);
        while let Poll::Ready(report) = instance.poll_next(&mut cx, clock, &mut || self.turn.take_note()) {
            owner.pace().note(instance.take_longest_run());
            match report {
                Report::Moved(State::Parked | State::Suspended) => match owner.settled(instance) {
                    Some(woken) => instance = woken,
                    None => return Left::Nothing,
                },
                Report::Moved(state) => owner.moved(self.id, state, instance.now()),
                Report::Answered(answered) => {
                    let was_own = own == Some(answered.ticket());
                    owner.answered(self.id, instance.state(), instance.now(), answered.ended());
                    answered.send();
                    // The answer must not wait for pre-freeze or for the next caller's request, and other functions not for
                    // all requests of this one.
                    let others_first = was_own || clock == Clock::Cpu;
                    if instance.has_more_to_do() || (others_first && self.inbox.has_jobs()) {
                        left = Left::Something;
                        break;
                    }
                }
                Report::Bounced(job) => owner.bounced(job, self.id, instance.state(), instance.now()),
                Report::Stopped(answers) if instance.memory_bytes() > QUICKLY_FREED_BYTES_MAX => {
                    self.send(answers);
                    let runner = self.clone();
                    self.context.spawn_blocking(move || runner.free(instance));
                    return Left::Nothing;
                }
                Report::Stopped(answers) => {
                    self.free(instance);
                    self.send(answers);
                    return Left::Nothing;
                }
            }
        }
        owner.pace().note(instance.take_longest_run());
        if instance.is_preempted() {
            left = Left::Computation;
        }
        self.admit(instance);
        left
    }

    fn send(&self, answers: Vec<Answered>) {
        for answered in answers {
            self.owner.count(answered.ended());
            answered.send();
        }
    }

    /// Drops the instance. Its share of the host's capacity is free when its memory is.
    fn free(&self, instance: Box<Instance>) {
        drop(instance);
        self.owner.gone(self.id);
    }

    /// Starts another turn, of a guest that is in the middle of a computation or of any other.
    fn start_turn(self: &Arc<Self>, computes: bool) {
        let runner = self.clone();
        if computes || self.owner.pace().is_long() {
            let token = self.context.tasks.token(); // What it posts must not come after the ledger was closed.
            self.context.compute.push(self.owner.line(), move || {
                runner.run_here(None, Clock::Cpu);
                drop(token);
            });
        } else {
            self.context.spawn(async move { runner.run_here(None, Clock::Wall) });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Instance>>> {
        self.instance.lock().expect("no holder of this lock panics")
    }
}

impl Wake for Runner {
    fn wake(self: Arc<Self>) {
        Runner::wake(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Runner::wake(self);
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

    /// Takes the note that something came during this turn: it is done in this one.
    fn take_note(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::TAKEN_AND_WANTED && self.change(|_| Self::TAKEN) != Self::TAKEN
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
        assert!(turn.begin() && !turn.take_note());
        assert!(!turn.want() && turn.take_note() && !turn.take_note(), "what came is done in this turn");
        assert!(!turn.end());
        assert!(turn.want(), "a task must be started");
    }
}
