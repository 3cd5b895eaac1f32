//! Times as the ledger stores them (integers) and shows them (RFC 3339 and milliseconds).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serializer};

/// The last microsecond that RFC 3339 can write: the end of the year 9999.
const UNIX_US_MAX: i64 = 253_402_300_799_999_999;

/// `time` in microseconds since 1970. Times that RFC 3339 cannot write are clamped to the nearest that it can.
pub(super) fn to_unix_us(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let us = since.as_secs().saturating_mul(1_000_000).saturating_add(since.subsec_micros().into());
    i64::try_from(us).unwrap_or(UNIX_US_MAX).min(UNIX_US_MAX)
}

/// A stored time.
pub(super) fn from_unix_us(unix_us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(unix_us.clamp(0, UNIX_US_MAX).unsigned_abs())
}

/// A stored time in RFC 3339 with milliseconds.
pub(super) fn rfc3339_ms(unix_us: i64) -> String {
    humantime::format_rfc3339_millis(from_unix_us(unix_us)).to_string()
}

/// A stored time in RFC 3339, in whole seconds.
pub(super) fn rfc3339(unix_us: i64) -> String {
    humantime::format_rfc3339_seconds(from_unix_us(unix_us)).to_string()
}

/// `time` in nanoseconds; 584 years at most.
pub(super) fn to_ns(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

/// Stored nanoseconds in milliseconds.
pub(super) fn to_ms(ns: impl Into<u128>) -> f64 {
    ns.into() as f64 / 1e6
}

/// Writes an optional time as RFC 3339; for `#[serde(with)]`.
pub(super) fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        None => serializer.serialize_none(),
        Some(time) => serializer.serialize_str(&rfc3339_ms(to_unix_us(*time))),
    }
}

/// Reads an optional time from RFC 3339 in UTC; `T`, `Z` and the fraction may be left out.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let time = humantime::parse_rfc3339_weak(&text);
    time.map(Some)
        .map_err(|_| serde::de::Error::custom(format!("`{text}` is not a UTC time such as 2026-01-31T12:00:00Z")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_out_of_range_are_clamped_and_can_be_written() {
        assert_eq!(to_unix_us(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(rfc3339_ms(i64::MIN), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_ms(i64::MAX), "9999-12-31T23:59:59.999Z");
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(to_unix_us(far), UNIX_US_MAX);
        assert_eq!(rfc3339(UNIX_US_MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn spans_survive_storing() {
        assert_eq!(to_ns(Duration::from_nanos(1_000_000_001)), 1_000_000_001);
        assert_eq!(to_ns(Duration::MAX), u64::MAX);
        assert_eq!(to_ms(1_500_001_u64), 1.500_001);
    }
}
