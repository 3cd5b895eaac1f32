//! Timers follow the clock: each tick is handed to the queue.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::catalog::{Function, Timer, TriggerKind};
use crate::clock;
use crate::ids::{FunctionName, RequestId};
use crate::queue::{Queue, Receipt, StoreError, Tick, TickState};

/// How long at most until the clock is looked at again: somebody may set it.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How long after the queue took nothing it is tried again.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// A timer that is followed.
struct Followed {
    function: Arc<Function>,
    trigger: String,
    qualifier: Option<String>,
    timer: Timer,
    /// As text: another one begins anew.
    schedule: String,
    /// The last tick that was dealt with, or when it began.
    last: SystemTime,
}

/// A tick on its way to the queue.
pub(super) struct Firing<'a> {
    pub(super) function: &'a Function,
    pub(super) trigger: &'a str,
    pub(super) qualifier: Option<&'a str>,
    pub(super) timer: &'a Timer,
}

impl Firing<'_> {
    /// Hands it over. The event is that of Function Compute's time triggers.
    pub(super) async fn fire(
        &self,
        queue: &Queue,
        id: RequestId,
        at: SystemTime,
        tick: Option<Tick>,
    ) -> Result<Receipt, StoreError> {
        let time = humantime::format_rfc3339_seconds(at).to_string();
        let event = json!({"triggerTime": time, "triggerName": self.trigger, "payload": self.timer.payload});
        queue.fire(self.function, self.qualifier, (self.trigger, tick), (id, event.to_string().into())).await
    }
}

/// Follows the clock until the host drains.
pub(super) async fn follow(queue: Arc<Queue>, started: SystemTime) {
    let tasks = queue.host().tasks().clone();
    let mut changes = queue.host().changes();
    let mut followed = Vec::new();
    let mut is_new = true;
    while !tasks.draining() {
        let mut look = LOOK_INTERVAL;
        if is_new {
            match timers(&queue).await {
                Ok(timers) => {
                    followed = timers;
                    is_new = false;
                }
                // Those that were followed before go on.
                Err(error) => {
                    tracing::error!("timers cannot be read or noted, and are tried again: {error:#}");
                    look = STORE_AGAIN;
                }
            }
        }
        for timer in &mut followed {
            look = look.min(timer.look(&queue, started).await);
        }
        tokio::select! {
            () = tokio::time::sleep(look) => {}
            changed = changes.changed() => is_new |= changed.is_ok(),
            () = tasks.drained() => return,
        };
    }
}

/// The timers that there are. What is kept of those that are no more is forgotten.
async fn timers(queue: &Queue) -> anyhow::Result<Vec<Followed>> {
    let kept = queue.tick_states().await?;
    let now = clock::date();
    let mut followed = Vec::new();
    let mut names: HashSet<(FunctionName, String)> = HashSet::new();
    for function in queue.host().functions() {
        for (name, spec) in function.triggers.iter().filter(|(_, spec)| spec.is_enabled()) {
            let Ok(TriggerKind::Timer(timer)) = spec.check() else { continue };
            let schedule = timer.schedule.to_string();
            let is_same = |state: &&TickState| {
                state.function == function.name && state.tick.trigger == *name && state.tick.schedule == schedule
            };
            let last = match kept.iter().find(is_same) {
                Some(state) => state.tick.at,
                None => {
                    let begins = Tick { trigger: name.clone(), schedule: schedule.clone(), at: now };
                    queue.note_tick(&function.name, begins).await?
                }
            };
            names.insert((function.name.clone(), name.clone()));
            let (trigger, qualifier) = (name.clone(), spec.qualifier.clone());
            followed.push(Followed { function: function.clone(), trigger, qualifier, timer, schedule, last });
        }
    }
    for TickState { function, tick, .. } in kept {
        if names.contains(&(function.clone(), tick.trigger.clone())) {
            continue;
        }
        let there = queue.host().function(function.as_str());
        if !there.is_some_and(|there| there.triggers.contains_key(&tick.trigger)) {
            queue.forget_tick(function, tick.trigger).await?;
        } else if !tick.schedule.is_empty() {
            // It is disabled. When it is enabled again it begins anew.
            queue.note_tick(&function, Tick { schedule: String::new(), ..tick }).await?;
        }
    }
    Ok(followed)
}

impl Followed {
    /// Hands over what is due; says how long until the next tick.
    async fn look(&mut self, queue: &Queue, started: SystemTime) -> Duration {
        let now = clock::date();
        for at in self.timer.due(self.last, started, now) {
            let time = humantime::format_rfc3339_seconds(at).to_string();
            let id = RequestId::of_tick(&self.trigger, &time);
            let tick = Tick { trigger: self.trigger.clone(), schedule: self.schedule.clone(), at };
            let Followed { function, trigger, qualifier, timer, .. } = &*self;
            let firing = Firing { function, trigger, qualifier: qualifier.as_deref(), timer };
            if let Err(error) = firing.fire(queue, id, at, Some(tick)).await {
                tracing::warn!(function = %self.function.name, trigger = self.trigger, "tick of {time}: {error}");
                return STORE_AGAIN;
            }
            self.last = at;
        }
        let next = self.timer.schedule.next(now.max(self.last), self.last);
        next.map_or(LOOK_INTERVAL, |next| next.duration_since(clock::date()).unwrap_or_default())
    }
}
