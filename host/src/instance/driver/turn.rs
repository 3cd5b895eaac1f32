//! One turn of the driver: describe the instance, ask `decide`, carry out the answer.

use std::time::Duration;

use tokio::time::Instant;

use super::Instance;
use crate::guest::{Entry, Preempted};
use crate::ids::RequestId;
use crate::instance::decide::{Hook, Move, PreFreeze, Step, View, decide};
use crate::instance::lifecycle::Event;
use crate::instance::order::StopReason;

/// Figures of an open window reach the ledger at the latest this long after they changed.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(40);

impl Instance {
    /// Goes through all steps, and returns what the instance looks like afterwards.
    pub(super) fn turn(&mut self) -> View {
        self.stop_requests();
        let mut view = self.view();
        for step in Step::ALL {
            while let Some(next) = decide(step, &view) {
                self.carry_out(next);
                view = self.view();
                if next.ends_turn(step) {
                    return view;
                }
            }
        }
        view
    }

    pub(super) fn view(&self) -> View {
        let at = |instant: Instant| instant.saturating_duration_since(self.made);
        let asks_guest = self.hook.is_some() || !self.overdue.is_empty();
        let preempted = if asks_guest { self.guest.preempted() } else { Preempted::No };
        let hook = self.hook.as_ref().map(|hook| Hook {
            entry: hook.entry,
            deadline: at(hook.deadline),
            earlier: hook.earlier,
            holds_cpu: preempted == Preempted::Call(hook.call),
        });
        let progress_due = self.meter.as_ref().and_then(|meter| meter.progress_due(PROGRESS_INTERVAL));
        let exports = &self.terms.blueprint.exports;
        View {
            now: at(self.now),
            state: self.state,
            start_deadline: self.start_deadline.map(at),
            order: self.inbox.current_order(),
            jobs: self.inbox.jobs(),
            running: self.running.len(),
            concurrency: self.terms.concurrency as usize,
            requests_left: self.requests_left(),
            request_deadline: self.running.iter().map(|running| running.deadline).min().map(at),
            overdue_holds_cpu: self.overdue.iter().any(|(call, _)| preempted == Preempted::Call(*call)),
            hook,
            leftover: self.leftover.is_some(),
            has_pre_freeze: exports.pre_freeze.is_some(),
            owes_pre_stop: self.owes_pre_stop && exports.pre_stop.is_some(),
            freeze_after: self.terms.freeze_after,
            linger_ends: self.linger_ends.map(at),
            progress_due: progress_due.map(at),
        }
    }

    pub(super) fn carry_out(&mut self, next: Move) {
        match next {
            Move::Suspend => self.suspend(),
            Move::Stop(reason) => self.begin_stop(reason),
            Move::CutOff(why) => self.cut_off(why),
            Move::Thaw => self.step(Event::Wanted),
            Move::Resume => self.step(Event::Resume),
            Move::CancelFreeze => {
                self.abandon_hook();
                self.step(Event::Wanted);
            }
            Move::TakeJobs(count) => {
                for _ in 0..count {
                    let Some(job) = self.inbox.take() else { break };
                    self.begin_request(job);
                }
            }
            Move::ReturnJobs => self.return_jobs(),
            Move::PostProgress => self.post_progress(),
            Move::TimeOutRequest { stops } => self.time_out(stops.then_some(StopReason::RequestTimedOut)),
            Move::KillOverdue => self.kill_overdue(),
            Move::TimeOutHook(late) => self.time_out_hook(late),
            Move::TimeOutStart => self.time_out_start(),
            Move::Linger { until } => self.linger_ends = Some(self.made + until),
            Move::Freeze(pre_freeze) => self.freeze(pre_freeze),
            Move::Park => {
                self.step(Event::Frozen);
                self.rest();
            }
            Move::CallPreStop => {
                self.owes_pre_stop = false;
                self.begin_hook(Entry::PreStop);
            }
            Move::End => self.end(),
        }
    }

    fn post_progress(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.memory_peak(self.guest.memory_bytes_peak());
            meter.post_progress(self.now);
        }
    }

    fn freeze(&mut self, pre_freeze: PreFreeze) {
        self.linger_ends = None;
        self.step(Event::Idle);
        match pre_freeze {
            PreFreeze::None => {}
            PreFreeze::Call => self.begin_hook(Entry::PreFreeze),
            PreFreeze::AwaitEarlier => {
                if let Some(call) = self.leftover.take() {
                    self.wait_for_hook(call, Entry::PreFreeze, RequestId::new(), true);
                }
            }
        }
    }
}
