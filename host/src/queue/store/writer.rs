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

/// A handle to the thread.
#[derive(Clone)]
pub(super) struct Writer(Arc<Shared>);

struct Shared {
    /// None once it is closed.
    changes: Mutex<Option<mpsc::Sender<Change<Committed>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    fault: Fault,
}

/// What was wrong when the tables were last written.
#[derive(Clone, Default)]
struct Fault {
    text: Arc<Mutex<Option<Arc<str>>>>,
    is_there: Arc<AtomicBool>,
}

impl Fault {
    fn note(&self, error: Option<String>) {
        let is_new = error.is_some() && !self.is_there.load(Ordering::Relaxed);
        if let Some(error) = error.as_ref().filter(|_| is_new) {
            tracing::error!("the queue cannot be written: {error}");
        } else if error.is_none() && self.is_there.load(Ordering::Relaxed) {
            tracing::info!("the queue can be written again");
        }
        self.is_there.store(error.is_some(), Ordering::Relaxed);
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = error.map(Into::into);
    }

    fn error(&self) -> StoreError {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StoreError::Unavailable(text.unwrap_or_else(|| "it is closed".into()))
    }
}

impl Writer {
    pub(super) fn start(tables: Tables, counts: Arc<Counts>) -> anyhow::Result<Writer> {
        let (sender, changes) = mpsc::channel(WAITING_MAX);
        let fault = Fault::default();
        let of_thread = fault.clone();
        let thread = thread::Builder::new().name("queue".to_owned());
        let thread = thread.spawn(move || run(tables, changes, &counts, &of_thread)).context("start a thread")?;
        Ok(Writer(Arc::new(Shared { changes: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), fault })))
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
        let change: Change<Committed> = Box::new(move |tables| {
            let (made, after) = change(tables)?;
            Ok(Box::new(move |counts: &Counts| {
                after(counts);
                // Whoever asked may have left.
                let _ = answer.send(made);
            }))
        });
        let sent = match sender {
            Some(sender) => sender.send(change).await.is_ok(),
            None => false,
        };
        if !sent {
            return Err(self.0.fault.error());
        }
        answered.await.map_err(|_| self.0.fault.error())
    }

    pub(super) fn is_healthy(&self) -> bool {
        !self.0.fault.is_there.load(Ordering::Relaxed)
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

fn run(mut tables: Tables, mut changes: mpsc::Receiver<Change<Committed>>, counts: &Counts, fault: &Fault) {
    while let Some(first) = changes.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(change) = changes.try_recv()
        {
            group.push(change);
        }
        // If the group fails, what was to be done afterwards is dropped, and with it the senders of the answers.
        let committed = tables.group(group);
        fault.note(committed.as_ref().err().map(ToString::to_string));
        committed.into_iter().flatten().for_each(|committed| committed(counts));
    }
}
