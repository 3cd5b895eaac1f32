//! The driver: the one place that owns a guest while it is awake, polls it, and moves its state.
//!
//! [`Instance::poll_next`] runs until there is something to report. Each turn carries out what [`decide`] says, then lets
//! the guest run for at most one slice of the epoch, between two readings of the clock. A parked or suspended instance is
//! the same value left alone: it has no task, no timer and no open window.

mod calls;
mod ends;
mod rest;
mod turn;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::decide;
use super::inbox::Inbox;
use super::job::{Ended, Job, Outcome, Timings};
use super::lifecycle::{Event, State};
use super::order::StopReason;
use super::terms::{Terms, Vitals};
use crate::guest::{CallId, Entry, Guest, Preempted};
use crate::ids::{InstanceId, RequestId};
use crate::meter::WindowMeter;
use crate::traces::{Followed, HookSpan};

/// What the pool must know of an instance.
pub enum Report {
    /// It is in another state now. At `Parked` and `Suspended` it rests: leave it alone until it is woken.
    Moved(State),
    /// A request ended; send the answer once the instance counts as having room.
    Answered(Answered),
    /// A job that it will not run; find another instance.
    Bounced(Box<Job>),
    /// It is gone, and so are these requests. Drop it.
    Stopped(Vec<Answered>),
}

/// What tells how long the guest ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The monotonic clock: cheap, and right on a thread that is seldom interrupted.
    Wall,
    /// The thread's CPU clock, for long runs on a thread that gives way to others.
    Cpu,
}

/// A request and how it ended.
pub struct Answered {
    job: Box<Job>,
    outcome: Outcome,
    timings: Timings,
}

impl Answered {
    /// Sends the answer.
    pub fn send(self) {
        self.job.answer(self.outcome, self.timings);
    }

    /// The job's ticket.
    pub fn ticket(&self) -> u64 {
        self.job.ticket
    }

    /// What is counted of it.
    pub fn ended(&self) -> Ended {
        Ended { code: self.outcome.code(), start: Some(self.job.start), timings: self.timings }
    }
}

/// One instance of a function.
pub struct Instance {
    id: InstanceId,
    /// The same, for guests.
    id_text: Arc<str>,
    terms: Arc<Terms>,
    inbox: Arc<Inbox>,
    vitals: Arc<Vitals>,
    guest: Guest,
    state: State,
    /// Requests whose callers wait.
    running: Vec<Running>,
    /// Requests that timed out and whose calls still run.
    overdue: Vec<(CallId, RequestId)>,
    /// The hook that the instance waits for.
    hook: Option<HookCall>,
    /// A pre-freeze that nobody waits for any more, because it overran or a request came first.
    leftover: Option<CallId>,
    /// Whether pre-stop is still to be called: from the end of the initializer to the call.
    owes_pre_stop: bool,
    stop_reason: Option<StopReason>,
    /// The requests of the window that is open, or was the last one, as far as they are sampled.
    followed: Followed,
    meter: Option<WindowMeter>,
    windows: u32,
    calls: u64,
    /// When it was made: the points in time of a `decide::View` count from here.
    made: Instant,
    /// When it was made, or was last parked or suspended.
    since: Instant,
    /// When it must have started; none before the guest was first polled.
    start_deadline: Option<Instant>,
    /// The time. The clock is read once before and once after each poll of the guest; all else uses that reading.
    now: Instant,
    /// When the linger ends.
    linger_ends: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    reports: VecDeque<Report>,
    longest_run: Duration,
    /// The guest was polled since the task last waited and got nothing new, so polling it again would change nothing.
    settled: bool,
}

/// A request in the guest.
struct Running {
    call: CallId,
    job: Box<Job>,
    deadline: Instant,
    /// An operator stopped it: its deadline is over.
    is_stopped: bool,
    began: Instant,
    executed_before: Duration,
}

/// A hook under way.
struct HookCall {
    call: CallId,
    entry: Entry,
    request: RequestId,
    began: Instant,
    deadline: Instant,
    /// It began in an earlier freeze; this freeze's own call is still to come.
    earlier: bool,
    /// Its span, if a request that it follows is sampled.
    span: Option<Box<HookSpan>>,
}

impl Instance {
    /// A new instance that starts when it is first asked for its reports.
    pub fn new(terms: Arc<Terms>) -> Instance {
        let id = InstanceId::random();
        let now = Instant::now();
        Instance {
            id,
            id_text: id.to_string().into(),
            guest: Guest::new(terms.blueprint.clone(), id),
            terms,
            inbox: Arc::default(),
            vitals: Arc::default(),
            state: State::Starting,
            running: Vec::new(),
            overdue: Vec::new(),
            hook: None,
            leftover: None,
            owes_pre_stop: false,
            stop_reason: None,
            followed: Followed::default(),
            meter: None,
            windows: 0,
            calls: 0,
            made: now,
            since: now,
            start_deadline: None,
            now,
            linger_ends: None,
            timer: None,
            reports: VecDeque::new(),
            longest_run: Duration::ZERO,
            settled: false,
        }
    }

    /// The instance's identifier.
    pub fn id(&self) -> InstanceId {
        self.id
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its linear memory.
    pub fn memory_bytes(&self) -> u64 {
        self.guest.memory_bytes()
    }

    /// The time of its last turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Whether it has no request and, instead of waiting for one, goes on to pre-freeze or to its end.
    pub fn has_more_to_do(&self) -> bool {
        self.running.is_empty() && (self.terms.freeze_after.is_zero() || self.requests_left() == Some(0))
    }

    /// How many more requests it may begin; none if there is no limit.
    fn requests_left(&self) -> Option<u64> {
        self.terms.requests_max.map(|most| u64::from(most).saturating_sub(self.vitals.requests()))
    }

    /// The longest single poll of the guest since this was last called.
    pub fn take_longest_run(&mut self) -> Duration {
        std::mem::take(&mut self.longest_run)
    }

    /// Whether the guest used up its slice and has more to compute.
    pub fn is_preempted(&self) -> bool {
        self.guest.preempted() != Preempted::No
    }

    /// Where its jobs and orders go.
    pub fn inbox(&self) -> Arc<Inbox> {
        self.inbox.clone()
    }

    /// Its figures.
    pub fn vitals(&self) -> Arc<Vitals> {
        self.vitals.clone()
    }

    /// Thaws, resumes or stops a parked or suspended instance, as its inbox says.
    pub fn wake(&mut self) {
        self.now = Instant::now();
        let rested = self.now.saturating_duration_since(self.since);
        match self.state {
            State::Parked => self.open_window(rested),
            State::Suspended => self.resume_clocks(rested),
            _ => {}
        }
        if let Some(next) = decide::wake(self.state, self.inbox.current_order()) {
            self.carry_out(next);
        }
        self.settled = false;
    }

    /// Runs until there is something to report, or nothing to do until the waker is called or the inbox is filled.
    /// `was_woken` is that of [`Guest::poll`]; what the inbox got is seen after it was asked.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        clock: Clock,
        was_woken: &mut impl FnMut() -> bool,
    ) -> Poll<Report> {
        self.now = Instant::now();
        loop {
            let view = self.turn();
            if let Some(report) = self.reports.pop_front() {
                return Poll::Ready(report);
            }
            if !self.settled {
                self.run_guest(cx, clock, was_woken);
                continue;
            }
            if self.wait_until(decide::next_deadline(&view), cx).is_pending() {
                self.settled = false; // Whatever wakes the task next may concern the guest.
                return Poll::Pending;
            }
            // The timer knows that a deadline has passed; this clock must know too.
            self.now = Instant::now();
        }
    }

    fn wait_until(&mut self, next: Option<Duration>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(next) = next.map(|next| self.made + next) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
        // A timer that fires too early is cheaper than one that is moved at every request.
        if timer.deadline() > next || timer.is_elapsed() {
            timer.as_mut().reset(next);
        }
        timer.as_mut().poll(cx)
    }

    fn step(&mut self, event: Event) {
        match self.state.next(event) {
            Ok(state) => self.state = state,
            Err(refused) => {
                tracing::error!(instance = %self.id, function = %self.terms.function, "bug in the driver: {refused}");
                debug_assert!(false, "{refused}");
                return;
            }
        }
        if self.state != State::Stopped {
            self.reports.push_back(Report::Moved(self.state));
        }
    }
}
