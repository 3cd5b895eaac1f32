//! Aliases: names for versions, and which version a request gets where a name stands for several. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::ids::{AliasName, VersionNumber};

/// Versions beside the main one that an alias may send requests to.
const WEIGHTS_MAX: usize = 16;
/// Versions that an alias named before and remembers, for `rollback`.
const EARLIER_MAX: usize = 16;

/// A name for a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    /// The name.
    pub name: AliasName,
    /// The version that gets what the weights leave.
    pub version: VersionNumber,
    /// Shares of the requests that other versions get: each 0 to 1, at most 1 together.
    pub weights: BTreeMap<VersionNumber, f64>,
    /// The versions that it named before, the latest last.
    pub earlier: Vec<VersionNumber>,
    /// For people.
    pub description: String,
    /// When it was made.
    pub created: SystemTime,
    /// When it last changed.
    pub updated: SystemTime,
}

/// What an alias shall be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AliasChange {
    /// The version that it names; none: as before.
    pub version: Option<VersionNumber>,
    /// Shares of other versions.
    pub weights: BTreeMap<VersionNumber, f64>,
    /// For people; none: as before.
    pub description: Option<String>,
}

impl Alias {
    /// The version for a request at `place`, a number from 0 to below 1. The same place gets the same version for as long
    /// as the alias stays as it is, and one that grows keeps the requests that it has.
    pub fn version_at(&self, place: f64) -> VersionNumber {
        let mut end = 0.0;
        for (version, weight) in &self.weights {
            end += weight;
            if place < end {
                return *version;
            }
        }
        self.version
    }

    /// Whether it sends requests to this version.
    pub fn names(&self, version: VersionNumber) -> bool {
        self.version == version || self.weights.contains_key(&version)
    }

    /// Remembers the version that it names, which is about to become `next`.
    pub(super) fn note_move_to(&mut self, next: VersionNumber) {
        if next != self.version {
            if self.earlier.len() == EARLIER_MAX {
                self.earlier.remove(0);
            }
            self.earlier.push(self.version);
        }
    }
}

/// Checks the shares of an alias for `version`; says what is wrong.
pub(super) fn check_weights(version: VersionNumber, weights: &BTreeMap<VersionNumber, f64>) -> Result<(), String> {
    if weights.len() > WEIGHTS_MAX {
        return Err(format!("`weights` names {} versions; at most {WEIGHTS_MAX}", weights.len()));
    }
    if weights.contains_key(&version) {
        return Err(format!("`weights` names version {version}, which gets what the others leave; leave it out"));
    }
    if let Some((other, weight)) = weights.iter().find(|(_, weight)| !(0.0..=1.0).contains(*weight)) {
        return Err(format!("the weight of version {other} is {weight}; it must be 0 to 1"));
    }
    let sum: f64 = weights.values().sum();
    // Weights such as 0.7 + 0.2 + 0.1 have a sum slightly above 1.
    if sum > 1.0 + 1e-9 {
        return Err(format!("the weights have a sum of {sum}; it must be at most 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> VersionNumber {
        VersionNumber::from_u64(number).unwrap()
    }

    fn alias(weights: &[(u64, f64)]) -> Alias {
        Alias {
            name: "prod".parse().unwrap(),
            version: version(1),
            weights: weights.iter().map(|(number, weight)| (version(*number), *weight)).collect(),
            earlier: Vec::new(),
            description: String::new(),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn each_version_gets_its_share_of_the_places() {
        let alias = alias(&[(2, 0.1), (3, 0.25)]);
        let mut counts = BTreeMap::new();
        for place in 0..1000 {
            *counts.entry(alias.version_at(f64::from(place) / 1000.0)).or_insert(0) += 1;
        }
        assert_eq!(counts, BTreeMap::from([(version(1), 650), (version(2), 100), (version(3), 250)]));
    }

    #[test]
    fn a_share_that_grows_keeps_the_places_it_has() {
        let (before, after) = (alias(&[(2, 0.1)]), alias(&[(2, 0.3)]));
        for place in (0..1000).map(|place| f64::from(place) / 1000.0) {
            assert!(before.version_at(place) == version(1) || after.version_at(place) == version(2), "{place}");
        }
    }

    #[test]
    fn shares_that_make_no_sense_are_named() {
        let fault = |weights: &[(u64, f64)]| check_weights(version(1), &alias(weights).weights).unwrap_err();
        assert!(fault(&[(1, 0.5)]).contains("version 1"));
        assert!(fault(&[(2, 1.5)]).contains("1.5"));
        assert!(fault(&[(2, -0.1)]).contains("-0.1"));
        assert!(fault(&[(2, 0.6), (3, 0.6)]).contains("1.2"));
        let many: Vec<(u64, f64)> = (2..40).map(|number| (number, 0.0)).collect();
        assert!(fault(&many).contains("at most 16"));
        assert!(check_weights(version(1), &alias(&[(2, 0.7), (3, 0.2), (4, 0.1)]).weights).is_ok());
    }

    #[test]
    fn only_the_latest_moves_are_remembered() {
        let mut alias = alias(&[]);
        for number in 2..100 {
            alias.note_move_to(version(number));
            alias.version = version(number);
        }
        alias.note_move_to(version(99));
        assert_eq!(alias.earlier.len(), EARLIER_MAX);
        assert_eq!(alias.earlier.last(), Some(&version(98)), "staying is no move");
    }
}
