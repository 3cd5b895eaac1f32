//! The thread that writes: what comes while it commits shares the next commit, and so one sync of the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::counts::Counts;
use super::sqlite::{Change, Tables};

/// Changes that share a commit.
const GROUP_MAX: usize = 512;
/// Changes that may wait for the thread; whoever has more waits to hand them over.
const WAITING_MAX: usize = 1024;

/// What is to be done once a change is committed.
type Committed = Box<dyn FnOnce(&Counts) + Send>;

/// Tells whoever asked, once.
type Answer<T> = Arc<Mutex<Option<oneshot::Sender<Result<T, StoreError>>>>>;

/// A change on its way to the thread.
struct Asked {
    change: Change<Committed>,
    /// Tells whoever asked that it was not made.
    failed: Box<dyn FnOnce(&StoreError) + Send>,
}

/// A handle to the thread.
#[derive(Clone)]
pub(super) struct Writer(Arc<Shared>);

struct Shared {
    /// None once it is closed.
    changes: Mutex<Option<mpsc::Sender<Asked>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    is_healthy: Arc<AtomicBool>,
}

fn closed() -> StoreError {
    StoreError::Unavailable("the queue is closed".into())
}

impl Writer {
    pub(super) fn start(tables: Tables, counts: Arc<Counts>) -> anyhow::Result<Writer> {
        let (sender, changes) = mpsc::channel(WAITING_MAX);
        let is_healthy = Arc::new(AtomicBool::new(true));
        let healthy = is_healthy.clone();
        let thread = thread::Builder::new().name("queue".to_owned());
        let thread = thread.spawn(move || run(tables, changes, &counts, &healthy)).context("start a thread")?;
        Ok(Writer(Arc::new(Shared { changes: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), is_healthy })))
    }

    /// Makes a change, and waits until it is durable. If the caller leaves meanwhile, the change is made all the same.
    pub(super) async fn run<T, A>(
        &self,
        change: impl FnOnce(&mut Tables) -> rusqlite::Result<(T, A)> + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        A: FnOnce(&Counts) + Send + 'static,
    {
        let sender = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, answered) = oneshot::channel();
        // Either of two closures answers.
        let answer = Arc::new(Mutex::new(Some(answer)));
        let answer_with = |answer: Answer<T>| {
            move |made| {
                let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
                // Whoever asked may have left.
                answer.map(|answer| answer.send(made))
            }
        };
        let (made, failed) = (answer_with(answer.clone()), answer_with(answer));
        let change: Change<Committed> = Box::new(move |tables| {
            let (value, after) = change(tables)?;
            Ok(Box::new(move |counts: &Counts| {
                after(counts);
                made(Ok(value));
            }))
        });
        let failed = Box::new(move |error: &StoreError| drop(failed(Err(error.clone()))));
        let sent = match sender {
            Some(sender) => sender.send(Asked { change, failed }).await.is_ok(),
            None => false,
        };
        if !sent {
            return Err(closed());
        }
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.0.is_healthy.load(Ordering::Relaxed)
    }

    /// Makes the changes that were handed over, and ends the thread.
    pub(super) fn close(&self) {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the queue's thread panicked");
        }
    }
}

fn run(mut tables: Tables, mut changes: mpsc::Receiver<Asked>, counts: &Counts, is_healthy: &AtomicBool) {
    while let Some(Asked { change, failed }) = changes.blocking_recv() {
        let (mut group, mut told) = (vec![change], vec![failed]);
        while group.len() < GROUP_MAX
            && let Ok(Asked { change, failed }) = changes.try_recv()
        {
            group.push(change);
            told.push(failed);
        }
        match tables.group(group) {
            Ok(committed) => {
                if !is_healthy.swap(true, Ordering::Relaxed) {
                    tracing::info!("the queue can be written again");
                }
                committed.into_iter().for_each(|committed| committed(counts));
            }
            Err(error) => {
                if is_healthy.swap(false, Ordering::Relaxed) {
                    tracing::error!("the queue cannot be written: {error}");
                }
                let error = StoreError::Unavailable(error.to_string().into());
                told.into_iter().for_each(|failed| failed(&error));
            }
        }
    }
}
