//! Readings: what an active window or an invocation used.
//!
//! `instance::driver` holds one [`WindowMeter`] while its instance is awake; `pool` holds one [`InvocationMeter`] per
//! accepted request. Both post their reading when they are dropped, so no early return, panic or cancelled future can
//! lose one. This file knows neither the ledger nor the engine: meters are given a function to post to.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock;
use crate::ids::{FunctionName, InstanceId, KeyId, RequestId};

/// The engine's epoch and the unit of charge.
pub const EPOCH: Duration = Duration::from_millis(1);

/// Receives readings. It must not block, because it is called from `Drop`.
pub type Post = Arc<dyn Fn(Reading<'_>) + Send + Sync>;

/// What a function is charged for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Time in which the host polled the instance's store.
    #[default]
    Execution,
    /// Time in which a request or a hook was under way, as Function Compute charges.
    Duration,
}

impl Basis {
    /// The basis's name in the API and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Basis::Execution => "execution",
            Basis::Duration => "duration",
        }
    }
}

/// A record for the ledger. Borrowed, because a clone would change reference counts that all serving threads share.
#[derive(Clone, Copy, Debug)]
pub enum Reading<'a> {
    /// An active window, complete or so far. A later reading of the same window replaces the earlier one.
    Window(&'a WindowReading),
    /// A request that ended.
    Invocation(&'a InvocationReading),
}

/// One active window. All figures are totals since its start, so that posting it again never charges twice.
#[derive(Clone, Debug)]
pub struct WindowReading {
    /// The function.
    pub function: FunctionName,
    /// The version that ran.
    pub version: Arc<str>,
    /// The instance; together with `sequence` it identifies the window.
    pub instance: InstanceId,
    /// The number of the window in its instance, from 1.
    pub sequence: u32,
    /// When the instance started or thawed.
    pub start: SystemTime,
    /// How long the window was open, until now or until its end, without suspended time.
    pub open: Duration,
    /// Whether the window has ended.
    pub ended: bool,
    /// True if a request or a hook was under way when the reading was made, so `duration` was still growing.
    pub busy: bool,
    /// When the reading was made.
    pub at: SystemTime,
    /// Time in which the store was polled.
    pub executed: Duration,
    /// Time in which a request or a hook was under way. Overlaps count once; suspended time and linger do not count.
    pub duration: Duration,
    /// Requests that started in this window.
    pub requests: u32,
    /// Hooks that were called in this window.
    pub hook_calls: u32,
    /// The most linear memory the instance ever had.
    pub memory_bytes_peak: u64,
    /// The function's configured memory.
    pub memory_mb: u32,
    /// The billing basis of this window.
    pub basis: Basis,
    /// How long the instance had been parked before this window.
    pub parked: Duration,
    /// Linear memory it held while parked.
    pub parked_bytes: u64,
}

impl WindowReading {
    /// Charged epochs: the window's time on its own basis, rounded up to whole epochs.
    pub fn epochs(&self) -> u64 {
        match self.basis {
            Basis::Execution => epochs(self.executed),
            Basis::Duration => epochs(self.duration),
        }
    }
}

/// `time` in whole epochs, rounded up.
pub fn epochs(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(EPOCH.as_nanos())).unwrap_or(u64::MAX)
}

/// Converts epochs times MB to CU. One CU is one second at 1 GB (1024 MB).
pub fn compute_units(epoch_mb: u64) -> f64 {
    epoch_mb as f64 / (1000.0 * 1024.0)
}

/// Who called a function. The ledger stores the numbers, so a number must never be reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CalledBy {
    /// A caller of the data plane.
    #[default]
    Data = 0,
    /// An event that waited in the queue.
    Queue = 1,
    /// A trigger.
    Trigger = 2,
    /// An operator at the console.
    Console = 3,
}

impl CalledBy {
    /// All of them.
    pub const ALL: [CalledBy; 4] = [CalledBy::Data, CalledBy::Queue, CalledBy::Trigger, CalledBy::Console];

    /// Whether it is waiting work, for which nobody waits.
    pub fn is_work(self) -> bool {
        matches!(self, CalledBy::Queue | CalledBy::Trigger)
    }
}

/// What is known about a call when it is accepted.
#[derive(Clone, Debug)]
pub struct AcceptedCall {
    /// The request.
    pub request: RequestId,
    /// The function.
    pub function: FunctionName,
    /// The version that was asked to answer.
    pub version: Arc<str>,
    /// Who called.
    pub called_by: CalledBy,
    /// The access key that was shown.
    pub key: Option<KeyId>,
    /// Which attempt at the request this is, from 1.
    pub attempt: u32,
}

/// One request that was accepted, however it ended.
#[derive(Clone, Debug)]
pub struct InvocationReading {
    /// The request.
    pub request: RequestId,
    /// The function.
    pub function: FunctionName,
    /// The version that was asked to answer.
    pub version: Arc<str>,
    /// The instance, unless the request ended in the queue.
    pub instance: Option<InstanceId>,
    /// When the host accepted the request.
    pub start: SystemTime,
    /// From acceptance to the handler's call.
    pub queued: Duration,
    /// From the handler's call to its end.
    pub handler: Duration,
    /// Executed time of the instance meanwhile; requests that overlap share it.
    pub executed: Duration,
    /// `ok`, `cancelled` (the caller left before it started), or the code of the error.
    pub outcome: &'static str,
    /// True if the caller got the answer.
    pub delivered: bool,
    /// Who called.
    pub called_by: CalledBy,
    /// The access key that was shown.
    pub key: Option<KeyId>,
    /// Which attempt at the request this is, from 1.
    pub attempt: u32,
}

/// Measures the time in which at least one thing is under way.
#[derive(Debug, Default)]
struct Stopwatch {
    under_way: u32,
    since: Option<Instant>,
    total: Duration,
}

impl Stopwatch {
    fn begin(&mut self, now: Instant) {
        self.under_way += 1;
        self.since.get_or_insert(now);
    }

    fn end(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.pause(now);
        }
    }

    fn pause(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.total += now.saturating_duration_since(since);
        }
    }

    fn resume(&mut self, now: Instant) {
        if self.under_way > 0 {
            self.since.get_or_insert(now);
        }
    }

    fn total(&self, now: Instant) -> Duration {
        let running = self.since.map(|since| now.saturating_duration_since(since));
        self.total + running.unwrap_or_default()
    }
}

/// The constant part of a meter: what identifies a window, and how it is charged.
#[derive(Clone, Debug)]
pub struct Account {
    /// The function.
    pub function: FunctionName,
    /// The version that runs.
    pub version: Arc<str>,
    /// The instance.
    pub instance: InstanceId,
    /// Configured memory.
    pub memory_mb: u32,
    /// The billing basis.
    pub basis: Basis,
}

/// The parked time before a window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    /// How long the instance had been parked.
    pub time: Duration,
    /// Linear memory that it held while parked.
    pub bytes: u64,
}

/// The meter of one active window. Its methods take the time, so that one reading of the clock serves several calls.
pub struct WindowMeter {
    post: Post,
    reading: WindowReading,
    opened: Instant,
    open: Stopwatch,
    busy: Stopwatch,
    posted: Instant,
    unposted: bool,
    /// When `close` was called.
    closed: Option<Instant>,
}

impl WindowMeter {
    /// Opens window number `sequence` at `now`, after `rest`.
    pub fn open(account: &Account, sequence: u32, rest: Rest, now: Instant, post: Post) -> WindowMeter {
        let start = clock::date();
        let reading = WindowReading {
            function: account.function.clone(),
            version: account.version.clone(),
            instance: account.instance,
            sequence,
            start,
            open: Duration::ZERO,
            ended: false,
            busy: false,
            at: start,
            executed: Duration::ZERO,
            duration: Duration::ZERO,
            requests: 0,
            hook_calls: 0,
            memory_bytes_peak: rest.bytes,
            memory_mb: account.memory_mb,
            basis: account.basis,
            parked: rest.time,
            parked_bytes: rest.bytes,
        };
        let mut open = Stopwatch::default();
        open.begin(now);
        let busy = Stopwatch::default();
        WindowMeter { post, reading, opened: now, open, busy, posted: now, unposted: true, closed: None }
    }

    /// `now` on the wall clock, computed from the monotonic clock since the window opened. Otherwise a step of the wall
    /// clock within a window would be on the bill.
    pub fn wall(&self, now: Instant) -> SystemTime {
        self.reading.start + now.saturating_duration_since(self.opened)
    }

    /// Adds one poll of the store, which took `time`.
    pub fn executed(&mut self, time: Duration) {
        self.reading.executed += time;
        self.unposted = true;
    }

    /// Executed time so far.
    pub fn executed_so_far(&self) -> Duration {
        self.reading.executed
    }

    /// The instance starts.
    pub fn start_began(&mut self, now: Instant) {
        self.unposted = true;
        self.busy.begin(now);
    }

    /// A request was handed to the guest.
    pub fn request_began(&mut self, now: Instant) {
        self.reading.requests += 1;
        self.unposted = true;
        self.busy.begin(now);
    }

    /// A hook was called.
    pub fn hook_began(&mut self, now: Instant) {
        self.reading.hook_calls += 1;
        self.unposted = true;
        self.busy.begin(now);
    }

    /// The instance waits again for a hook that was called in an earlier window.
    pub fn hook_resumed(&mut self, now: Instant) {
        self.unposted = true;
        self.busy.begin(now);
    }

    /// A start, a request or a hook ended, or is no longer waited for.
    pub fn ended_one(&mut self, now: Instant) {
        self.unposted = true;
        self.busy.end(now);
    }

    /// Stops the clocks of a window whose instance is suspended, and posts it.
    pub fn pause(&mut self, now: Instant) {
        self.open.pause(now);
        self.busy.pause(now);
        self.post_progress(now);
    }

    /// Restarts the clocks.
    pub fn resume(&mut self, now: Instant) {
        self.unposted = true;
        self.open.resume(now);
        self.busy.resume(now);
    }

    /// Records the most memory the instance had so far.
    pub fn memory_peak(&mut self, bytes: u64) {
        self.reading.memory_bytes_peak = self.reading.memory_bytes_peak.max(bytes);
    }

    /// When unposted figures must be posted at the latest: `interval` after the last post. `None` if all are posted.
    pub fn progress_due(&self, interval: Duration) -> Option<Instant> {
        self.unposted.then(|| self.posted + interval)
    }

    /// Posts the window so far. Later readings replace it in the ledger.
    pub fn post_progress(&mut self, now: Instant) {
        self.unposted = false;
        self.posted = now;
        self.post(false, now);
    }

    /// Ends the window at `now`. Without this call, the window ends when the meter is dropped.
    pub fn close(mut self, now: Instant) {
        self.closed = Some(now);
    }

    fn post(&mut self, ended: bool, now: Instant) {
        self.reading.open = self.open.total(now);
        self.reading.duration = self.busy.total(now);
        self.reading.ended = ended;
        self.reading.busy = self.busy.since.is_some();
        self.reading.at = self.wall(now);
        (self.post)(Reading::Window(&self.reading));
    }
}

impl Drop for WindowMeter {
    fn drop(&mut self) {
        let now = self.closed.unwrap_or_else(Instant::now);
        self.post(true, now);
    }
}

/// The meter of one request; made when the request is accepted.
pub struct InvocationMeter {
    /// `None` if the request was refused after all.
    post: Option<Post>,
    reading: InvocationReading,
    accepted: Instant,
    began: Option<Instant>,
}

impl InvocationMeter {
    /// Accepts a call at `now`.
    pub fn accept(call: AcceptedCall, now: Instant, post: Post) -> InvocationMeter {
        let AcceptedCall { request, function, version, called_by, key, attempt } = call;
        let reading = InvocationReading {
            request,
            function,
            version,
            called_by,
            key,
            attempt,
            instance: None,
            start: clock::date(),
            queued: Duration::ZERO,
            handler: Duration::ZERO,
            executed: Duration::ZERO,
            outcome: "instance-lost",
            delivered: false,
        };
        InvocationMeter { post: Some(post), reading, accepted: now, began: None }
    }

    /// `instance` calls the handler now.
    pub fn began(&mut self, instance: InstanceId, now: Instant) {
        self.reading.instance = Some(instance);
        self.reading.queued = now.saturating_duration_since(self.accepted);
        self.began = Some(now);
    }

    /// The handler returned, or is no longer waited for.
    pub fn ended(&mut self, now: Instant) {
        if let Some(began) = self.began.take() {
            self.reading.handler = now.saturating_duration_since(began);
        }
    }

    /// Records what the instance executed while it had the request.
    pub fn executed(&mut self, time: Duration) {
        self.reading.executed = time;
    }

    /// Records how the request ended, and if the caller got the answer.
    pub fn outcome(&mut self, outcome: &'static str, delivered: bool) {
        self.reading.outcome = outcome;
        self.reading.delivered = delivered;
    }

    /// Drops the meter without a record, because the request was refused.
    pub fn forget(mut self) {
        self.post = None;
    }

    /// The reading so far.
    pub fn reading(&self) -> &InvocationReading {
        &self.reading
    }
}

impl Drop for InvocationMeter {
    fn drop(&mut self) {
        if self.began.is_some() {
            self.ended(Instant::now());
        }
        if let Some(post) = &self.post {
            post(Reading::Invocation(&self.reading));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn account(memory_mb: u32, basis: Basis) -> Account {
        Account {
            function: "f".parse().unwrap(),
            version: "LATEST".into(),
            instance: InstanceId::random(),
            memory_mb,
            basis,
        }
    }

    /// What was posted: the window, unless it is an invocation.
    type Posted = Arc<Mutex<Vec<Option<WindowReading>>>>;

    fn collect() -> (Post, Posted) {
        let readings = Posted::default();
        let sink = readings.clone();
        let post = move |reading: Reading<'_>| match reading {
            Reading::Window(window) => sink.lock().unwrap().push(Some(window.clone())),
            Reading::Invocation(_) => sink.lock().unwrap().push(None),
        };
        (Arc::new(post), readings)
    }

    fn last_window(readings: &Posted) -> WindowReading {
        readings.lock().unwrap().last().unwrap().clone().expect("a window")
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[tokio::test(start_paused = true)]
    async fn two_overlapping_requests_and_the_hook_of_one_second_at_one_gb_are_one_cu() {
        let (post, readings) = collect();
        let mut meter = WindowMeter::open(&account(1024, Basis::Duration), 1, Rest::default(), Instant::now(), post);
        meter.request_began(Instant::now());
        tokio::time::advance(MS(300)).await;
        meter.request_began(Instant::now());
        tokio::time::advance(MS(300)).await;
        meter.ended_one(Instant::now());
        tokio::time::advance(MS(300)).await;
        meter.ended_one(Instant::now());
        tokio::time::advance(MS(10)).await; // The linger is not charged.
        meter.hook_began(Instant::now());
        tokio::time::advance(MS(100)).await;
        meter.ended_one(Instant::now());
        drop(meter);
        let window = last_window(&readings);
        assert!(window.ended);
        assert_eq!(window.duration, MS(1000));
        assert_eq!(window.open, MS(1010));
        assert_eq!(compute_units(window.epochs() * u64::from(window.memory_mb)), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspended_window_stands_still() {
        let (post, readings) = collect();
        let mut meter = WindowMeter::open(&account(128, Basis::Duration), 1, Rest::default(), Instant::now(), post);
        meter.request_began(Instant::now());
        tokio::time::advance(MS(5)).await;
        meter.pause(Instant::now());
        tokio::time::advance(MS(2000)).await;
        meter.resume(Instant::now());
        tokio::time::advance(MS(5)).await;
        drop(meter);
        let window = last_window(&readings);
        assert_eq!((window.duration, window.open), (MS(10), MS(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_no_request_and_no_hook_fills_is_not_duration() {
        let (post, readings) = collect();
        let meter = WindowMeter::open(&account(128, Basis::Duration), 1, Rest::default(), Instant::now(), post);
        tokio::time::advance(MS(50)).await;
        drop(meter);
        assert_eq!(last_window(&readings).epochs(), 0);
    }

    #[test]
    fn epochs_round_up() {
        for (nanos, whole) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(epochs(Duration::from_nanos(nanos)), whole, "{nanos}");
        }
    }

    #[test]
    fn a_dropped_meter_posts() {
        let (post, readings) = collect();
        let call = AcceptedCall {
            request: RequestId::new(),
            function: "f".parse().unwrap(),
            version: "LATEST".into(),
            called_by: CalledBy::Data,
            key: None,
            attempt: 1,
        };
        let meter = InvocationMeter::accept(call, Instant::now(), post);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _meter = meter;
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(readings.lock().unwrap().len(), 1);
    }
}
