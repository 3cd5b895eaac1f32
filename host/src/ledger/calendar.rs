//! The date by which records grow old. The machine's clock may be wrong, and deleted records cannot be restored. So when
//! the clock has jumped ahead, this date follows it slowly. It is stored in the ledger's file.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

/// How long a host may have been off, at most, for its clock to be believed at once.
const GAP_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How much faster than time itself the date follows a clock that is further ahead: a day in an hour. So an operator
/// whose clock is wrong has a day to set it before a record of this month is deleted.
const CATCH_UP: u32 = 24;

/// The date, and when it was last moved.
pub(super) struct Calendar {
    date: SystemTime,
    moved: Instant,
    warned: bool,
}

impl Calendar {
    /// Goes on from the date that was stored.
    pub(super) fn new(date: SystemTime) -> Calendar {
        Calendar { date, moved: Instant::now(), warned: false }
    }

    /// The date, now that the machine's clock shows `clock`.
    pub(super) fn date(&mut self, clock: SystemTime) -> SystemTime {
        let now = Instant::now();
        self.date = follow(self.date, clock, now.saturating_duration_since(self.moved));
        self.moved = now;
        let behind = clock.duration_since(self.date).unwrap_or_default();
        if behind > HOUR && !self.warned {
            tracing::warn!(
                days = behind.as_secs() / 86_400,
                "the machine's clock is days ahead of the last record; old records are deleted more slowly until the \
                 host has caught up with it; if the clock is wrong, set it"
            );
        }
        self.warned = behind > HOUR;
        self.date
    }
}

/// The date, `elapsed` after it was `date`. A clock that shows less is believed: it only makes records younger.
fn follow(date: SystemTime, clock: SystemTime, elapsed: Duration) -> SystemTime {
    match clock.duration_since(date) {
        Ok(ahead) if ahead > GAP_MAX.saturating_add(elapsed) => date + elapsed * CATCH_UP,
        Ok(_) | Err(_) => clock,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_date_follows_the_clock_unless_that_jumps_ahead() {
        let day = |days: u32| UNIX_EPOCH + DAY * days;
        let cases = [
            // The date, the clock, the time since; the date then.
            (day(100), day(101), DAY, day(101)),
            (day(100), day(107), Duration::ZERO, day(107)), // Off for a week.
            (day(100), day(108), Duration::ZERO, day(100)),
            (day(100), day(830), HOUR, day(101)),
            (day(100), day(830), HOUR * 30, day(130)),
            (day(829), day(830), HOUR, day(830)),     // It has caught up.
            (day(830), day(100), HOUR, day(100)),     // The clock was set right.
            (day(100), day(140), DAY * 39, day(140)), // A host that had nothing to do for long.
        ];
        for (date, clock, elapsed, expected) in cases {
            assert_eq!(follow(date, clock, elapsed), expected, "{date:?} {clock:?} {elapsed:?}");
        }
    }
}
