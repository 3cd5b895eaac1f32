//! Figures as people read them.

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12 ms`, `3.4 s`, `2.5 min`, `7.1 h`.
pub(super) fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1000.0),
        ms if ms < 3_600_000.0 => format!("{:.1} min", ms / 60_000.0),
        ms => format!("{:.1} h", ms / 3_600_000.0),
    }
}

/// `512 B`, `1.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let mut rest = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if rest < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{rest:.1} {unit}") };
        }
        rest /= 1024.0;
    }
    format!("{rest:.1} TiB")
}

/// CU with as many digits as say something.
pub(super) fn cu(cu: f64) -> String {
    match cu {
        0.0 => "0".to_owned(),
        cu if cu < 1.0 => format!("{cu:.4}"),
        cu if cu < 100.0 => format!("{cu:.2}"),
        cu => count(cu.round() as u64),
    }
}

/// So many a second.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => count(rate.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_their_unit() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([duration(0.1234), duration(45.6), duration(1500.0)], ["0.12 ms", "46 ms", "1.5 s"]);
        assert_eq!([duration(90_000.0), duration(7_200_000.0)], ["1.5 min", "2.0 h"]);
        assert_eq!([bytes(12), bytes(1536), bytes(3 << 30)], ["12 B", "1.5 KiB", "3.0 GiB"]);
        assert_eq!([cu(0.0), cu(0.01234), cu(12.345), cu(1234.0)], ["0", "0.0123", "12.35", "1,234"]);
        assert_eq!([rate(0.0), rate(0.25), rate(1999.6)], ["0", "0.2", "2,000"]);
    }
}
