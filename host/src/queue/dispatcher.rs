//! What keeps the queue going: takes what is due out of the store, runs it, and notes what became of it.

use std::sync::Arc;
use std::time::Duration;

use super::Queue;
use super::attempt::{Attempted, Runner};
use super::destination;
use super::invocation::{AttemptResult, Claimed, LaneKey, State, Verdict};
use super::lanes::{Room, Turn};
use super::policy::{self, Attempt, Ended, Next};
use crate::catalog::{AsyncRules, AsyncSpec, Destination};
use crate::chance;
use crate::clock;
use crate::ids::LATEST;

/// How long after the store failed it is tried again.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// How often what ended long ago is looked for.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);
/// Between two steps of that, if there is more to do.
const TIDY_PAUSE: Duration = Duration::from_millis(20);

/// Begins attempts until the host drains.
pub(super) async fn dispatch(queue: Arc<Queue>) {
    let tasks = queue.host.tasks().clone();
    let mut changes = queue.host.changes();
    while !tasks.draining() {
        let woken = queue.wake.notified();
        match queue.next_turn() {
            Ok(turn) => {
                let queue = queue.clone();
                tasks.spawn(async move { take_turn(&queue, turn).await });
            }
            Err(wait) => {
                let wait = tokio::time::sleep(wait.unwrap_or(Duration::MAX));
                tokio::select! {
                    () = woken => {}
                    () = wait => {}
                    changed = changes.changed() => if changed.is_ok() { queue.lanes().look_again() },
                    () = tasks.drained() => {}
                }
            }
        }
    }
}

/// Forgets what ended long ago, until the host drains.
pub(super) async fn tidy(queue: Arc<Queue>) {
    let tasks = queue.host.tasks().clone();
    let mut pause = TIDY_INTERVAL;
    while tokio::time::timeout(pause, tasks.drained()).await.is_err() {
        // What fails is told by whoever stores something that matters.
        let more = queue.store.tidy().await.unwrap_or(false);
        pause = if more { TIDY_PAUSE } else { TIDY_INTERVAL };
    }
}

impl Queue {
    /// The lane that comes next, or how long to wait.
    fn next_turn(&self) -> Result<Turn, Option<Duration>> {
        let now = clock::date();
        let next = self.lanes().next(now, self.options.concurrency_max, |lane| self.room_of(lane));
        next.map_err(|soonest| soonest.map(|at| at.duration_since(now).unwrap_or_default()))
    }

    /// How many attempts a lane may run.
    fn room_of(&self, lane: &LaneKey) -> Room {
        let Some(function) = self.host.function(lane.function.as_str()) else {
            return Room::For(usize::MAX); // They fail at once.
        };
        let qualifier = lane.qualifier.as_deref().unwrap_or(LATEST);
        let rules = function.asynchronous.rules(qualifier);
        if lane.url.is_some() {
            return Room::For(SENDING_MAX);
        }
        if function.disabled.is_some() || function.suspended || !self.host.ledger_has_room() {
            return Room::OnlyExpired(clock::ago(rules.age_max));
        }
        let Some(target) = function.resolve(qualifier, |_| 0.0) else { return Room::For(usize::MAX) };
        let settings = &target.revision.settings;
        let shared = if target.revision.exports.shares() { settings.concurrency } else { 1 };
        Room::For(policy::concurrency(&rules, u64::from(settings.instances_max) * u64::from(shared)))
    }

    /// The rules for what is in a lane.
    fn rules(&self, claimed: &Claimed) -> AsyncRules {
        let lane = &claimed.lane;
        let qualifier = lane.qualifier.as_deref().unwrap_or(LATEST);
        let rules = match self.host.function(lane.function.as_str()) {
            Some(function) => function.asynchronous.rules(qualifier),
            None => AsyncSpec::default().rules(qualifier),
        };
        match claimed.origin.sending {
            Some(sending) => AsyncRules { attempts_max: sending.attempts_max, ..rules },
            None => rules,
        }
    }

    /// Who is told how an invocation ended. Nobody is told how telling ended, or of what an operator stopped.
    fn destination(&self, claimed: &Claimed, state: State) -> Option<Destination> {
        let succeeded = match state {
            State::Succeeded => true,
            State::Failed | State::Expired => false,
            State::Queued | State::Running | State::WaitingToRetry | State::Stopped => return None,
        };
        let LaneKey { function, qualifier, url: None } = &claimed.lane else { return None };
        let function = self.host.function(function.as_str())?;
        function.asynchronous.destination(qualifier.as_deref().unwrap_or(LATEST), succeeded)
    }
}

/// Requests that are sent to one address at once.
const SENDING_MAX: usize = 16;

async fn take_turn(queue: &Arc<Queue>, turn: Turn) {
    let claim = queue.store.claim(turn.lane, turn.key.clone(), turn.due_by, turn.limit).await;
    let Ok(claim) = claim else {
        let again = clock::date() + STORE_AGAIN;
        queue.lanes().claimed(&turn, 0, Some(again));
        return queue.wake.notify_one();
    };
    queue.lanes().claimed(&turn, claim.claimed.len(), claim.next);
    queue.wake.notify_one();
    for claimed in claim.claimed {
        let queue = queue.clone();
        let tasks = queue.host.tasks().clone();
        tasks.spawn(async move { attempt(&queue, claimed).await });
    }
}

/// Runs an attempt, and notes what became of it.
async fn attempt(queue: &Queue, claimed: Claimed) {
    let rules = queue.rules(&claimed);
    let age = || clock::date().duration_since(claimed.accepted).unwrap_or_default();
    let is_too_old = age() >= rules.age_max;
    // Held until the end is stored, so that no order to stop is lost.
    let stop = queue.register(&claimed);
    let attempted = if is_too_old {
        Attempted::expired()
    } else {
        let runner = Runner { host: &queue.host, kept_bytes_max: queue.options.kept_bytes_max, stop: stop.token() };
        runner.run(&claimed).await
    };
    let Attempted { ended, mut result, reply } = attempted;
    queue.host.work_metrics().attempted(&result.code);
    let ending = Attempt { ended, failures: claimed.failures, age: age() };
    let next = match policy::after(ending, &rules, chance::drawn()) {
        Next::End(State::Succeeded) => Next::End(State::Succeeded),
        _ if stop.token().is_cancelled() => Next::End(State::Stopped),
        next => next,
    };
    let verdict = match next {
        Next::Retry { wait, counts } => Verdict::Retry { due: clock::date() + wait, counts },
        Next::End(state) => {
            let state = if is_too_old { State::Expired } else { state };
            let told = queue.destination(&claimed, state).map(|destination| {
                let ending = (&result, reply.as_deref());
                destination::tell(&destination, &claimed, state, ending, queue.options.chain_max)
            });
            let (told, next) = told.map_or((None, None), |(told, next)| (Some(told), next));
            if let Some(refused) = told.as_ref().and_then(|told| told.refused.as_ref()) {
                tracing::warn!(function = %claimed.lane.function, invocation = %claimed.id, "destination not told: {refused}");
            }
            result.told = told;
            Verdict::End { state, reply, next }
        }
    };
    if ended == Ended::NotBegun {
        tracing::debug!(function = %claimed.lane.function, invocation = %claimed.id, "not begun: {}", result.detail);
    }
    let waits = matches!(verdict, Verdict::Retry { .. });
    settle(queue, &claimed, result, verdict).await;
    if waits && stop.token().is_cancelled() {
        // The order came while it was stored that it waits. If that fails, whoever asks again is told so.
        let _ = queue.store.stop(claimed.lane.function.clone(), claimed.id.clone()).await;
    }
}

/// Notes what became of an attempt, however long that takes: what is not noted runs again after the next start.
async fn settle(queue: &Queue, claimed: &Claimed, result: AttemptResult, verdict: Verdict) {
    loop {
        match queue.store.settle(claimed, result.clone(), verdict.clone()).await {
            Ok(next) => {
                let mut lanes = queue.lanes();
                if let (Some(lane), Verdict::End { next: Some(next), .. }) = (next, &verdict) {
                    lanes.due(lane, &next.lane, next.due);
                }
                let again = match verdict {
                    Verdict::Retry { due, .. } => Some(due),
                    Verdict::End { .. } => None,
                };
                lanes.ended(claimed.lane_id, again);
                break;
            }
            Err(_) => tokio::select! {
                () = tokio::time::sleep(STORE_AGAIN) => {}
                () = queue.host.tasks().closing() => break,
            },
        }
    }
    queue.wake.notify_one();
}
