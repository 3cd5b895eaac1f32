//! What the same use would cost at Function Compute: its factors and prices since 27 August 2024, as
//! `host/docs/function-compute.md` lists them. Pure.

use serde::Serialize;

use crate::ledger::Sums;

/// CU of 10,000 invocations, of a second of a vCPU at work, and of a second of a GB of memory.
const CU_10_000_INVOCATIONS: f64 = 75.0;
const CU_VCPU_SECOND: f64 = 1.0;
const CU_GB_SECOND: f64 = 0.15;
/// vCPU for each GB of memory, for functions that do not say how much they want.
const VCPU_OF_GB: f64 = 0.5;
/// US dollars for a CU, and up to how many it is that price.
const PRICES: [(f64, f64); 3] = [(100e6, 0.000_020), (500e6, 0.000_017), (f64::INFINITY, 0.000_014)];

/// A function's use in Function Compute's terms.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    /// The function.
    pub(super) function: String,
    /// Its requests.
    pub(super) invocations: u64,
    /// Seconds of vCPU.
    pub(super) vcpu_seconds: f64,
    /// Seconds of GB.
    pub(super) gb_seconds: f64,
    /// CU, in whole ones for each hour.
    pub(super) cu: f64,
}

/// All lines, and their price.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Price {
    /// The lines.
    pub(super) functions: Vec<Line>,
    /// Their CU.
    pub(super) cu: f64,
    /// What they cost, in US dollars.
    pub(super) usd: f64,
}

impl Line {
    /// The line of a function, by what it used in each hour. `vcpu`: what its client asked for.
    pub(super) fn of(function: String, vcpu: Option<f64>, hours: &[Sums]) -> Line {
        let mut line = Line { function, ..Line::default() };
        for hour in hours {
            let (seconds, gb_seconds) = (hour.duration_ms / 1000.0, hour.duration_cu);
            let vcpu_seconds = vcpu.map_or(gb_seconds * VCPU_OF_GB, |vcpu| seconds * vcpu);
            let invocations = hour.requests as f64 / 10_000.0 * CU_10_000_INVOCATIONS;
            line.invocations += hour.requests;
            line.vcpu_seconds += vcpu_seconds;
            line.gb_seconds += gb_seconds;
            line.cu += (invocations + vcpu_seconds * CU_VCPU_SECOND + gb_seconds * CU_GB_SECOND).ceil();
        }
        line
    }
}

impl Price {
    pub(super) fn of(functions: Vec<Line>) -> Price {
        let cu = functions.iter().map(|line| line.cu).sum();
        let (mut usd, mut from) = (0.0, 0.0);
        for (to, price) in PRICES {
            usd += (f64::min(cu, to) - from).max(0.0) * price;
            from = to;
        }
        Price { functions, cu, usd }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(requests: u64, seconds: f64, gb: f64) -> Sums {
        Sums { requests, duration_ms: seconds * 1000.0, duration_cu: seconds * gb, ..Sums::default() }
    }

    #[test]
    fn use_becomes_cu_hour_by_hour_and_cu_a_price() {
        // 150 + 100 * 0.5 + 100 * 0.5 * 0.15 = 207.5, and 0.0075 + 1 + 0.15 = 1.1575.
        let line = Line::of("a".to_owned(), Some(0.5), &[hour(20_000, 100.0, 0.5), hour(1, 1.0, 1.0)]);
        assert_eq!((line.invocations, line.vcpu_seconds, line.gb_seconds), (20_001, 50.5, 51.0));
        assert_eq!(line.cu, 208.0 + 1.0, "{line:?}");
        let silent = Line::of("b".to_owned(), None, &[hour(0, 10.0, 2.0)]);
        assert_eq!((silent.vcpu_seconds, silent.cu), (10.0, 13.0));
        let price = Price::of(vec![line, silent]);
        assert_eq!((price.cu, (price.usd * 1e6).round()), (222.0, 4440.0));
    }

    #[test]
    fn much_costs_less() {
        let usd = |cu: f64| Price::of(vec![Line { cu, ..Line::default() }]).usd.round();
        assert_eq!(usd(100e6), 2000.0);
        assert_eq!(usd(200e6), 2000.0 + 1700.0);
        assert_eq!(usd(600e6), 2000.0 + 6800.0 + 1400.0);
    }
}
