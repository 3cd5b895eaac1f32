//! Usage by access key.
//!
//! Windows are what is charged, and one window may have requests of several keys. So what an instance used is divided among
//! the keys of its requests, in proportion to the time that was executed for them: hooks and starts as well, because they
//! were for those requests. The parts add up to the whole exactly.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::exact::{Charge, Exact};
use super::query::{GROUPS_MAX, QueryError, Reader, Scope};
use super::rows::WindowRow;

use crate::ids::{InstanceId, KeyId};

/// What an instance did for the requests of one key.
#[derive(Clone, Copy, Default)]
struct Share {
    requests: u64,
    executed_ns: u64,
}

/// An instance: who used it, and what it used.
#[derive(Default)]
struct Used {
    shares: BTreeMap<Option<KeyId>, Share>,
    sums: Exact,
}

/// All instances of a query.
pub(super) struct ByKey(BTreeMap<InstanceId, Used>);

impl ByKey {
    /// Reads which keys the requests had.
    pub(super) fn read(reader: &Reader, scope: &Scope<'_>) -> Result<ByKey, QueryError> {
        let mut instances: BTreeMap<InstanceId, Used> = BTreeMap::new();
        let mut count = 0;
        reader.invocations(scope, |_, _, row| {
            if let Some(instance) = row.instance {
                let shares = &mut instances.entry(instance).or_default().shares;
                let before = shares.len();
                let share = shares.entry(row.key).or_default();
                share.requests += 1;
                share.executed_ns = share.executed_ns.saturating_add(row.executed_ns);
                count += shares.len() - before;
            }
            if count > GROUPS_MAX { Err(QueryError::TooManyGroups) } else { Ok(ControlFlow::Continue(())) }
        })?;
        Ok(ByKey(instances))
    }

    /// Adds a window.
    pub(super) fn add(&mut self, row: &WindowRow) -> Result<(), QueryError> {
        self.0.entry(row.instance).or_default().sums.add(row);
        if self.0.len() > GROUPS_MAX { Err(QueryError::TooManyGroups) } else { Ok(()) }
    }

    /// What was used for the requests of each key.
    pub(super) fn divided(self) -> BTreeMap<Option<KeyId>, Exact> {
        let mut all: BTreeMap<Option<KeyId>, Exact> = BTreeMap::new();
        for Used { mut shares, sums } in self.0.into_values() {
            if shares.is_empty() {
                shares.insert(None, Share::default());
            }
            let requests: Vec<u64> = shares.values().map(|share| share.requests).collect();
            let executed: Vec<u64> = shares.values().map(|share| share.executed_ns).collect();
            let by_requests = Divider::new(&requests);
            let by_executed =
                if executed.iter().all(|part| *part == 0) { by_requests.clone() } else { Divider::new(&executed) };
            for (place, key) in shares.keys().enumerate() {
                let part = |whole: u128| by_executed.part(whole, place);
                let small = |whole: u64| by_executed.part(whole.into(), place) as u64;
                let charge = |whole: Charge| Charge { epochs: small(whole.epochs), epoch_mb: small(whole.epoch_mb) };
                all.entry(*key).or_default().add_sums(&Exact {
                    windows: small(sums.windows),
                    requests: by_requests.part(sums.requests.into(), place) as u64,
                    hook_calls: small(sums.hook_calls),
                    memory_bytes_peak: sums.memory_bytes_peak,
                    executed_ns: part(sums.executed_ns),
                    duration_ns: part(sums.duration_ns),
                    open_ns: part(sums.open_ns),
                    parked_ns: part(sums.parked_ns),
                    by_execution: charge(sums.by_execution),
                    by_duration: charge(sums.by_duration),
                    charged: charge(sums.charged),
                    parked_byte_ns: part(sums.parked_byte_ns),
                });
            }
        }
        // Keys that were asked for more than once an instance are in it; those without any part are not.
        all.retain(|_, sums| sums.windows > 0 || sums.requests > 0 || sums.executed_ns > 0);
        all
    }
}

/// Divides wholes into parts that add up to them.
#[derive(Clone)]
struct Divider {
    /// The weights up to each place.
    ends: Vec<u128>,
}

impl Divider {
    fn new(weights: &[u64]) -> Divider {
        let mut sum = 0;
        let ends = weights.iter().map(|weight| {
            sum += u128::from(*weight);
            sum
        });
        Divider { ends: ends.collect() }
    }

    /// The part of `whole` at a place: what is up to its end without what is up to its beginning.
    fn part(&self, whole: u128, place: usize) -> u128 {
        let last = self.ends.len() - 1;
        let total = self.ends[last];
        let up_to = |end: u128| match total {
            0 => 0,
            total => divided(whole, end, total),
        };
        let begin = if place == 0 { 0 } else { up_to(self.ends[place - 1]) };
        let end = if place == last { whole } else { up_to(self.ends[place]) };
        end - begin
    }
}

/// `whole` times `end` by `total`, where `end` is at most `total`.
fn divided(whole: u128, end: u128, total: u128) -> u128 {
    let (quotient, rest) = (whole / total, whole % total);
    // Weights are nanoseconds of 64 bits each, so that their products fit, but for thousands of years.
    quotient * end + rest.saturating_mul(end) / total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        for weights in [vec![1], vec![0], vec![0, 0], vec![1, 2, 3], vec![0, 7, 0], vec![u64::MAX, 1, u64::MAX]] {
            let divider = Divider::new(&weights);
            for whole in [0, 1, 10, 1_000_003, u128::from(u64::MAX)] {
                let parts: Vec<u128> = (0..weights.len()).map(|place| divider.part(whole, place)).collect();
                assert_eq!(parts.iter().sum::<u128>(), whole, "{weights:?}");
            }
        }
        let divider = Divider::new(&[1, 2, 3]);
        assert_eq!([0, 1, 2].map(|place| divider.part(60, place)), [10, 20, 30]);
        assert_eq!(Divider::new(&[0, 5]).part(60, 0), 0);
    }
}
