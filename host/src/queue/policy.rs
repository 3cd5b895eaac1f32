//! What the queue decides: what follows an attempt, and how long to wait for the next. Pure.

use std::time::Duration;

use super::invocation::State;
use crate::catalog::AsyncRules;

/// How an attempt ended, as the policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The function succeeded, or the address took what was sent.
    Well,
    /// It is the function's fault, or the address's: an error, a crash, a timeout.
    Badly,
    /// It began, and ended through no fault of its own: another request took the instance along.
    Lost,
    /// It could not begin: the host or the function had no room, or takes no work now.
    NotBegun,
    /// There is nothing that could run it, and there will not be.
    Hopeless,
    /// An operator stopped it.
    Stopped,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is over.
    End(State),
    /// Another attempt after a wait.
    Retry { wait: Duration, counts: bool },
}

/// An attempt that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) ended: Ended,
    /// Attempts before that failed and count.
    pub(super) failures: u32,
    /// How long ago the event was accepted.
    pub(super) age: Duration,
}

/// Waits after attempts that could not begin: a quarter of the event's age, within these bounds.
const NOT_BEGUN_WAIT: Duration = Duration::from_secs(1);
const NOT_BEGUN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Decides what follows an attempt. `drawn`, from 0 to below 1, spreads the waits of many events.
pub(super) fn after(attempt: Attempt, rules: &AsyncRules, drawn: f64) -> Next {
    let Attempt { ended, failures, age } = attempt;
    let (first, longest) = (*rules.retry_wait.start(), *rules.retry_wait.end());
    let (wait, counts) = match ended {
        Ended::Well => return Next::End(State::Succeeded),
        Ended::Hopeless => return Next::End(State::Failed),
        Ended::Stopped => return Next::End(State::Stopped),
        Ended::Badly if failures + 1 >= rules.attempts_max => return Next::End(State::Failed),
        Ended::Badly => (backoff(first, longest, failures, drawn), true),
        Ended::Lost => (backoff(first, longest, 0, drawn), false),
        Ended::NotBegun => (spread((age / 4).clamp(NOT_BEGUN_WAIT, NOT_BEGUN_WAIT_MAX), drawn), false),
    };
    if age + wait >= rules.age_max { Next::End(State::Expired) } else { Next::Retry { wait, counts } }
}

/// A wait that doubles with each failure before. Half of it is drawn.
fn backoff(first: Duration, longest: Duration, failures: u32, drawn: f64) -> Duration {
    spread(first.saturating_mul(1 << failures.min(30)).min(longest), drawn)
}

fn spread(wait: Duration, drawn: f64) -> Duration {
    wait.mul_f64(0.5 + drawn / 2.0)
}

/// Attempts that may run at once: what the function's rules say, at most all but one of the requests that its instances can
/// run at once, so that callers always have one; by default half of them.
pub(super) fn concurrency(rules: &AsyncRules, seats: u64) -> usize {
    let most = seats.saturating_sub(1).max(1);
    let wanted = rules.concurrency.map_or(seats / 2, u64::from).max(1);
    usize::try_from(wanted.min(most)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(attempts_max: u32) -> AsyncRules {
        AsyncRules { attempts_max, ..crate::catalog::AsyncSpec::default().rules("LATEST") }
    }

    fn next(ended: Ended, failures: u32, age: Duration) -> Next {
        after(Attempt { ended, failures, age }, &rules(3), 0.0)
    }

    #[test]
    fn what_is_tried_again() {
        let ms = Duration::from_millis;
        let retry = |wait, counts| Next::Retry { wait: ms(wait), counts };
        for (ended, failures, age, expected) in [
            (Ended::Well, 0, 0, Next::End(State::Succeeded)),
            (Ended::Badly, 0, 0, retry(500, true)),
            (Ended::Badly, 1, 0, retry(1000, true)),
            (Ended::Badly, 2, 0, Next::End(State::Failed)),
            (Ended::Lost, 2, 0, retry(500, false)),
            (Ended::NotBegun, 2, 0, retry(500, false)),
            (Ended::NotBegun, 2, 40_000, retry(5000, false)),
            (Ended::NotBegun, 2, 4_000_000, retry(15_000, false)),
            (Ended::Hopeless, 0, 0, Next::End(State::Failed)),
            (Ended::Stopped, 0, 0, Next::End(State::Stopped)),
        ] {
            assert_eq!(next(ended, failures, ms(age)), expected, "{ended:?} {failures} {age}");
        }
        let old = Duration::from_secs(6 * 3600);
        for ended in [Ended::Badly, Ended::Lost, Ended::NotBegun] {
            assert_eq!(next(ended, 0, old), Next::End(State::Expired), "{ended:?}");
        }
        assert_eq!(next(Ended::Badly, 2, old), Next::End(State::Failed), "the last attempt did fail");
        assert_eq!(next(Ended::Well, 0, old), Next::End(State::Succeeded));
    }

    #[test]
    fn callers_always_have_room_beside_waiting_work() {
        let of = |concurrency, seats| super::concurrency(&AsyncRules { concurrency, ..rules(3) }, seats);
        assert_eq!([of(None, 1), of(None, 2), of(None, 3), of(None, 100)], [1, 1, 1, 50]);
        assert_eq!([of(Some(7), 100), of(Some(100), 100), of(Some(5), 1)], [7, 99, 1]);
    }

    proptest! {
        #[test]
        fn waits_grow_and_keep_their_bounds(failures in 0..1000u32, drawn in 0.0..1.0f64) {
            let (first, longest) = (Duration::from_secs(1), Duration::from_secs(300));
            let wait = backoff(first, longest, failures, drawn);
            prop_assert!(wait >= first / 2 && wait < longest);
            prop_assert!(backoff(first, longest, failures + 1, drawn) >= wait);
        }
    }
}
