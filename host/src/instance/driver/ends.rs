//! How an instance ends: in order, at a deadline, or through a crash.

use super::{Answered, Instance, Report};
use crate::guest::{CallId, Ending, Entry, MemoryLack, Preempted, Trap};
use crate::ids::{KeyId, RequestId};
use crate::instance::decide::LateHook;
use crate::instance::job::{Outcome, Timings};
use crate::instance::lifecycle::{Event, State};
use crate::instance::metrics::{CrashLabel, EXITED, HookFailureLabels, StopLabel};
use crate::instance::order::{CutOff, StopReason};
use crate::log::{Author, Stream};

impl Instance {
    pub(super) fn begin_stop(&mut self, reason: StopReason) {
        self.abandon_hook();
        self.linger_ends = None;
        self.stop_reason = Some(reason);
        self.step(Event::Stop);
    }

    pub(super) fn end(&mut self) {
        self.step(Event::Gone);
        self.close_window();
        let reason = self.stop_reason.map_or("stop", StopReason::as_str);
        self.terms.metrics.stops.get_or_create(&StopLabel { reason }).inc();
        tracing::debug!(instance = %self.id, function = %self.terms.function, reason, "instance stopped");
        self.reports.push_back(Report::Stopped(Vec::new()));
    }

    pub(super) fn return_jobs(&mut self) {
        while let Some(job) = self.inbox.take() {
            self.reports.push_back(Report::Bounced(job));
        }
    }

    /// Ends the requests that are to be stopped: those that have not begun at once, the others as if they were late.
    pub(super) fn stop_requests(&mut self) {
        for ticket in self.inbox.take_stops() {
            if let Some(running) = self.running.iter_mut().find(|running| running.job.ticket == ticket) {
                running.deadline = self.now;
                running.is_stopped = true;
            } else if let Some(job) = self.inbox.take_ticket(ticket) {
                let timings = Timings { queue: job.assigned.duration_since(job.accepted), ..Timings::default() };
                self.reports.push_back(Report::Answered(Answered { job, outcome: Outcome::Stopped, timings }));
            }
        }
    }

    /// Answers the caller of a request that is late, at once. The call itself goes on; `stop` is why the instance, which
    /// takes no more requests then, stops when its other requests ended.
    pub(super) fn time_out(&mut self, stop: Option<StopReason>) {
        let Some(index) = self.running.iter().position(|running| self.now >= running.deadline) else { return };
        let request = self.running[index].job.request.clone();
        self.overdue.push((self.running[index].call, request.clone()));
        let is_stopped = self.running[index].is_stopped;
        let why = if is_stopped { "an operator stopped the request" } else { "request timed out" };
        self.tell(Some(&request), &format!("{why}; the instance takes no more and will stop"));
        if let Some(reason) = stop {
            self.begin_stop(reason);
        }
        let answered = self.take_running(index, if is_stopped { Outcome::Stopped } else { Outcome::TimedOut });
        self.reports.push_back(Report::Answered(answered));
    }

    /// Ends an instance in which the code of a request that timed out holds the CPU.
    pub(super) fn kill_overdue(&mut self) {
        let blamed = match self.guest.preempted() {
            Preempted::Call(call) => Some(call),
            Preempted::No | Preempted::Unknown => None,
        };
        let summary = "still running after the request timed out; killed".to_owned();
        let trap = Trap { name: "deadline", backtrace: summary.clone(), summary };
        self.fail(Ending::Crashed { trap, blamed });
    }

    pub(super) fn time_out_start(&mut self) {
        let summary = format!("the instance did not start within {} ms", self.terms.start_timeout.as_millis());
        self.log_crash(&Ending::NotStarted(Trap { name: "start-timeout", backtrace: summary.clone(), summary }), None);
        self.finish_failed(|| Outcome::TimedOut);
    }

    pub(super) fn time_out_hook(&mut self, late: LateHook) {
        let Some(hook) = &self.hook else { return };
        let (entry, request) = (hook.entry, hook.request.clone());
        self.count_hook_failure(entry, "timed-out");
        let timeout_ms = self.terms.timeout(entry).as_millis();
        let text = format!("{} did not end within {timeout_ms} ms", entry.as_str());
        match late {
            LateHook::FailsInstance => self.initializer_failed(&request, |_| Outcome::TimedOut, text),
            LateHook::Kills => {
                self.tell(Some(&request), &format!("{text} and holds the CPU; the instance is dropped"));
                self.abandon_hook();
                let trap = Trap { name: "hook-timeout", summary: text.clone(), backtrace: text };
                self.fail(Ending::Crashed { trap, blamed: None });
            }
            LateHook::IsLeft => {
                let then =
                    if entry == Entry::PreFreeze { "it goes on at the next thaw" } else { "the instance is dropped" };
                self.tell(Some(&request), &format!("{text}; {then}"));
                self.abandon_hook();
            }
        }
    }

    pub(super) fn initializer_failed(&mut self, request: &RequestId, outcome: fn(String) -> Outcome, text: String) {
        self.tell(Some(request), &format!("initializer failed: {text}"));
        self.abandon_hook();
        self.finish_failed(|| outcome(text.clone()));
    }

    /// Ends an instance whose guest could go on.
    pub(super) fn cut_off(&mut self, why: CutOff) {
        match why {
            CutOff::HostMemory => self.fail(Ending::OutOfMemory { lack: MemoryLack::Host, blamed: None }),
            CutOff::DrainOver => {
                self.terms.metrics.crashes.get_or_create(&CrashLabel { trap: "drain-over" }).inc();
                self.tell(None, "instance cut off because the time for the host's drain is over");
                self.end_with(|| Outcome::Draining, |_| Outcome::Draining);
            }
        }
    }

    /// Ends an instance whose guest cannot run any more. The request to blame gets the cause as its answer, the others that
    /// they were lost with it.
    pub(super) fn fail(&mut self, ending: Ending) {
        let has_exited = matches!(&ending, Ending::Crashed { trap, .. } if trap.is_exit());
        if has_exited && self.running.is_empty() && self.hook.is_none() {
            self.tell(None, "instance exited by itself, with status 0");
            self.terms.metrics.stops.get_or_create(&StopLabel { reason: EXITED }).inc();
            return self.gone(Vec::new());
        }
        let blamed = ending.blamed();
        if let Some(hook) = &self.hook {
            self.count_hook_failure(hook.entry, "crashed");
        }
        // If the engine cannot tell whose code it was, a request that is alone is to blame.
        let only = self.running.len() == 1;
        let culprit = self.running.iter().find(|running| blamed.map_or(only, |call| call == running.call));
        let culprit_call = culprit.map(|running| running.call);
        let late = || self.overdue.iter().find(|(call, _)| Some(*call) == blamed).map(|(_, request)| request.clone());
        let request = culprit.map(|running| running.job.request.clone()).or_else(late);
        let request = request.or_else(|| self.hook.as_ref().map(|hook| hook.request.clone()));
        self.log_crash(&ending, request.as_ref());
        let own = || match &ending {
            Ending::Crashed { trap, .. } | Ending::NotStarted(trap) => Outcome::Crashed(trap.clone()),
            Ending::OutOfMemory { lack: MemoryLack::OwnLimit, .. } => Outcome::OutOfMemory,
            Ending::OutOfMemory { lack: MemoryLack::Host, .. } => Outcome::HostFull,
        };
        let nobody_is_to_blame = matches!(ending, Ending::OutOfMemory { lack: MemoryLack::Host, .. });
        let of = |call| if nobody_is_to_blame || Some(call) == culprit_call { own() } else { Outcome::Lost };
        self.end_with(own, of);
    }

    /// Ends the instance at once. Its requests get the outcome `of` their calls; those that waited for it to become ready
    /// get `own`.
    fn end_with(&mut self, own: impl Fn() -> Outcome, of: impl Fn(CallId) -> Outcome) {
        self.abandon_hook();
        if matches!(self.state, State::Starting | State::Initializing) {
            return self.finish_failed(own);
        }
        let mut answers = Vec::new();
        while let Some(running) = self.running.last() {
            let outcome = of(running.call);
            answers.push(self.take_running(self.running.len() - 1, outcome));
        }
        self.gone(answers);
    }

    /// Ends an instance that never became ready: the requests that waited for it get the reason.
    pub(super) fn finish_failed(&mut self, outcome: impl Fn() -> Outcome) {
        let mut answers = Vec::new();
        while let Some(job) = self.inbox.take() {
            let queue = job.assigned.duration_since(job.accepted);
            let timings =
                Timings { queue, start: self.now.saturating_duration_since(job.assigned), ..Timings::default() };
            answers.push(Answered { job, outcome: outcome(), timings });
        }
        self.gone(answers);
    }

    pub(super) fn gone(&mut self, answers: Vec<Answered>) {
        self.step(Event::Failed);
        self.close_window();
        self.reports.push_back(Report::Stopped(answers));
    }

    pub(super) fn log_crash(&self, ending: &Ending, request: Option<&RequestId>) {
        let (trap, text) = match ending {
            Ending::Crashed { trap, .. } => (trap.name, format!("instance crashed: {}", trap.backtrace)),
            Ending::NotStarted(trap) => (trap.name, format!("instance did not start: {}", trap.backtrace)),
            Ending::OutOfMemory { lack: MemoryLack::OwnLimit, .. } => {
                ("out-of-memory", format!("instance wanted more than its {} MB", self.terms.memory_mb))
            }
            Ending::OutOfMemory { lack: MemoryLack::Host, .. } => {
                ("host-out-of-memory", "instance ended because the host has no more memory for it".to_owned())
            }
        };
        self.terms.metrics.crashes.get_or_create(&CrashLabel { trap }).inc();
        self.tell(request, &text);
    }

    pub(super) fn count_hook_failure(&mut self, entry: Entry, failure: &'static str) {
        if let Some(span) = self.hook.as_mut().and_then(|hook| hook.span.as_mut()) {
            span.fail(failure);
        }
        let labels = HookFailureLabels { hook: entry.as_str(), failure };
        self.terms.metrics.hook_failures.get_or_create(&labels).inc();
    }

    /// The access key that the caller of a request in the guest showed.
    fn key_of(&self, request: &RequestId) -> Option<KeyId> {
        let running = self.running.iter().find(|running| running.job.request == *request)?;
        running.job.meter.reading().key
    }

    /// Says something about the instance, to the operator and in the function's log.
    pub(super) fn tell(&self, request: Option<&RequestId>, text: &str) {
        let shown = request.map_or("-", RequestId::as_str);
        // The operator's log gets one line; backtraces are in the function's log.
        let line = text.lines().next().unwrap_or_default();
        let key = request.and_then(|request| self.key_of(request));
        let shown_key = key.map(tracing::field::display);
        tracing::warn!(function = %self.terms.function, instance = %self.id, request = shown, key = shown_key, "{line}");
        let author = request.map_or(Author::Nobody, |id| Author::Request { id: id.clone(), key });
        self.terms.log.write(Stream::Host, self.id, author, text.to_owned());
    }
}
