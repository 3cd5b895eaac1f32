//! The call that the guest is running: a log line belongs to its request, and an outgoing request continues its trace.
//!
//! Guests do not report it. If there is one candidate, it is that call. If there are several, the engine is asked which
//! task is running. That takes longer than most host calls, so it is done only then (see `running::record_task`).

use std::collections::VecDeque;

use wasmtime::component::GuestTaskId;

use super::call::CallId;
use crate::ids::{KeyId, RequestId};
use crate::log::Author;
use crate::traces::Trace;

/// Answered calls to remember, because their background work may still run: enough to name the request of a late line,
/// and a bound for guests that start work with each request and never end it.
const ANSWERED_MAX: usize = 16;

/// The request that a call serves.
#[derive(Clone)]
pub(super) struct Origin {
    /// The request, or the hook's own identifier.
    pub(super) request: RequestId,
    /// The access key that its caller showed.
    pub(super) key: Option<KeyId>,
    /// What its own requests continue.
    pub(super) trace: Trace,
}

/// The calls whose code may be running.
#[derive(Default)]
pub(super) struct Attribution {
    in_flight: Vec<Running>,
    /// Calls that returned but may have left background work, the latest last.
    answered: VecDeque<Running>,
    /// The task whose host call is being served. Set only while the engine must be asked.
    current: Option<GuestTaskId>,
}

/// A call and the engine's task for it.
struct Running {
    task: GuestTaskId,
    call: CallId,
    origin: Origin,
}

/// Several calls are candidates, and it is not known which one is running.
struct Ambiguous;

impl Attribution {
    /// A call became a task.
    pub(super) fn begin(&mut self, call: CallId, task: GuestTaskId, origin: Origin) {
        // The engine reuses the identifiers of finished tasks, so an answered call could claim the work of the new
        // task.
        self.answered.retain(|running| running.task != task);
        self.in_flight.push(Running { task, call, origin });
    }

    /// A call returned. If the guest is `silent`, no task is left in it, so no answered call has code that still runs.
    pub(super) fn end(&mut self, call: CallId, silent: bool) {
        // A hook that the component does not have never became a task.
        let Some(index) = self.in_flight.iter().position(|running| running.call == call) else { return };
        let running = self.in_flight.swap_remove(index);
        if silent {
            self.answered.clear();
            return;
        }
        if self.answered.len() == ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(running);
    }

    /// True if answered calls are remembered.
    pub(super) fn has_answered(&self) -> bool {
        !self.answered.is_empty()
    }

    /// Called when no task is left in the guest.
    pub(super) fn forget_answered(&mut self) {
        self.answered.clear();
    }

    /// True if several calls are candidates, so the engine must be asked which one is running.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.candidates().nth(1).is_some()
    }

    /// Records the task that called the host, or none when guest code runs again.
    pub(super) fn set_current(&mut self, task: Option<GuestTaskId>) {
        self.current = task;
    }

    /// The call in flight that runs as `task`.
    pub(super) fn call_of(&self, task: GuestTaskId) -> Option<CallId> {
        self.in_flight.iter().find(|running| running.task == task).map(|running| running.call)
    }

    /// The origin of the running call, if it is known.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.working_for().ok().flatten().map(|running| running.origin.clone())
    }

    /// The author of a line that the guest writes now.
    pub(super) fn author(&self) -> Author {
        match self.working_for() {
            Ok(Some(Running { origin, .. })) => Author::Request { id: origin.request.clone(), key: origin.key },
            Ok(None) => Author::Nobody,
            Err(Ambiguous) => Author::Unknown,
        }
    }

    fn candidates(&self) -> impl Iterator<Item = &Running> {
        self.in_flight.iter().chain(&self.answered)
    }

    fn working_for(&self) -> Result<Option<&Running>, Ambiguous> {
        if !self.is_ambiguous() {
            return Ok(self.candidates().next());
        }
        self.candidates().find(|running| Some(running.task) == self.current).map(Some).ok_or(Ambiguous)
    }
}
