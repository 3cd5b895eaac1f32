//! How many requests a second functions answer, measured while somebody looks.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::host::Host;
use crate::ids::FunctionName;

/// The shortest time that is measured over; those who look meanwhile see the figure before.
const OVER: Duration = Duration::from_millis(900);

/// Requests and failures a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    pub(super) requests: f64,
    pub(super) failures: f64,
}

/// What was counted last, and the rates since the time before.
#[derive(Default)]
pub(super) struct Rates {
    state: Mutex<Measured>,
}

#[derive(Default)]
struct Measured {
    at: Option<Instant>,
    counts: HashMap<FunctionName, (u64, u64)>,
    rates: HashMap<FunctionName, Rate>,
}

impl Rates {
    /// The rate of each function that has any.
    pub(super) fn of(&self, host: &Host) -> HashMap<FunctionName, Rate> {
        let mut measured = self.state.lock().expect("no holder of this lock panics");
        let now = Instant::now();
        let elapsed = measured.at.map(|at| now.duration_since(at));
        if elapsed.is_some_and(|elapsed| elapsed < OVER) {
            return measured.rates.clone();
        }
        let counts = host.requests_by_function();
        // After a long time in which nobody looked, the mean since then says nothing of now.
        let seconds = elapsed.filter(|elapsed| *elapsed < 10 * OVER).map(|elapsed| elapsed.as_secs_f64());
        measured.rates = match seconds {
            None => HashMap::new(),
            Some(seconds) => counts
                .iter()
                .filter_map(|(name, now)| {
                    rate(*now, measured.counts.get(name), seconds).map(|rate| (name.clone(), rate))
                })
                .collect(),
        };
        (measured.at, measured.counts) = (Some(now), counts);
        measured.rates.clone()
    }
}

fn rate((requests, failures): (u64, u64), before: Option<&(u64, u64)>, seconds: f64) -> Option<Rate> {
    let (requests_before, failures_before) = before.copied().unwrap_or_default();
    // Fewer than before: the pool was made anew meanwhile.
    let new = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let rate = Rate { requests: new(requests, requests_before), failures: new(failures, failures_before) };
    (rate.requests > 0.0 || rate.failures > 0.0).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_came_since_the_last_look() {
        assert!(rate((7, 1), Some(&(7, 1)), 1.0).is_none());
        let rate_of = |now, before| rate(now, before, 2.0).map(|rate| (rate.requests, rate.failures));
        assert_eq!(rate_of((10, 2), Some(&(4, 2))), Some((3.0, 0.0)));
        assert_eq!(rate_of((10, 2), None), Some((5.0, 1.0)));
        assert_eq!(rate_of((1, 0), Some(&(9, 9))), None);
    }
}
