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
    drain: CancellationToken,
    /// The same as `drain`, for those who ask at every request.
    draining: AtomicBool,
    cut_off: CancellationToken,
    /// The same as `cut_off`, likewise.
    is_cut_off: AtomicBool,
    close: CancellationToken,
    /// The same as `close`, likewise.
    closing: AtomicBool,
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
        self.0.draining.store(true, Ordering::Release);
        self.0.drain.cancel();
    }

    /// Whether the host drains.
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Ends when the host begins to drain.
    pub async fn drained(&self) {
        self.0.drain.cancelled().await;
    }

    /// Tells everybody that the time for the drain is over: end what there is.
    pub fn begin_cut_off(&self) {
        self.0.is_cut_off.store(true, Ordering::Release);
        self.0.cut_off.cancel();
    }

    /// Whether the time for the drain is over.
    pub fn is_cut_off(&self) -> bool {
        self.0.is_cut_off.load(Ordering::Acquire)
    }

    /// Ends when the time for the drain is over.
    pub async fn cut_off(&self) {
        self.0.cut_off.cancelled().await;
    }

    /// Tells the listeners that the drain is over: answer what is under way, then close.
    pub fn begin_close(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.close.cancel();
    }

    /// Whether the drain is over.
    pub fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Acquire)
    }

    /// Ends when the drain is over.
    pub async fn closing(&self) {
        self.0.close.cancelled().await;
    }

    /// Ends when every task has.
    pub async fn ended(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}
