//! Figures for people: durations, sizes, counts, CUs. All pure.

use std::time::Duration;

const KB: f64 = 1024.0;

/// Milliseconds in the unit that fits: `12.3 µs`, `4.56 ms`, `7.89 s`, `1.5 min`, `2 h`.
pub fn duration_ms(ms: f64) -> String {
    let (value, unit) = match ms {
        0.0 => return "0".to_owned(),
        ms if ms < 1.0 => (ms * 1000.0, "µs"),
        ms if ms < 1000.0 => (ms, "ms"),
        ms if ms < 60_000.0 => (ms / 1000.0, "s"),
        ms if ms < 3_600_000.0 => (ms / 60_000.0, "min"),
        ms => (ms / 3_600_000.0, "h"),
    };
    format!("{} {unit}", significant(value, 3))
}

/// A duration in the unit that fits.
pub fn duration(duration: Duration) -> String {
    duration_ms(duration.as_secs_f64() * 1000.0)
}

/// Bytes in the unit that fits; 1 MB is 1,048,576 bytes, as everywhere in Dormouse.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < KB {
            return format!("{} {unit}", significant(value, 3));
        }
        value /= KB;
    }
    format!("{} TB", significant(value, 3))
}

/// CUs, with enough digits that one epoch of the smallest function still shows.
pub fn cu(cu: f64) -> String {
    significant(cu, 4)
}

/// A number with thousands set apart: `1,234,567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many a second.
pub fn rate(rate: f64) -> String {
    if rate < 10.0 { significant(rate, 2) } else { count(rate.round() as u64) }
}

/// `value` with that many significant digits, without an exponent and without zeros that say nothing.
fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(digits - 1 - magnitude).unwrap_or(0).min(12);
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_unit_that_fits() {
        let cases = [
            (0.0, "0"),
            (0.0123, "12.3 µs"),
            (0.5, "500 µs"),
            (1.0, "1 ms"),
            (4.5678, "4.57 ms"),
            (999.0, "999 ms"),
            (1500.0, "1.5 s"),
            (90_000.0, "1.5 min"),
            (7_200_000.0, "2 h"),
            (360_000_000.0, "100 h"),
        ];
        for (ms, expected) in cases {
            assert_eq!(duration_ms(ms), expected, "{ms}");
        }
    }

    #[test]
    fn sizes_and_counts_are_readable() {
        assert_eq!([bytes(0), bytes(999), bytes(1536), bytes(134_217_728)], ["0 B", "999 B", "1.5 KB", "128 MB"]);
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([cu(0.0), cu(1.0), cu(0.000_062_5), cu(12_345.678)], ["0", "1", "0.0000625", "12346"]);
        assert_eq!([rate(0.0), rate(0.25), rate(7.0), rate(1999.6)], ["0", "0.25", "7", "2,000"]);
    }
}
