//! Asynchronous invocations: accepted once they are on disk, run when the function has room, tried again if they fail, and
//! told to a destination when they are over.
//!
//! `store/` keeps them, behind one interface. The `dispatcher` takes what is due in the order that `lanes` says, and an
//! `attempt` goes through the host's one door like any other call. What follows is decided in `policy`; who is then told, in
//! `destination`; and `delivery` sends to addresses. Everything is at least once: what ran when the host was killed, and whose
//! end was not noted, runs again.

mod attempt;
mod delivery;
mod destination;
mod dispatcher;
mod http_head;
mod invocation;
mod lanes;
mod payload;
mod policy;
mod store;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::invocation::{AttemptResult, HttpHead, Record, State, Tick, TickState, Told};
use self::invocation::{Claimed, LaneKey, NewInvocation, Origin};
use self::lanes::Lanes;
pub use self::payload::{Encoding, Payload};
use self::store::{Accepted, Store, StoreBounds};
pub use self::store::{StoreError, Wanted, Whole};
use crate::catalog::Function;
use crate::clock;
use crate::config::QueueConfig;
use crate::host::Host;
use crate::ids::{FunctionName, LATEST, RequestId};
use crate::invoke::Call;

/// Failed invocations that one order replays.
const REPLAYED_MAX: usize = 10_000;
/// How often an order to stop looks for an attempt that is about to begin, and the pause between.
const STOP_TRIES: usize = 20;
const STOP_PAUSE: Duration = Duration::from_millis(20);

/// The asynchronous invocations of a host.
pub struct Queue {
    host: Arc<Host>,
    store: Store,
    options: QueueConfig,
    lanes: Mutex<Lanes>,
    /// Something came, ended, or may begin.
    wake: Notify,
    /// What ends the attempts that run.
    running: Mutex<HashMap<(FunctionName, RequestId), CancellationToken>>,
}

/// What a caller hands over.
pub struct HandedOver {
    /// The identifier that the caller chose, if any.
    pub id: Option<RequestId>,
    /// The request, if it is one of HTTP.
    pub http: Option<HttpHead>,
    /// The event, or the request's body.
    pub event: Bytes,
}

/// What a caller gets for an invocation that was accepted.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Its identifier.
    pub id: RequestId,
    /// Where it stands.
    pub state: State,
    /// Whether the function had one of this identifier already.
    pub is_known: bool,
}

/// Why an order about an invocation was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such invocation.
    #[error("function `{0}` has no asynchronous invocation `{1}`; it may have ended long ago")]
    NotFound(FunctionName, RequestId),
    /// It is over.
    #[error("the invocation has {} and cannot be stopped", .0.as_str())]
    Ended(State),
    /// It is not over.
    #[error("the invocation is {}; only what has ended can be replayed", .0.as_str())]
    NotEnded(State),
    /// Its event was too large to be kept.
    #[error(
        "the event was larger than the host's `queue-kept-bytes-max` allows, and is gone since the invocation ended"
    )]
    NotKept,
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of the host.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

/// An attempt that can be stopped while this is held.
struct Registered<'a> {
    queue: &'a Queue,
    key: (FunctionName, RequestId),
    stop: CancellationToken,
}

impl Registered<'_> {
    fn token(&self) -> CancellationToken {
        self.stop.clone()
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.queue.running().remove(&self.key);
    }
}

impl Queue {
    /// Opens the queue in the state directory.
    pub fn open(host: Arc<Host>, state_dir: &Path, options: &QueueConfig) -> anyhow::Result<Arc<Queue>> {
        let bounds = StoreBounds {
            bytes_max: options.bytes_max,
            ended_max: options.ended_max,
            kept_for: options.kept_for,
            kept_bytes_max: options.kept_bytes_max as u64,
        };
        let store = Store::open(&state_dir.join("queue.sqlite"), bounds)?;
        let mut lanes = Lanes::default();
        for lane in store.lanes() {
            if let Some(due) = lane.due {
                lanes.due(lane.id, &lane.key, due);
            }
        }
        Ok(Arc::new(Queue {
            host,
            store,
            options: options.clone(),
            lanes: Mutex::new(lanes),
            wake: Notify::new(),
            running: Mutex::default(),
        }))
    }

    /// The host whose functions they invoke.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Begins to run what waits.
    pub fn start(self: &Arc<Self>) {
        self.host.tasks().spawn(dispatcher::dispatch(self.clone()));
        self.host.tasks().spawn(dispatcher::tidy(self.clone()));
    }

    /// Accepts a call that was admitted, with its event: it is on disk when this returns. The same identifier is accepted once.
    pub async fn accept(
        &self,
        function: &Function,
        call: &Call<'_>,
        handed: HandedOver,
    ) -> Result<Receipt, StoreError> {
        let HandedOver { id, http, event } = handed;
        let origin = Origin {
            key: call.caller.key(),
            traceparent: call.trace.as_ref().map(|trace| trace.traceparent.to_string()),
            affinity: call.affinity.map(|affinity| String::from_utf8_lossy(affinity).into_owned()),
            http,
            ..Origin::default()
        };
        let lane = lane_of(function, call.qualifier);
        self.take(Some(function), lane, (id.unwrap_or_default(), None), (origin, event)).await
    }

    /// Accepts an invocation for a trigger. One for a tick that was dealt with is not accepted again.
    pub async fn fire(
        &self,
        function: &Function,
        qualifier: Option<&str>,
        (trigger, tick): (&str, Option<Tick>),
        (id, event): (RequestId, Bytes),
    ) -> Result<Receipt, StoreError> {
        let origin = Origin { trigger: Some(trigger.to_owned()), ..Origin::default() };
        self.take(Some(function), lane_of(function, qualifier), (id, tick), (origin, event)).await
    }

    /// What is kept of timers.
    pub async fn tick_states(&self) -> anyhow::Result<Vec<TickState>> {
        let store = self.store.clone();
        self.host.tasks().blocking(move || store.ticks()).await?
    }

    /// Notes where a timer begins, and says when that is.
    pub async fn note_tick(&self, function: &FunctionName, tick: Tick) -> Result<SystemTime, StoreError> {
        let at = clock::from_microseconds(clock::microseconds(tick.at));
        self.store.note_tick(function.clone(), tick).await?;
        Ok(at)
    }

    /// Forgets a timer.
    pub async fn forget_tick(&self, function: FunctionName, trigger: String) -> Result<(), StoreError> {
        self.store.forget_tick(function, trigger).await
    }

    /// Stores an invocation of a function; none: it was deleted, which the attempt will say.
    async fn take(
        &self,
        function: Option<&Function>,
        lane: LaneKey,
        (id, tick): (RequestId, Option<Tick>),
        (origin, event): (Origin, Bytes),
    ) -> Result<Receipt, StoreError> {
        let due = clock::date();
        let qualifier = lane.qualifier.as_deref().unwrap_or(LATEST);
        let queued_max = function.map_or(u64::MAX, |function| function.asynchronous.rules(qualifier).queued_max);
        let function_since = function.map_or(SystemTime::UNIX_EPOCH, |function| function.created);
        let new = NewInvocation { lane: lane.clone(), id: id.clone(), due, origin, event, function_since, tick };
        let (state, is_known) = match self.store.accept(new, queued_max).await? {
            Accepted::Known(state) => (state, true),
            Accepted::New(in_lane) => {
                self.lanes().due(in_lane, &lane, due);
                self.wake.notify_one();
                (State::Queued, false)
            }
        };
        Ok(Receipt { id, state, is_known })
    }

    /// One invocation with its event and its reply, as far as they are kept.
    pub async fn show(&self, function: FunctionName, id: RequestId) -> anyhow::Result<Option<Whole>> {
        let (store, since) = (self.store.clone(), self.since(&function));
        let found = self.host.tasks().blocking(move || store.show(&function, &id)).await??;
        Ok(found.filter(|(record, _, _)| record.accepted >= since))
    }

    /// From when on invocations are a function's own: before, another one may have had its name.
    fn since(&self, function: &FunctionName) -> SystemTime {
        self.host.function(function.as_str()).map_or(SystemTime::UNIX_EPOCH, |function| function.created)
    }

    /// Invocations of a function, the newest first.
    pub async fn list(&self, wanted: Wanted) -> anyhow::Result<Vec<Record>> {
        let since = self.since(&wanted.function);
        let wanted = Wanted { from: Some(wanted.from.map_or(since, |from| from.max(since))), ..wanted };
        let store = self.store.clone();
        self.host.tasks().blocking(move || store.list(&wanted)).await?
    }

    /// Stops an invocation: one that waits at once, one that runs as if it had timed out.
    pub async fn stop(&self, function: FunctionName, id: RequestId) -> Result<State, OrderError> {
        let key = (function, id);
        for _ in 0..STOP_TRIES {
            match self.store.stop(key.0.clone(), key.1.clone()).await? {
                store::Stop::Done => return Ok(State::Stopped),
                store::Stop::Ended(state) => return Err(OrderError::Ended(state)),
                store::Stop::NotFound => return Err(OrderError::NotFound(key.0, key.1)),
                store::Stop::Running => {}
            }
            if let Some(stop) = self.running().get(&key) {
                stop.cancel();
                return Ok(State::Running);
            }
            // It is about to begin, or has just ended.
            tokio::time::sleep(STOP_PAUSE).await;
        }
        Ok(State::Running)
    }

    /// Accepts the event of an invocation that has ended once more, under a new identifier.
    pub async fn replay(&self, function: FunctionName, id: RequestId) -> Result<Receipt, OrderError> {
        let found = self.show(function.clone(), id.clone()).await?;
        let Some((record, event, _)) = found else { return Err(OrderError::NotFound(function, id)) };
        if !record.state.has_ended() {
            return Err(OrderError::NotEnded(record.state));
        }
        let event = event.ok_or(OrderError::NotKept)?;
        let origin = Origin { replay_of: Some(id.to_string()), ..record.origin };
        let function = self.host.function(function.as_str());
        Ok(self.take(function.as_deref(), record.lane, (RequestId::new(), None), (origin, event)).await?)
    }

    /// The same for all that `wanted` names and that were not replayed yet, the oldest first. Says how many were replayed, and
    /// how many could not be.
    pub async fn replay_all(&self, wanted: Wanted) -> Result<(u64, u64), OrderError> {
        let function = wanted.function.clone();
        let mut found = self.list(Wanted { limit: REPLAYED_MAX, replayed: false, ..wanted }).await?;
        found.reverse();
        let (mut replayed, mut left) = (0, 0);
        for record in found {
            match self.replay(function.clone(), record.id).await {
                Ok(_) => replayed += 1,
                Err(OrderError::Store(error)) => return Err(error.into()),
                Err(_) => left += 1,
            }
        }
        Ok((replayed, left))
    }

    /// The secret that receivers check signatures with.
    pub fn webhook_secret(&self, function: &FunctionName) -> String {
        delivery::shown(&self.host.access().webhook_secret(function.as_str()))
    }

    /// Invocations that wait for an attempt, and those that run.
    pub fn backlog(&self) -> (u64, u64) {
        let lanes = self.store.lanes();
        lanes.iter().fold((0, 0), |(waiting, running), lane| (waiting + lane.waiting, running + lane.running))
    }

    /// Whether events can be stored.
    pub fn is_healthy(&self) -> bool {
        self.store.is_healthy()
    }

    /// Stores what is still to be stored; nothing can be accepted afterwards. It blocks.
    pub fn close(&self) {
        self.store.close();
    }

    /// Makes it possible to stop an attempt while it runs.
    fn register(&self, claimed: &Claimed) -> Registered<'_> {
        let (key, stop) = ((claimed.lane.function.clone(), claimed.id.clone()), CancellationToken::new());
        self.running().insert(key.clone(), stop.clone());
        Registered { queue: self, key, stop }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().expect("no holder of this lock panics")
    }

    fn running(&self) -> MutexGuard<'_, HashMap<(FunctionName, RequestId), CancellationToken>> {
        self.running.lock().expect("no holder of this lock panics")
    }
}

/// The line for events of a function that were sent to `qualifier`.
fn lane_of(function: &Function, qualifier: Option<&str>) -> LaneKey {
    let qualifier = qualifier.filter(|qualifier| *qualifier != LATEST).map(Arc::from);
    LaneKey { function: function.name.clone(), qualifier, url: None }
}

/// A request's head as it is kept until the request is sent to its function.
pub fn head_of(method: &Method, uri: &Uri, fields: &HeaderMap) -> HttpHead {
    http_head::of(method, uri, fields)
}
