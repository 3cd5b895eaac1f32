//! The driver: the one place that owns a guest while it is awake, polls it, and moves its state.
//!
//! [`Instance::next`] runs until there is something to report. Each turn obeys orders, takes jobs, looks at deadlines,
//! and lets the guest run for at most one slice of the epoch, between two readings of the clock. An instance at rest,
//! parked or suspended, is the same value left alone: it has no task, no timer and no open window.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, Sleep, sleep_until};

use super::inbox::{Inbox, Order, StopReason};
use super::job::{Job, Outcome, Timings};
use super::lifecycle::{Event, State};
use super::metrics::{CrashLabel, HookFailureLabels, HookLabel, StopLabel};
use super::terms::{START_TIMEOUT, Terms, Vitals};
use crate::guest::{self, Call, CallContext, CallId, Ending, Entry, Guest, Preempted, Returned, Trap};
use crate::ids::{InstanceId, RequestId};
use crate::log::Stream;
use crate::meter::{Account, WindowMeter};

/// Figures of an open window reach the ledger at the latest this long after they changed.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(40);

/// What the pool must know of an instance.
pub enum Report {
    /// It is in another state now. At `Parked` and `Suspended` it rests: leave it alone until it is woken.
    Moved(State),
    /// A request ended; send the answer once the instance counts as having room.
    Answered(Answered),
    /// A job that it will not run; find another instance.
    Bounced(Job),
    /// It is gone, and so are these requests. Drop it.
    Stopped(Vec<Answered>),
}

/// A request and how it ended.
pub struct Answered {
    job: Job,
    outcome: Outcome,
    timings: Timings,
}

impl Answered {
    /// Sends the answer.
    pub fn send(self) {
        self.job.answer(self.outcome, self.timings);
    }

    /// `ok`, or the code of the problem.
    pub fn code(&self) -> &'static str {
        self.outcome.code()
    }
}

/// One instance of a function.
pub struct Instance {
    id: InstanceId,
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
    meter: Option<WindowMeter>,
    windows: u32,
    calls: u64,
    /// When it was made, or came to rest.
    since: Instant,
    /// When the linger ends.
    linger_ends: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    reports: VecDeque<Report>,
    /// The guest was polled since the task last waited, and has nothing new to do.
    settled: bool,
}

/// A request in the guest.
struct Running {
    call: CallId,
    job: Job,
    deadline: Instant,
    began: Instant,
    executed_before: Duration,
}

/// A hook under way.
struct HookCall {
    call: CallId,
    entry: Entry,
    request: RequestId,
    deadline: Instant,
    /// It began in an earlier freeze; this freeze's own call is still to come.
    earlier: bool,
}

impl Instance {
    /// A new instance that starts when it is first asked for its reports.
    pub fn new(terms: Arc<Terms>) -> Instance {
        let id = InstanceId::random();
        Instance {
            id,
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
            meter: None,
            windows: 0,
            calls: 0,
            since: Instant::now(),
            linger_ends: None,
            timer: None,
            reports: VecDeque::new(),
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

    /// Where its jobs and orders go.
    pub fn inbox(&self) -> Arc<Inbox> {
        self.inbox.clone()
    }

    /// Its figures.
    pub fn vitals(&self) -> Arc<Vitals> {
        self.vitals.clone()
    }

    /// Ends the rest of a parked or suspended instance: for a job, to go on, or to stop, as its inbox says.
    pub fn wake(&mut self) {
        let rested = self.since.elapsed();
        let order = self.inbox.current_order();
        match self.state {
            State::Parked => self.open_window(rested),
            State::Suspended => self.resume_clocks(rested),
            _ => {}
        }
        match (self.state, order) {
            (State::Parked | State::Suspended, Order::Stop(reason)) => self.begin_stop(reason),
            (State::Parked, Order::Run | Order::Suspend) => self.step(Event::Wanted),
            (State::Suspended, Order::Run | Order::Suspend) => self.step(Event::Resume),
            (_, _) => {}
        }
        self.settled = false;
    }

    /// Runs until there is something to report. Cancelling it leaves the instance as it is.
    pub async fn next(&mut self) -> Report {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        self.inbox.register(cx.waker());
        loop {
            self.obey();
            self.take_jobs();
            self.look_at_deadlines();
            self.advance();
            if let Some(report) = self.reports.pop_front() {
                return Poll::Ready(report);
            }
            if !self.settled {
                self.run_guest(cx);
                continue;
            }
            if self.wait_for_deadline(cx).is_pending() {
                self.settled = false; // Whatever wakes the task next may concern the guest.
                return Poll::Pending;
            }
        }
    }

    /// Carries out the newest order as far as the state allows. It stays in the inbox, so nothing is forgotten.
    fn obey(&mut self) {
        match (self.inbox.current_order(), self.state) {
            (Order::Suspend, State::Active | State::Freezing) => self.suspend(),
            (
                Order::Stop(reason),
                State::Starting | State::Initializing | State::Active | State::Freezing | State::Suspended,
            ) => self.begin_stop(reason),
            (Order::Run | Order::Suspend | Order::Stop(_), _) => {}
        }
    }

    fn take_jobs(&mut self) {
        match self.state {
            State::Active => {}
            State::Freezing if self.inbox.has_jobs() && (self.shares() || self.hook.is_none()) => {
                self.abandon_hook();
                self.step(Event::Wanted);
            }
            State::Stopping => {
                while let Some(job) = self.inbox.take() {
                    self.reports.push_back(Report::Bounced(job));
                }
                return;
            }
            _ => return,
        }
        while self.running.len() < self.terms.concurrency as usize {
            let Some(job) = self.inbox.take() else { break };
            self.begin_request(job);
        }
    }

    /// Whether several calls may run in this instance at once.
    fn shares(&self) -> bool {
        self.terms.concurrency > 1
    }

    fn look_at_deadlines(&mut self) {
        let now = Instant::now();
        if let Some(meter) = &mut self.meter
            && meter.progress_due(PROGRESS_INTERVAL).is_some_and(|due| now >= due)
        {
            meter.memory_peak(self.guest.memory_bytes_peak());
            meter.post_progress();
        }
        while let Some(index) = self.running.iter().position(|running| now >= running.deadline) {
            self.time_out(index);
        }
        if self.hook.as_ref().is_some_and(|hook| now >= hook.deadline) {
            self.hook_overran();
        }
        if self.state == State::Starting && now >= self.since + START_TIMEOUT {
            let summary = format!("instantiation took longer than {} s", START_TIMEOUT.as_secs());
            self.fail(Ending::NotStarted(Trap { name: "start-timeout", backtrace: summary.clone(), summary }));
        }
    }

    /// Moves on where nothing is left to wait for.
    fn advance(&mut self) {
        match self.state {
            State::Active if self.running.is_empty() && !self.inbox.has_jobs() => self.linger(),
            State::Freezing if self.hook.is_none() => {
                self.step(Event::Frozen);
                self.rest();
            }
            State::Stopping if self.running.is_empty() && self.hook.is_none() => {
                if std::mem::take(&mut self.owes_pre_stop) && self.terms.blueprint.exports.pre_stop.is_some() {
                    self.begin_hook(Entry::PreStop);
                } else {
                    self.end();
                }
            }
            _ => {}
        }
    }

    fn linger(&mut self) {
        let now = Instant::now();
        let ends = *self.linger_ends.get_or_insert(now + self.terms.freeze_after);
        if now < ends {
            return;
        }
        self.linger_ends = None;
        self.step(Event::Idle);
        match self.leftover.take() {
            // The hook of an earlier freeze still runs: two at once would pile up in a guest that hangs.
            Some(call) => self.wait_for_hook(call, Entry::PreFreeze, RequestId::new(), true),
            None if self.terms.blueprint.exports.pre_freeze.is_some() => self.begin_hook(Entry::PreFreeze),
            None => {}
        }
    }

    fn wait_for_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let requests = self.running.iter().map(|running| running.deadline);
        let hook = self.hook.as_ref().map(|hook| hook.deadline);
        let start = (self.state == State::Starting).then(|| self.since + START_TIMEOUT);
        let progress = self.meter.as_ref().and_then(|meter| meter.progress_due(PROGRESS_INTERVAL));
        let next = requests.chain(hook).chain(self.linger_ends).chain(start).chain(progress).min();
        let Some(next) = next else { return Poll::Pending };
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

/// The guest: polling it, and what it has to say.
impl Instance {
    fn run_guest(&mut self, cx: &mut Context<'_>) {
        self.settled = true;
        let from = Instant::now();
        self.guest.poll(cx);
        let to = Instant::now();
        if let Some(meter) = &mut self.meter {
            meter.executed(from, to);
            self.vitals.add_executed(to - from);
        }
        self.vitals.set_memory_bytes(self.guest.memory_bytes());
        while let Some(event) = self.guest.take_event() {
            match event {
                guest::Event::Started => self.started(),
                guest::Event::Returned(call, returned) => self.returned(call, returned),
                guest::Event::Ended(ending) => return self.fail(ending),
            }
        }
        self.drop_if_overdue_code_runs();
    }

    fn started(&mut self) {
        self.open_window(Duration::ZERO);
        if self.state == State::Stopping {
            return; // Ordered while it started; there is nothing to initialize any more.
        }
        self.step(Event::Booted);
        if self.terms.blueprint.exports.initializer.is_some() {
            self.begin_hook(Entry::Initializer);
        } else {
            self.ready();
        }
    }

    fn ready(&mut self) {
        self.owes_pre_stop = true;
        self.step(Event::Ready);
    }

    fn call(&mut self, entry: Entry, context: CallContext, event: Vec<u8>) -> CallId {
        self.calls += 1;
        let id = CallId(self.calls);
        self.guest.call(Call { id, entry, context, event });
        self.settled = false;
        id
    }

    fn context(&self, request: &RequestId, timeout: Duration, traceparent: Option<String>) -> CallContext {
        let deadline = SystemTime::now() + timeout;
        CallContext {
            request_id: request.as_str().to_owned(),
            function: self.terms.function.as_str().to_owned(),
            version: self.terms.version.as_ref().to_owned(),
            instance_id: self.id.to_string(),
            memory_mb: self.terms.memory_mb,
            deadline_ms: deadline.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
            attempt: 1,
            traceparent,
        }
    }

    fn begin_request(&mut self, mut job: Job) {
        let now = Instant::now();
        self.linger_ends = None;
        job.meter.began(self.id);
        let context = self.context(&job.request, job.timeout, job.traceparent.take());
        let event = std::mem::take(&mut job.event);
        let call = self.call(Entry::Handler, context, event);
        let mut executed_before = Duration::ZERO;
        if let Some(meter) = &mut self.meter {
            meter.request_began();
            executed_before = meter.executed_so_far();
        }
        self.vitals.add_request();
        let deadline = now + job.timeout;
        self.running.push(Running { call, job, deadline, began: now, executed_before });
        self.note_sole_request();
    }

    fn begin_hook(&mut self, entry: Entry) {
        let request = RequestId::new();
        let context = self.context(&request, self.terms.timeout(entry), None);
        let call = self.call(entry, context, Vec::new());
        self.terms.metrics.hook_calls.get_or_create(&HookLabel { hook: entry.as_str() }).inc();
        self.wait_for_hook(call, entry, request, false);
    }

    fn wait_for_hook(&mut self, call: CallId, entry: Entry, request: RequestId, earlier: bool) {
        if let Some(meter) = &mut self.meter {
            if earlier { meter.hook_resumed() } else { meter.hook_began() }
        }
        let deadline = Instant::now() + self.terms.timeout(entry);
        self.hook = Some(HookCall { call, entry, request, deadline, earlier });
        self.note_sole_request();
    }

    /// Output belongs to the only call under way; with several, nobody can tell.
    fn note_sole_request(&self) {
        let request = match (self.running.as_slice(), &self.hook) {
            ([], Some(hook)) => Some(hook.request.clone()),
            ([only], None) => Some(only.job.request.clone()),
            (_, _) => None,
        };
        self.guest.set_sole_request(request);
    }

    fn returned(&mut self, call: CallId, returned: Returned) {
        if let Some(index) = self.running.iter().position(|running| running.call == call) {
            let outcome = match returned {
                Ok(reply) => Outcome::Replied(reply),
                Err(error) => Outcome::Failed(error),
            };
            let answered = self.take_running(index, outcome);
            self.reports.push_back(Report::Answered(answered));
        } else if self.hook.as_ref().is_some_and(|hook| hook.call == call) {
            self.hook_returned(returned);
        } else if self.leftover == Some(call) {
            self.leftover = None;
        } else {
            self.overdue.retain(|(overdue, _)| *overdue != call);
        }
    }

    fn take_running(&mut self, index: usize, outcome: Outcome) -> Answered {
        let mut running = self.running.swap_remove(index);
        running.job.meter.ended();
        let mut executed = Duration::ZERO;
        if let Some(meter) = &mut self.meter {
            meter.ended_one();
            executed = meter.executed_so_far().saturating_sub(running.executed_before);
        }
        self.note_sole_request();
        let timings = Timings {
            queue: running.job.assigned.duration_since(running.job.accepted),
            start: running.began.duration_since(running.job.assigned),
            handler: running.began.elapsed(),
            executed,
        };
        Answered { job: running.job, outcome, timings }
    }

    fn hook_returned(&mut self, returned: Returned) {
        let Some(hook) = self.hook.take() else { return };
        if let Some(meter) = &mut self.meter {
            meter.ended_one();
        }
        self.note_sole_request();
        match (hook.entry, returned) {
            (Entry::Initializer, Ok(_)) if self.state == State::Initializing => self.ready(),
            (Entry::Initializer, Err(error)) => {
                self.count_hook_failure(Entry::Initializer, "failed");
                self.initializer_failed(&hook.request, Outcome::Failed, error);
            }
            (Entry::PreFreeze, _) if hook.earlier && self.state == State::Freezing && !self.inbox.has_jobs() => {
                self.begin_hook(Entry::PreFreeze);
            }
            (_, _) => {}
        }
    }

    /// Stops waiting for a hook that goes on by itself.
    fn abandon_hook(&mut self) {
        if let Some(hook) = self.hook.take() {
            if let Some(meter) = &mut self.meter {
                meter.ended_one();
            }
            if hook.entry == Entry::PreFreeze {
                self.leftover = Some(hook.call);
            }
        }
    }
}

/// Rest, and its end.
impl Instance {
    fn open_window(&mut self, parked: Duration) {
        self.windows += 1;
        self.vitals.add_window();
        let account = Account {
            function: self.terms.function.clone(),
            version: self.terms.version.clone(),
            instance: self.id,
            memory_mb: self.terms.memory_mb,
            basis: self.terms.basis,
        };
        let bytes = self.guest.memory_bytes();
        self.meter = Some(WindowMeter::open(&account, self.windows, parked, bytes, self.terms.post.clone()));
    }

    fn close_window(&mut self) {
        if let Some(mut meter) = self.meter.take() {
            meter.memory_peak(self.guest.memory_bytes_peak());
        }
    }

    /// Leaves nothing behind that could run: the report of the state says the rest.
    fn rest(&mut self) {
        self.close_window();
        self.timer = None;
        self.linger_ends = None;
        self.running.shrink_to_fit();
        self.reports.shrink_to(1);
        self.since = Instant::now();
    }

    fn suspend(&mut self) {
        self.abandon_hook();
        if let Some(meter) = &mut self.meter {
            meter.pause();
        }
        self.timer = None;
        self.linger_ends = None;
        self.since = Instant::now();
        self.step(Event::Suspend);
    }

    /// Deadlines stand still while an instance is suspended.
    fn resume_clocks(&mut self, rested: Duration) {
        for running in &mut self.running {
            running.deadline += rested;
        }
        if let Some(meter) = &mut self.meter {
            meter.resume();
        }
    }
}

/// Ends, orderly and other.
impl Instance {
    fn begin_stop(&mut self, reason: StopReason) {
        self.abandon_hook();
        self.linger_ends = None;
        self.stop_reason = Some(reason);
        self.step(Event::Stop);
    }

    fn end(&mut self) {
        self.step(Event::Gone);
        self.close_window();
        let reason = self.stop_reason.map_or("stop", StopReason::as_str);
        self.terms.metrics.stops.get_or_create(&StopLabel { reason }).inc();
        tracing::debug!(instance = %self.id, function = %self.terms.function, reason, "instance stopped");
        self.reports.push_back(Report::Stopped(Vec::new()));
    }

    /// The caller gets its answer at once. The instance goes when its other requests ended; if the late request's code
    /// holds the CPU, now or in a later slice, it goes there and then.
    fn time_out(&mut self, index: usize) {
        let request = self.running[index].job.request.clone();
        self.overdue.push((self.running[index].call, request.clone()));
        self.tell(Some(&request), "request timed out; the instance takes no more and will stop");
        if self.state == State::Active {
            self.begin_stop(StopReason::RequestTimedOut);
        }
        let answered = self.take_running(index, Outcome::TimedOut);
        self.reports.push_back(Report::Answered(answered));
        self.drop_if_overdue_code_runs();
    }

    fn drop_if_overdue_code_runs(&mut self) {
        let Preempted::Call(call) = self.guest.preempted() else { return };
        if self.overdue.iter().any(|(overdue, _)| *overdue == call) {
            let summary = "code of a request ran on after its deadline".to_owned();
            let trap = Trap { name: "deadline", backtrace: summary.clone(), summary };
            self.fail(Ending::Crashed { trap, blamed: Some(call) });
        }
    }

    fn hook_overran(&mut self) {
        let Some(hook) = &self.hook else { return };
        let (entry, request, call) = (hook.entry, hook.request.clone(), hook.call);
        self.count_hook_failure(entry, "timed-out");
        let timeout_ms = self.terms.timeout(entry).as_millis();
        let text = format!("{} did not end within {timeout_ms} ms", entry.as_str());
        match entry {
            Entry::Initializer => self.initializer_failed(&request, |_| Outcome::TimedOut, text),
            Entry::PreFreeze if self.guest.preempted() == Preempted::Call(call) => {
                self.tell(Some(&request), &format!("{text} and holds the CPU; the instance is dropped"));
                self.abandon_hook();
                let trap = Trap { name: "hook-timeout", summary: text.clone(), backtrace: text };
                self.fail(Ending::Crashed { trap, blamed: None });
            }
            Entry::PreFreeze => {
                self.tell(Some(&request), &format!("{text}; it goes on at the next thaw"));
                self.abandon_hook();
            }
            Entry::PreStop | Entry::Handler => {
                self.tell(Some(&request), &format!("{text}; the instance is dropped"));
                self.abandon_hook();
            }
        }
    }

    fn initializer_failed(&mut self, request: &RequestId, outcome: fn(String) -> Outcome, text: String) {
        self.tell(Some(request), &format!("initializer failed: {text}"));
        self.abandon_hook();
        self.finish_failed(|| outcome(text.clone()));
    }

    /// The guest cannot be asked any more. Requests get their answers; the one to blame learns why.
    fn fail(&mut self, ending: Ending) {
        let blamed = ending.blamed();
        if let Some(hook) = &self.hook {
            self.count_hook_failure(hook.entry, "crashed");
        }
        // A request that is alone is to blame if nobody else is known to be: a late one's code, or a hook's.
        let only = self.running.len() == 1;
        let culprit = self.running.iter().find(|running| blamed.map_or(only, |call| call == running.call));
        let culprit_call = culprit.map(|running| running.call);
        let late = || self.overdue.iter().find(|(call, _)| Some(*call) == blamed).map(|(_, request)| request.clone());
        let request = culprit.map(|running| running.job.request.clone()).or_else(late);
        let request = request.or_else(|| self.hook.as_ref().map(|hook| hook.request.clone()));
        self.log_crash(&ending, request.as_ref());
        self.abandon_hook();
        let own = || match &ending {
            Ending::Crashed { trap, .. } | Ending::NotStarted(trap) => Outcome::Crashed(trap.clone()),
            Ending::OutOfMemory { .. } => Outcome::OutOfMemory,
        };
        if matches!(self.state, State::Starting | State::Initializing) {
            return self.finish_failed(own);
        }
        let mut answers = Vec::new();
        while let Some(running) = self.running.last() {
            let outcome = if Some(running.call) == culprit_call { own() } else { Outcome::Lost };
            answers.push(self.take_running(self.running.len() - 1, outcome));
        }
        self.gone(answers);
    }

    /// Ends an instance that never became ready: the requests that waited for it get the reason.
    fn finish_failed(&mut self, outcome: impl Fn() -> Outcome) {
        let mut answers = Vec::new();
        while let Some(job) = self.inbox.take() {
            let queue = job.assigned.duration_since(job.accepted);
            let timings = Timings { queue, start: job.assigned.elapsed(), ..Timings::default() };
            answers.push(Answered { job, outcome: outcome(), timings });
        }
        self.gone(answers);
    }

    fn gone(&mut self, answers: Vec<Answered>) {
        self.step(Event::Failed);
        self.close_window();
        self.reports.push_back(Report::Stopped(answers));
    }

    fn log_crash(&self, ending: &Ending, request: Option<&RequestId>) {
        let (trap, text) = match ending {
            Ending::Crashed { trap, .. } => (trap.name, format!("instance crashed: {}", trap.backtrace)),
            Ending::NotStarted(trap) => (trap.name, format!("instance did not start: {}", trap.backtrace)),
            Ending::OutOfMemory { .. } => {
                ("out-of-memory", format!("instance wanted more than its {} MB", self.terms.memory_mb))
            }
        };
        self.terms.metrics.crashes.get_or_create(&CrashLabel { trap }).inc();
        self.tell(request, &text);
    }

    fn count_hook_failure(&self, entry: Entry, failure: &'static str) {
        let labels = HookFailureLabels { hook: entry.as_str(), failure };
        self.terms.metrics.hook_failures.get_or_create(&labels).inc();
    }

    /// Says something about the instance, to the operator and in the function's log.
    fn tell(&self, request: Option<&RequestId>, text: &str) {
        let shown = request.map_or("-", RequestId::as_str);
        tracing::warn!(function = %self.terms.function, instance = %self.id, request = shown, "{text}");
        self.terms.log.write(Stream::Host, self.id, request.cloned(), text.to_owned());
    }
}
