//! The signals that end a host, and the tasks that outlive a request.
//!
//! Every such task starts through [`Tasks`], so that the host can wait for all of them before it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A cheap handle to the host's tasks and its drain signal.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    tracker: TaskTracker,
    drain: Signal,
    cut_off: Signal,
    close: Signal,
}

/// Given once. Whoever asks later finds it given.
#[derive(Default)]
struct Signal {
    token: CancellationToken,
    /// The same, for those who ask at every request: the token has a lock.
    given: AtomicBool,
}

impl Signal {
    fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.token.cancel();
    }

    fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }
}

impl Tasks {
    /// Starts a task that the host waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tracker.spawn(task);
    }

    /// The same, from a thread that may know of no runtime.
    pub fn spawn_on(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tracker.spawn_on(task, runtime);
    }

    /// Counts as a task while it is held: for work on threads of its own.
    pub fn token(&self) -> TaskTrackerToken {
        self.0.tracker.token()
    }

    /// Runs `work` on a thread where blocking is allowed, from a thread that may know of no runtime.
    pub fn spawn_blocking_on(&self, runtime: &Handle, work: impl FnOnce() + Send + 'static) {
        self.0.tracker.spawn_blocking_on(work, runtime);
    }

    /// Runs `work` on a thread where blocking is allowed, and waits for it.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        Ok(self.0.tracker.spawn_blocking(work).await?)
    }

    /// Runs `work` to its end, whether or not the caller waits that long.
    pub async fn finish<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> anyhow::Result<T> {
        Ok(self.0.tracker.spawn(work).await?)
    }

    /// Tells everybody that the host drains: take no new work, finish what there is.
    pub fn begin_drain(&self) {
        self.0.drain.give();
    }

    /// Whether the host drains.
    pub fn draining(&self) -> bool {
        self.0.drain.is_given()
    }

    /// Ends when the host begins to drain.
    pub async fn drained(&self) {
        self.0.drain.token.cancelled().await;
    }

    /// Tells everybody that the time for the drain is over: end what there is.
    pub fn begin_cut_off(&self) {
        self.0.cut_off.give();
    }

    /// Whether the time for the drain is over.
    pub fn is_cut_off(&self) -> bool {
        self.0.cut_off.is_given()
    }

    /// Ends when the time for the drain is over.
    pub async fn cut_off(&self) {
        self.0.cut_off.token.cancelled().await;
    }

    /// Tells the listeners that the drain is over: answer what is under way, then close.
    pub fn begin_close(&self) {
        self.0.close.give();
    }

    /// Whether the drain is over.
    pub fn is_closing(&self) -> bool {
        self.0.close.is_given()
    }

    /// Ends when the drain is over.
    pub async fn closing(&self) {
        self.0.close.token.cancelled().await;
    }

    /// Ends when every task has.
    pub async fn ended(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}
