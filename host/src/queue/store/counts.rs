//! What waits and runs, counted in memory: so that a bound is checked before anything is written, and nobody counts rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use crate::ids::FunctionName;
use crate::queue::invocation::{LaneId, LaneKey, Verdict};

/// A lane, and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct LaneCounts {
    /// The lane.
    pub id: LaneId,
    /// What it is for.
    pub key: LaneKey,
    /// Invocations that wait.
    pub waiting: u64,
    /// Invocations that run.
    pub running: u64,
    /// When the first of them was due when the store was opened.
    pub due: Option<SystemTime>,
}

/// Why nothing more is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The function's own bound.
    #[error("{waiting} events wait for function `{function}`, as many as its `async.maxQueued` allows")]
    Function {
        /// The function.
        function: FunctionName,
        /// How many wait.
        waiting: u64,
    },
    /// One function's share of the host's bound.
    #[error(
        "the events that wait for function `{0}` take half of the {1} MB that `queue-max-mb` allows, and no function may take \
         more"
    )]
    Share(FunctionName, u64),
    /// The host's bound.
    #[error("events that wait take {0} MB on disk, as much as the host's `queue-max-mb` allows")]
    Host(u64),
}

/// The counts.
pub(super) struct Counts {
    state: Mutex<State>,
    bytes_max: u64,
}

#[derive(Default)]
struct State {
    lanes: HashMap<LaneId, LaneCounts>,
    functions: HashMap<FunctionName, Load>,
}

/// What waits for a function or runs.
#[derive(Clone, Copy, Default)]
struct Load {
    waiting: u64,
    bytes: u64,
}

/// A place for an invocation that is about to be stored; given back when it is dropped, unless it is kept.
pub(super) struct Place {
    counts: Arc<Counts>,
    function: FunctionName,
    bytes: u64,
    kept: bool,
}

impl Place {
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            self.counts.lock().release(&self.function, 1, self.bytes);
        }
    }
}

impl State {
    fn release(&mut self, function: &FunctionName, waiting: u64, bytes: u64) {
        if let Some(load) = self.functions.get_mut(function) {
            load.waiting = load.waiting.saturating_sub(waiting);
            load.bytes = load.bytes.saturating_sub(bytes);
            if load.waiting == 0 && load.bytes == 0 {
                self.functions.remove(function);
            }
        }
    }

    fn add(&mut self, id: LaneId, key: &LaneKey) -> &mut LaneCounts {
        let new = || LaneCounts { id, key: key.clone(), waiting: 0, running: 0, due: None };
        self.lanes.entry(id).or_insert_with(new)
    }
}

impl Counts {
    pub(super) fn new(bytes_max: u64) -> Counts {
        Counts { state: Mutex::default(), bytes_max }
    }

    /// Counts what an opened store holds: one invocation that waits.
    pub(super) fn found(&self, id: LaneId, key: &LaneKey, due: SystemTime, bytes: u64) {
        let mut state = self.lock();
        let load = state.functions.entry(key.function.clone()).or_default();
        load.waiting += 1;
        load.bytes += bytes;
        let lane = state.add(id, key);
        lane.waiting += 1;
        lane.due = Some(lane.due.map_or(due, |before| before.min(due)));
    }

    /// Sets a place aside for an invocation with so many bytes.
    pub(super) fn reserve(
        self: &Arc<Counts>,
        function: &FunctionName,
        bytes: u64,
        waiting_max: u64,
    ) -> Result<Place, Full> {
        let mut state = self.lock();
        let load = state.functions.get(function).copied().unwrap_or_default();
        if load.waiting >= waiting_max {
            return Err(Full::Function { function: function.clone(), waiting: load.waiting });
        }
        if load.bytes + bytes > self.bytes_max / 2 {
            return Err(Full::Share(function.clone(), self.bytes_max >> 20));
        }
        let load = state.functions.entry(function.clone()).or_default();
        load.waiting += 1;
        load.bytes += bytes;
        Ok(Place { counts: self.clone(), function: function.clone(), bytes, kept: false })
    }

    /// An invocation was stored that has its place already.
    pub(super) fn accepted(&self, id: LaneId, key: &LaneKey) {
        self.lock().add(id, key).waiting += 1;
    }

    /// The same for one without a place: what a destination gets is never refused for want of it.
    pub(super) fn appended(&self, id: LaneId, key: &LaneKey, bytes: u64) {
        let mut state = self.lock();
        let load = state.functions.entry(key.function.clone()).or_default();
        load.waiting += 1;
        load.bytes += bytes;
        state.add(id, key).waiting += 1;
    }

    /// So many of a lane run now.
    pub(super) fn claimed(&self, id: LaneId, count: u64) {
        if let Some(lane) = self.lock().lanes.get_mut(&id) {
            lane.waiting = lane.waiting.saturating_sub(count);
            lane.running += count;
        }
    }

    /// One that ran waits again or has ended.
    pub(super) fn settled(&self, id: LaneId, key: &LaneKey, bytes: u64, verdict: &Verdict) {
        let mut state = self.lock();
        let lane = state.add(id, key);
        lane.running = lane.running.saturating_sub(1);
        match verdict {
            Verdict::Retry { .. } => lane.waiting += 1,
            Verdict::End { .. } => state.release(&key.function, 1, bytes),
        }
    }

    /// One that waited was stopped.
    pub(super) fn stopped(&self, id: LaneId, bytes: u64) {
        let mut state = self.lock();
        let Some(lane) = state.lanes.get_mut(&id) else { return };
        lane.waiting = lane.waiting.saturating_sub(1);
        let function = lane.key.function.clone();
        state.release(&function, 1, bytes);
    }

    pub(super) fn lanes(&self) -> Vec<LaneCounts> {
        self.lock().lanes.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}
