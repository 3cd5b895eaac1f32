//! The clock of one connection, for hyper: it wants a new timer for each request, and drops it when the head is there.
//!
//! The runtime keeps all timers in one place behind one lock, so each connection has a single one there. It is moved when
//! it fires, once a minute, and not at every request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::time::{self, Instant};

/// A connection's clock; cheap to clone.
#[derive(Clone)]
pub(super) struct ConnectionTimer(Arc<Mutex<Shared>>);

struct Shared {
    timer: Pin<Box<time::Sleep>>,
    /// The longest first wait, until there was one.
    first: Option<Duration>,
}

/// One wait. A connection has one at a time.
struct Wait {
    until: Instant,
    timer: ConnectionTimer,
}

impl ConnectionTimer {
    /// A clock whose first wait is at most `first`, whatever hyper asks for: it knows one time for all heads.
    pub(super) fn new(first: Duration) -> ConnectionTimer {
        ConnectionTimer(Arc::new(Mutex::new(Shared { timer: Box::pin(time::sleep(first)), first: Some(first) })))
    }

    fn wait(&self, until: Instant) -> Wait {
        let first = self.0.lock().unwrap_or_else(PoisonError::into_inner).first.take();
        let until = first.map_or(until, |first| until.min(Instant::now() + first));
        Wait { until, timer: self.clone() }
    }
}

impl Timer for ConnectionTimer {
    fn sleep(&self, wait: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.wait(Instant::now() + wait))
    }

    fn sleep_until(&self, until: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.wait(Instant::from_std(until)))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

impl Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let timer = &mut self.timer.0.lock().unwrap_or_else(PoisonError::into_inner).timer;
        loop {
            if timer.deadline() > self.until || timer.is_elapsed() {
                timer.as_mut().reset(self.until);
            }
            ready!(timer.as_mut().poll(cx));
            // It may have fired for an earlier wait.
            if timer.deadline() >= self.until {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_when_it_should_though_there_is_one_timer() {
        let timer = ConnectionTimer::new(Duration::from_secs(7));
        let began = Instant::now();
        timer.sleep(Duration::from_secs(60)).await;
        assert_eq!(began.elapsed().as_secs(), 7, "the first wait is shorter");
        for (given_up_after, wait) in [(10, 60), (59, 60), (30, 20), (5, 90)] {
            let given_up = time::timeout(Duration::from_secs(given_up_after), timer.sleep(Duration::from_secs(100)));
            assert!(given_up.await.is_err());
            let began = Instant::now();
            timer.sleep(Duration::from_secs(wait)).await;
            let took = began.elapsed();
            assert!(
                took >= Duration::from_secs(wait) && took < Duration::from_secs(wait + 1),
                "{took:?}, not {wait} s"
            );
        }
    }
}
