//! The date. A machine's clock may show any, also one before 1970, which most libraries take for impossible and panic at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The date and time that the machine shows; 1970 if it shows an earlier one.
pub fn date() -> SystemTime {
    from_1970(SystemTime::now())
}

/// The date `time` ago, 1970 at the earliest.
pub fn ago(time: Duration) -> SystemTime {
    date().checked_sub(time).map_or(SystemTime::UNIX_EPOCH, from_1970)
}

/// A date as databases keep it: microseconds since 1970.
pub fn microseconds(date: SystemTime) -> u64 {
    date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// The date that a database kept.
pub fn from_microseconds(microseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(microseconds)
}

fn from_1970(shown: SystemTime) -> SystemTime {
    shown.max(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_date_is_before_1970() {
        let day = Duration::from_secs(86_400);
        assert_eq!(from_1970(SystemTime::UNIX_EPOCH - day), SystemTime::UNIX_EPOCH);
        assert_eq!(from_1970(SystemTime::UNIX_EPOCH + day), SystemTime::UNIX_EPOCH + day);
        assert_eq!(ago(Duration::from_secs(1 << 40)), SystemTime::UNIX_EPOCH);
        assert_eq!(ago(Duration::MAX), SystemTime::UNIX_EPOCH);
    }
}
