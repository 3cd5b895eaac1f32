//! Calls into the guest, and what comes back: requests, hooks, and the guest's own events.

use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Answered, Clock, HookCall, Instance, Report, Running};
use crate::clock;
use crate::guest::{self, Call, CallContext, CallId, Entry, Fault, Input, Reply, Response, Returned};
use crate::ids::RequestId;
use crate::instance::decide::{self, AfterHook};
use crate::instance::job::{Job, Outcome, Timings};
use crate::instance::lifecycle::Event;
use crate::machine;
use crate::meter::WindowMeter;
use crate::traces::{HookSpan, Trace};

/// What differs between the calls of one instance.
struct Told {
    version: Arc<str>,
    attempt: u32,
    trace: Trace,
}

impl Instance {
    pub(super) fn run_guest(&mut self, cx: &mut Context<'_>, clock: Clock, was_woken: &mut impl FnMut() -> bool) {
        self.settled = true;
        if self.start_deadline.is_none() {
            self.begin_start();
        }
        let executed = match clock {
            Clock::Wall => {
                let from = Instant::now();
                self.guest.poll(cx, was_woken);
                self.now = Instant::now();
                self.now - from
            }
            Clock::Cpu => {
                let from = machine::thread_cpu();
                self.guest.poll(cx, was_woken);
                self.now = Instant::now();
                machine::thread_cpu().saturating_sub(from)
            }
        };
        self.longest_run = self.longest_run.max(executed);
        if let Some(meter) = &mut self.meter {
            meter.executed(executed);
            self.vitals.add_executed(executed);
        }
        self.vitals.set_memory_bytes(self.guest.memory_bytes());
        while let Some(event) = self.guest.take_event() {
            match event {
                guest::Event::Started => self.started(),
                guest::Event::Responded(call, response) => self.responded(call, response),
                guest::Event::Returned(call, returned) => self.returned(call, returned),
                guest::Event::Ended(ending) => return self.fail(ending),
            }
        }
    }

    /// The window opens before the guest's first step: start functions are its code like any other.
    fn begin_start(&mut self) {
        self.open_window(Duration::ZERO);
        if let Some(meter) = &mut self.meter {
            meter.start_began(self.now);
        }
        self.start_deadline = Some(self.now + self.terms.start_timeout);
    }

    pub(super) fn started(&mut self) {
        self.step(Event::Booted);
        if self.terms.blueprint.exports.initializer.is_some() {
            self.begin_hook(Entry::Initializer);
        } else {
            self.ready();
        }
        if let Some(meter) = &mut self.meter {
            meter.ended_one(self.now);
        }
    }

    pub(super) fn ready(&mut self) {
        self.owes_pre_stop = true;
        self.step(Event::Ready);
    }

    fn next_call(&mut self) -> CallId {
        self.calls += 1;
        self.settled = false;
        CallId(self.calls)
    }

    fn context(&self, request: &RequestId, timeout: Duration, told: &Told) -> CallContext {
        let wall = self.meter.as_ref().map_or_else(clock::date, |meter| meter.wall(self.now));
        let deadline = (wall + timeout).duration_since(UNIX_EPOCH);
        CallContext {
            request_id: request.shared(),
            function: self.terms.function.shared(),
            version: told.version.clone(),
            instance_id: self.id_text.clone(),
            memory_mb: self.terms.memory_mb,
            deadline_ms: deadline.map_or(0, |since| since.as_millis() as u64),
            attempt: told.attempt,
            traceparent: told.trace.context.as_ref().map(|context| context.traceparent.clone()),
        }
    }

    pub(super) fn begin_request(&mut self, mut job: Box<Job>) {
        let now = self.now;
        self.linger_ends = None;
        job.meter.began(self.id, now);
        let accepted = job.meter.reading();
        let (version, attempt, key) = (accepted.version.clone(), accepted.attempt, accepted.key);
        let told = Told { version, attempt, trace: std::mem::take(&mut job.trace) };
        let context = self.context(&job.request, job.timeout, &told);
        let input = std::mem::take(&mut job.input);
        let call = self.next_call();
        let (entry, request, trace) = (Entry::Handler, job.request.clone(), told.trace);
        self.guest.call(Call { id: call, entry, request, key, context, trace, input });
        let mut executed_before = Duration::ZERO;
        if let Some(meter) = &mut self.meter {
            meter.request_began(now);
            executed_before = meter.executed_so_far();
        }
        self.vitals.add_request();
        let deadline = now + job.timeout;
        self.running.push(Running { call, job, deadline, is_stopped: false, began: now, executed_before });
    }

    pub(super) fn begin_hook(&mut self, entry: Entry) {
        let request = RequestId::new();
        // The initializer comes before the requests that wait for it.
        let followed = if entry == Entry::Initializer { &self.inbox.followed() } else { &self.followed };
        let span = followed.hook(entry.as_str(), &self.terms.function, (self.id, &request));
        let trace = span.as_ref().map(HookSpan::trace).unwrap_or_default();
        let told = Told { version: self.terms.version.get(), attempt: 1, trace };
        let context = self.context(&request, self.terms.timeout(entry), &told);
        let call = self.next_call();
        let (id, input, trace) = (call, Input::Nothing, told.trace);
        self.guest.call(Call { id, entry, request: request.clone(), key: None, context, trace, input });
        self.terms.metrics.hook_called(entry);
        self.wait_for_hook(call, entry, request, false);
        if let Some(hook) = &mut self.hook {
            hook.span = span.map(Box::new);
        }
    }

    pub(super) fn wait_for_hook(&mut self, call: CallId, entry: Entry, request: RequestId, earlier: bool) {
        let now = self.now;
        if let Some(meter) = &mut self.meter {
            if earlier { meter.hook_resumed(now) } else { meter.hook_began(now) }
        }
        let deadline = now + self.terms.timeout(entry);
        self.hook = Some(HookCall { call, entry, request, began: now, deadline, earlier, span: None });
    }

    pub(super) fn returned(&mut self, call: CallId, returned: Returned) {
        if let Some(index) = self.running.iter().position(|running| running.call == call) {
            let outcome = match returned {
                Ok(Reply::Event(reply)) => Outcome::Replied(reply),
                Ok(Reply::Response(response)) => Outcome::Responded(response),
                Ok(Reply::Nothing) => Outcome::Replied(Vec::new()),
                Err(Fault::Failed(error)) => Outcome::Failed(error),
                Err(Fault::BadResponse(text)) => {
                    self.tell(Some(&self.running[index].job.request), &format!("no proper response: {text}"));
                    Outcome::BadResponse(text)
                }
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

    /// The caller gets the head at once; the request goes on until all of its body is read.
    pub(super) fn responded(&mut self, call: CallId, response: Box<Response>) {
        // Without its request, which timed out, the response is dropped, and the guest sees that nobody reads it.
        let Some(index) = self.running.iter().position(|running| running.call == call) else { return };
        let timings = self.timings(&self.running[index]);
        self.running[index].job.respond(response, timings);
    }

    pub(super) fn take_running(&mut self, index: usize, outcome: Outcome) -> Answered {
        let mut running = self.running.swap_remove(index);
        let timings = self.timings(&running);
        running.job.meter.ended(self.now);
        if let Some(span) = &running.job.span {
            self.followed.add(span);
        }
        if let Some(meter) = &mut self.meter {
            meter.ended_one(self.now);
        }
        Answered { job: running.job, outcome, timings }
    }

    fn timings(&self, running: &Running) -> Timings {
        let executed_so_far = self.meter.as_ref().map_or(Duration::ZERO, WindowMeter::executed_so_far);
        Timings {
            queue: running.job.assigned.duration_since(running.job.accepted),
            start: running.began.duration_since(running.job.assigned),
            handler: self.now.duration_since(running.began),
            executed: executed_so_far.saturating_sub(running.executed_before),
        }
    }

    fn hook_returned(&mut self, returned: Returned) {
        let view = self.view();
        let Some(hook) = self.take_hook() else { return };
        let error = returned.err().map(|(Fault::Failed(error) | Fault::BadResponse(error))| error);
        if error.is_some() {
            self.count_hook_failure(hook.entry, "failed");
        }
        let next = decide::after_hook(error.is_none(), &view);
        if next == AfterHook::FailInstance {
            return self.initializer_failed(&hook.request, Outcome::Failed, error.unwrap_or_default());
        }
        if let Some(error) = error {
            self.tell(Some(&hook.request), &format!("{} failed: {error}", hook.entry.as_str()));
        }
        match next {
            AfterHook::Ready => self.ready(),
            AfterHook::CallPreFreeze => self.begin_hook(Entry::PreFreeze),
            AfterHook::FailInstance | AfterHook::Nothing => {}
        }
    }

    /// Stops waiting for a hook that goes on by itself.
    pub(super) fn abandon_hook(&mut self) {
        if let Some(hook) = self.take_hook()
            && hook.entry == Entry::PreFreeze
        {
            self.leftover = Some(hook.call);
        }
    }

    /// The hook is over, or is no longer waited for.
    fn take_hook(&mut self) -> Option<HookCall> {
        let hook = self.hook.take()?;
        if let Some(meter) = &mut self.meter {
            meter.ended_one(self.now);
        }
        self.terms.hook_times.observe(hook.entry, self.now.saturating_duration_since(hook.began));
        Some(hook)
    }
}
