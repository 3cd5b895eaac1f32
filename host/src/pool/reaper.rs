//! When the next parked instance has been parked too long.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The reaper looks at all pools at once, so it does so at most this often.
const INTERVAL_MIN: Duration = Duration::from_millis(20);

/// The reaper's alarm clock; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Reaper(Arc<Alarm>);

#[derive(Default)]
struct Alarm {
    next: Mutex<Option<Instant>>,
    earlier: Notify,
}

impl Reaper {
    /// Something may be due at `when`.
    pub(super) fn expect(&self, when: Instant) {
        let mut next = self.0.next.lock().expect("no holder of this lock panics");
        if next.is_none_or(|next| when < next) {
            *next = Some(when);
            self.0.earlier.notify_one();
        }
    }

    /// Ends when something may be due; without any expectation it waits for one, and no timer runs.
    pub(super) async fn due(&self) {
        let earliest = Instant::now() + INTERVAL_MIN;
        loop {
            let next = *self.0.next.lock().expect("no holder of this lock panics");
            match next {
                None => self.0.earlier.notified().await,
                Some(next) => {
                    tokio::select! {
                        () = sleep_until(next.max(earliest)) => break,
                        () = self.0.earlier.notified() => {}
                    }
                }
            }
        }
        *self.0.next.lock().expect("no holder of this lock panics") = None;
    }
}
