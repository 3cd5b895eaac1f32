//! Threads for guests that compute.
//!
//! A request whose guest runs for microseconds is best run on the thread that serves its connection. One whose guest runs
//! for long would hold up all other connections of that thread, and in their place in the runtime's queue every function
//! would wait for every other. So guests that compute run here: functions take turns, each with one slice of the epoch,
//! on threads that give way to those that serve connections.

use std::collections::{HashMap, VecDeque};
use std::num::NonZero;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::machine;

/// A guest that runs for longer than this, at a time, computes. Going to another thread costs a
/// twentieth of it, and a language's runtime takes half of it for a small request.
const LONG_RUN: Duration = Duration::from_micros(200);
/// The share of the newest run in the running average: one in so many.
const AVERAGE_OVER: i64 = 8;
/// What counts of one run at most, so that a single one does not decide for long.
const RUN_MAX: Duration = Duration::from_millis(1);

/// One turn of an instance.
type Work = Box<dyn FnOnce() + Send>;

/// The threads; they end when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Compute(Arc<Threads>);

/// Ends the threads when it is dropped: they hold the queue, and not this.
struct Threads(Arc<Queue>);

struct Queue {
    line: Mutex<Line<Work>>,
    came: Condvar,
}

/// Who waits for a thread: instances by function, and functions in the order of their turns.
struct Line<T> {
    functions: VecDeque<usize>,
    instances: HashMap<usize, VecDeque<T>>,
    closed: bool,
}

impl Compute {
    /// Starts a thread for each core. Guests on them find `runtime`.
    pub(super) fn start(runtime: &Handle) -> std::io::Result<Compute> {
        let queue = Arc::new(Queue { line: Mutex::new(Line::new()), came: Condvar::new() });
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            let (own, runtime) = (queue.clone(), runtime.clone());
            let work = move || {
                machine::give_way();
                let _entered = runtime.enter();
                while let Some(work) = own.next() {
                    work();
                }
            };
            thread::Builder::new().name("compute".to_owned()).spawn(work)?;
        }
        Ok(Compute(Arc::new(Threads(queue))))
    }

    /// Puts an instance's turn in its function's line.
    pub(super) fn push(&self, function: usize, work: impl FnOnce() + Send + 'static) {
        let queue = &self.0.0;
        let mut line = queue.lock();
        line.push(function, Box::new(work));
        drop(line);
        queue.came.notify_one();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.came.notify_all();
    }
}

impl Queue {
    /// The next turn, once there is one; none when all is over.
    fn next(&self) -> Option<Work> {
        let empty = |line: &mut Line<_>| line.functions.is_empty() && !line.closed;
        self.came.wait_while(self.lock(), empty).expect("no holder of this lock panics").pop()
    }

    fn lock(&self) -> MutexGuard<'_, Line<Work>> {
        self.line.lock().expect("no holder of this lock panics")
    }
}

impl<T> Line<T> {
    fn new() -> Line<T> {
        Line { functions: VecDeque::new(), instances: HashMap::new(), closed: false }
    }

    fn push(&mut self, function: usize, instance: T) {
        let instances = self.instances.entry(function).or_default();
        if instances.is_empty() {
            self.functions.push_back(function);
        }
        instances.push_back(instance);
    }

    fn pop(&mut self) -> Option<T> {
        let function = self.functions.pop_front()?;
        let instances = self.instances.get_mut(&function)?;
        let instance = instances.pop_front();
        if instances.is_empty() {
            self.instances.remove(&function);
        } else {
            self.functions.push_back(function);
        }
        instance
    }
}

/// How long a function's guests run at a time, on average.
#[derive(Default)]
pub(super) struct Pace {
    run_us: AtomicU32,
}

impl Pace {
    /// Whether they run for so long that they should do it elsewhere.
    pub(super) fn is_long(&self) -> bool {
        u128::from(self.run_us.load(Ordering::Relaxed)) > LONG_RUN.as_micros()
    }

    /// Notes one run.
    pub(super) fn note(&self, run: Duration) {
        let before = self.run_us.load(Ordering::Relaxed);
        let run_us = run.min(RUN_MAX).as_micros() as i64;
        // Rounded towards the old value: small runs that vary a little write nothing that another core must fetch.
        let after = i64::from(before) + (run_us - i64::from(before)) / AVERAGE_OVER;
        if after != i64::from(before) {
            self.run_us.store(after as u32, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_take_turns_however_many_instances_each_has() {
        let mut line = Line::new();
        for (function, instance) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (3, "c2")] {
            line.push(function, instance);
        }
        let mut turns = vec![line.pop().unwrap(), line.pop().unwrap()];
        line.push(2, "b2"); // It had its turn, and comes after all that wait.
        turns.extend(std::iter::from_fn(|| line.pop()));
        assert_eq!(turns, ["a1", "b1", "c1", "a2", "b2", "c2", "a3"]);
        assert!(line.instances.is_empty() && line.functions.is_empty());
    }

    #[test]
    fn long_runs_count_as_computing_until_they_are_short_again() {
        let pace = Pace::default();
        let note = |run, times| (0..times).for_each(|_| pace.note(Duration::from_micros(run)));
        note(150, 100);
        assert!(!pace.is_long());
        note(500_000, 1);
        assert!(pace.is_long(), "one run of more than a slice");
        note(5, 50);
        assert!(!pace.is_long());
        note(300, 10);
        assert!(pace.is_long());
    }
}
