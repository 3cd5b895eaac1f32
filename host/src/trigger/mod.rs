//! What invokes functions by itself: timers. Their ticks are asynchronous invocations, so limits, retries, destinations and the
//! bill are those of any other; the addresses that HTTP triggers give are the catalog's, and the data plane asks for them.
//!
//! A tick's own time is its identity: it is noted in the same step in which its invocation is accepted, so that none comes twice
//! however often the host is started, and none is lost. Another kind of source has its place beside `timer.rs`.

mod timer;

use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog::{Function, TriggerKind, TriggerSpec};
use crate::clock;
use crate::host::Host;
use crate::ids::RequestId;
use crate::queue::{Queue, Receipt, StoreError, TickState};

/// The next times of a timer that are shown.
const NEXT_SHOWN: usize = 5;

/// The triggers of a host.
pub struct Triggers {
    queue: Arc<Queue>,
    /// What was due before was missed.
    started: SystemTime,
}

/// A trigger as it stands.
pub struct Standing {
    /// Its name.
    pub name: String,
    /// What it is.
    pub spec: TriggerSpec,
    /// When a timer ticks next.
    pub next: Vec<SystemTime>,
    /// Its newest invocations, the newest first.
    pub runs: Vec<String>,
}

/// Why a trigger was not fired.
#[derive(Debug, thiserror::Error)]
pub enum FireError {
    /// There is none of that name.
    #[error("function `{0}` has no trigger `{1}`")]
    NotFound(String, String),
    /// It is no timer.
    #[error("`{0}` is an address: call it to fire it")]
    Address(String),
    /// The queue does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Triggers {
    /// The triggers of the queue's host.
    pub fn new(queue: Arc<Queue>) -> Triggers {
        Triggers { queue, started: clock::date() }
    }

    /// The queue that their invocations go to.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Begins to follow the clock.
    pub fn start(&self) {
        let (queue, started) = (self.queue.clone(), self.started);
        self.host().tasks().spawn(timer::follow(queue, started));
    }

    fn host(&self) -> &Arc<Host> {
        self.queue.host()
    }

    /// A function's triggers, by name.
    pub async fn list(&self, function: &Function) -> anyhow::Result<Vec<Standing>> {
        let states = self.queue.tick_states().await?;
        let mut found = Vec::new();
        let now = clock::date();
        for (name, spec) in &function.triggers {
            let is_its = |state: &&TickState| state.function == function.name && state.tick.trigger == *name;
            let state = states.iter().find(is_its);
            let mut next = Vec::new();
            if let (true, Ok(TriggerKind::Timer(timer))) = (spec.is_enabled(), spec.check()) {
                let anchor = state.map_or(now, |state| state.tick.at);
                let following = |after: &SystemTime| timer.schedule.next(*after, anchor);
                next = std::iter::successors(following(&now), following).take(NEXT_SHOWN).collect();
            }
            let runs = state.map(|state| state.runs.clone()).unwrap_or_default();
            found.push(Standing { name: name.clone(), spec: spec.clone(), next, runs });
        }
        Ok(found)
    }

    /// Fires a timer now, beside its own times, whether or not it is enabled.
    pub async fn fire(&self, function: &Function, name: &str) -> Result<Receipt, FireError> {
        let not_found = || FireError::NotFound(function.name.to_string(), name.chars().take(64).collect());
        let spec = function.triggers.get(name).ok_or_else(not_found)?;
        match spec.check() {
            Ok(TriggerKind::Timer(timer)) => {
                let new =
                    timer::Firing { function, trigger: name, qualifier: spec.qualifier.as_deref(), timer: &timer };
                Ok(new.fire(&self.queue, RequestId::new(), clock::date(), None).await?)
            }
            Ok(TriggerKind::Http(http)) => Err(FireError::Address(http.address())),
            Err(_) => Err(not_found()),
        }
    }
}
