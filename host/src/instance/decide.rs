//! What an instance does next: pure and whole.
//!
//! The driver describes the instance as a [`View`], asks [`decide`], carries out the [`Move`], and describes it anew.
//! Nothing here has a clock, a lock or a guest: points in time come in as durations since the instance was made. So a
//! test can play any course of events against it.

use std::time::Duration;

use super::lifecycle::State;
use super::order::{CutOff, Order, StopReason};
use crate::guest::Entry;

/// All facts about an instance on which a decision depends. Points in time count from when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) now: Duration,
    pub(super) state: State,
    /// When instantiation, with the start functions of the component, must be over; none before it has begun.
    pub(super) start_deadline: Option<Duration>,
    /// The newest order.
    pub(super) order: Order,
    /// Jobs in the inbox.
    pub(super) jobs: usize,
    /// Requests in the guest whose callers wait.
    pub(super) running: usize,
    /// Requests that may run at once.
    pub(super) concurrency: usize,
    /// How many more requests it may begin; none if there is no limit.
    pub(super) requests_left: Option<u64>,
    /// The earliest deadline of a running request.
    pub(super) request_deadline: Option<Duration>,
    /// Code of a request that timed out was running when the guest last gave the thread back.
    pub(super) overdue_holds_cpu: bool,
    /// The hook that the instance waits for.
    pub(super) hook: Option<Hook>,
    /// A pre-freeze that nobody waits for any more still runs.
    pub(super) leftover: bool,
    pub(super) has_pre_freeze: bool,
    /// Pre-stop exists and was not called yet, and the instance got as far as to need it.
    pub(super) owes_pre_stop: bool,
    /// The pause between the last reply and pre-freeze.
    pub(super) freeze_after: Duration,
    /// When that pause ends, if it has begun.
    pub(super) linger_ends: Option<Duration>,
    /// When figures of the open window must be posted, if any are unposted.
    pub(super) progress_due: Option<Duration>,
}

/// A hook that the instance waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) entry: Entry,
    pub(super) deadline: Duration,
    /// It began in an earlier freeze; this freeze's own call is still to come.
    pub(super) earlier: bool,
    /// Its code was running when the guest last gave the thread back.
    pub(super) holds_cpu: bool,
}

/// The questions of one turn, asked in this order. The pool learns what happened only after the turn, so an answer to a
/// request goes out when it is known whether the instance takes the next one or freezes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What does the newest order ask for?
    Order,
    /// Are jobs taken, or sent back?
    Jobs,
    /// What is late?
    Deadlines,
    /// Is there nothing left to wait for in this state? Asked once a turn; the others are asked until they have no answer.
    Advance,
}

impl Step {
    /// In the order in which they are asked.
    pub(super) const ALL: [Step; 4] = [Step::Order, Step::Jobs, Step::Deadlines, Step::Advance];
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Suspend; a hook that runs is not waited for any more.
    Suspend,
    /// Stop gracefully; a hook that runs is not waited for any more.
    Stop(StopReason),
    /// End at once.
    CutOff(CutOff),
    /// Leave `Parked`.
    Thaw,
    /// Leave `Suspended`.
    Resume,
    /// A request came before the instance was parked: be active again.
    CancelFreeze,
    /// Begin so many requests from the inbox.
    TakeJobs(usize),
    /// Send all jobs in the inbox back to the pool.
    ReturnJobs,
    /// Post the figures of the open window.
    PostProgress,
    /// Answer the request that is late. With `stops`, the instance takes no more requests: it stops gracefully.
    TimeOutRequest { stops: bool },
    /// Code of a request that timed out does not stop: end the instance.
    KillOverdue,
    /// The hook is late.
    TimeOutHook(LateHook),
    /// Instantiation took too long.
    TimeOutStart,
    /// Wait until then for another request.
    Linger { until: Duration },
    /// Freeze.
    Freeze(PreFreeze),
    /// Park.
    Park,
    /// Call pre-stop.
    CallPreStop,
    /// It is stopped.
    End,
}

impl Move {
    /// Whether the turn is over after this answer to `step`. The pool must see each state that the instance advances to,
    /// and a suspended instance must do nothing more: what it had to report would stay in it until it is resumed.
    pub(super) fn ends_turn(self, step: Step) -> bool {
        step == Step::Advance || self == Move::Suspend
    }
}

/// What becomes of a hook that is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LateHook {
    /// The instance never became ready: the requests that wait for it get the reason.
    FailsInstance,
    /// It runs on, and would do so at the next thaw: end the instance.
    Kills,
    /// It is not waited for any more.
    IsLeft,
}

/// What a freeze waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreFreeze {
    /// Nothing: the function has no pre-freeze.
    None,
    /// Its own call of the hook.
    Call,
    /// The call of an earlier freeze, before its own: two at once would pile up in a guest that hangs.
    AwaitEarlier,
}

/// What follows when a hook returned that the instance waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterHook {
    /// The initializer succeeded.
    Ready,
    /// The initializer failed.
    FailInstance,
    /// It was the pre-freeze of an earlier freeze: now comes this one's.
    CallPreFreeze,
    /// The next turn finds nothing to wait for.
    Nothing,
}

/// What `step` asks for, if anything.
pub(super) fn decide(step: Step, view: &View) -> Option<Move> {
    if view.overdue_holds_cpu && view.state != State::Stopped {
        return Some(Move::KillOverdue);
    }
    match step {
        Step::Order => obey(view),
        Step::Jobs => jobs(view),
        Step::Deadlines => deadlines(view),
        Step::Advance => advance(view),
    }
}

/// How a parked or suspended instance leaves that state.
pub(super) fn wake(state: State, order: Order) -> Option<Move> {
    match (state, order) {
        (State::Parked | State::Suspended, Order::Stop(reason)) => Some(Move::Stop(reason)),
        (State::Parked, Order::Run | Order::Suspend | Order::CutOff(_)) => Some(Move::Thaw),
        (State::Suspended, Order::Run | Order::Suspend | Order::CutOff(_)) => Some(Move::Resume),
        (_, _) => None,
    }
}

/// What follows when the hook of `view` has returned.
pub(super) fn after_hook(succeeded: bool, view: &View) -> AfterHook {
    let Some(hook) = view.hook else { return AfterHook::Nothing };
    match (hook.entry, succeeded) {
        (Entry::Initializer, true) if view.state == State::Initializing => AfterHook::Ready,
        (Entry::Initializer, false) => AfterHook::FailInstance,
        (Entry::PreFreeze, _) if hook.earlier && view.state == State::Freezing && view.jobs == 0 => {
            AfterHook::CallPreFreeze
        }
        (Entry::Initializer | Entry::PreFreeze | Entry::PreStop | Entry::Handler, _) => AfterHook::Nothing,
    }
}

/// When the instance must be looked at again even if nothing else happens.
pub(super) fn next_deadline(view: &View) -> Option<Duration> {
    let hook = view.hook.map(|hook| hook.deadline);
    let start = view.start_deadline.filter(|_| view.state == State::Starting);
    [view.request_deadline, hook, view.linger_ends, start, view.progress_due].into_iter().flatten().min()
}

/// The newest order as far as the state allows. It stays in the inbox, so nothing is forgotten.
fn obey(view: &View) -> Option<Move> {
    use State::{Active, Freezing, Initializing, Parked, Starting, Stopped, Stopping, Suspended};
    match (view.order, view.state) {
        (Order::CutOff(why), Starting | Initializing | Active | Freezing | Stopping) => Some(Move::CutOff(why)),
        (Order::Suspend, Active | Freezing) => Some(Move::Suspend),
        (Order::Stop(reason), Starting | Initializing | Active | Freezing | Suspended) => Some(Move::Stop(reason)),
        // Those at rest are woken first, and those that stop do so already.
        (Order::Stop(_), Parked | Stopping | Stopped) | (Order::CutOff(_), Parked | Suspended | Stopped) => None,
        (Order::Suspend, Starting | Initializing | Parked | Suspended | Stopping | Stopped) | (Order::Run, _) => None,
    }
}

fn jobs(view: &View) -> Option<Move> {
    if view.jobs == 0 {
        return None;
    }
    match view.state {
        State::Active => {
            let room = view.concurrency.saturating_sub(view.running);
            let left = view.requests_left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
            let count = view.jobs.min(room).min(left);
            (count > 0).then_some(Move::TakeJobs(count))
        }
        // A request may run beside the hook; in an instance that runs one call at a time it waits for it.
        State::Freezing => (view.concurrency > 1 || view.hook.is_none()).then_some(Move::CancelFreeze),
        State::Stopping => Some(Move::ReturnJobs),
        State::Starting | State::Initializing | State::Parked | State::Suspended | State::Stopped => None,
    }
}

fn deadlines(view: &View) -> Option<Move> {
    let late = |deadline: Duration| view.now >= deadline;
    if view.progress_due.is_some_and(late) {
        return Some(Move::PostProgress);
    }
    if view.request_deadline.is_some_and(late) {
        return Some(Move::TimeOutRequest { stops: view.state == State::Active });
    }
    if let Some(hook) = view.hook
        && late(hook.deadline)
    {
        return Some(Move::TimeOutHook(match hook.entry {
            Entry::Initializer => LateHook::FailsInstance,
            Entry::PreFreeze if hook.holds_cpu => LateHook::Kills,
            Entry::PreFreeze | Entry::PreStop | Entry::Handler => LateHook::IsLeft,
        }));
    }
    (view.state == State::Starting && view.start_deadline.is_some_and(late)).then_some(Move::TimeOutStart)
}

fn advance(view: &View) -> Option<Move> {
    match view.state {
        State::Active if view.running > 0 => None,
        State::Active if view.requests_left == Some(0) => Some(Move::Stop(StopReason::Spent)),
        State::Active if view.jobs > 0 => None,
        State::Active => linger(view),
        State::Freezing => view.hook.is_none().then_some(Move::Park),
        State::Stopping if view.running > 0 || view.hook.is_some() => None,
        State::Stopping => Some(if view.owes_pre_stop { Move::CallPreStop } else { Move::End }),
        State::Starting | State::Initializing | State::Parked | State::Suspended | State::Stopped => None,
    }
}

fn linger(view: &View) -> Option<Move> {
    let until = view.linger_ends.unwrap_or(view.now + view.freeze_after);
    if view.now < until {
        return view.linger_ends.is_none().then_some(Move::Linger { until });
    }
    Some(Move::Freeze(match (view.leftover, view.has_pre_freeze) {
        (true, _) => PreFreeze::AwaitEarlier,
        (false, true) => PreFreeze::Call,
        (false, false) => PreFreeze::None,
    }))
}

#[cfg(test)]
mod tests;
