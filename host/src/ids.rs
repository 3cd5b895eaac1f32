//! Identifiers of functions, revisions, versions, aliases, instances, requests and access keys.
//!
//! Names come from people and are checked here once; instances and requests get random identifiers, revisions and
//! versions get the next number. Nothing in this file knows what the identifiers stand for.

mod key;

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

pub use key::{InvalidKeyId, KeyId};

use crate::clock;

/// The qualifier of a function's newest revision, and what a request reaches that has none.
pub const LATEST: &str = "LATEST";

/// Characters that each part of a function's name may have at most, as in Function Compute.
const FUNCTION_NAME_MAX: usize = 128;
/// Stands between a service and a function of it; no part of a name holds it.
const SERVICE_END: char = '.';

/// Characters an alias may have at most, as in Function Compute.
const ALIAS_NAME_MAX: usize = 128;

/// Characters of a request identifier that a caller may choose.
const REQUEST_ID_MAX: usize = 128;

/// A function's name: 1 to 128 of `a-z A-Z 0-9 _ -`, starting with a letter or `_`; or two of these with a dot between
/// them, for a function of a service: `shop.cart`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(Arc<str>);

/// A name that no function may have.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{name}` is not a function name: 1 to {FUNCTION_NAME_MAX} letters, digits, `_` or `-`, starting with a letter or `_`; a function of a \
     service has the service's name and a dot before it"
)]
pub struct InvalidName {
    name: String,
}

impl FunctionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as text that others may keep.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The name of a service's function.
    pub fn of_service(service: &str, function: &str) -> Result<FunctionName, InvalidName> {
        format!("{service}{SERVICE_END}{function}").parse()
    }

    /// The service, if it is a service's function, and the name within that.
    pub fn parts(&self) -> (Option<&str>, &str) {
        self.0.split_once(SERVICE_END).map_or((None, &self.0), |(service, function)| (Some(service), function))
    }

    /// What the names of a service's functions begin with.
    pub fn prefix_of(service: &str) -> String {
        format!("{service}{SERVICE_END}")
    }
}

impl std::str::FromStr for FunctionName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<FunctionName, InvalidName> {
        let (first, second) = name.split_once(SERVICE_END).unwrap_or((name, "_"));
        if is_name(first, FUNCTION_NAME_MAX) && is_name(second, FUNCTION_NAME_MAX) {
            Ok(FunctionName(name.into()))
        } else {
            let name = name.chars().take(2 * FUNCTION_NAME_MAX + 2).collect();
            Err(InvalidName { name })
        }
    }
}

/// Maps by name can be asked with a text.
impl Borrow<str> for FunctionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FunctionName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<FunctionName, InvalidName> {
        name.parse()
    }
}

impl From<FunctionName> for String {
    fn from(name: FunctionName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A revision's identifier: a number that this host gives to one revision only, whatever is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevisionId(pub u64);

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a published version: 1, 2, 3 and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionNumber(NonZero<u64>);

/// A text that is no version's number.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a version: 1, 2, 3 and so on")]
pub struct InvalidVersion(String);

impl VersionNumber {
    /// The first version of every function.
    pub const FIRST: VersionNumber = VersionNumber(NonZero::<u64>::MIN);

    /// The number as the catalog stores it.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// The version that the catalog stored as `number`.
    pub fn from_u64(number: u64) -> Option<VersionNumber> {
        NonZero::new(number).map(VersionNumber)
    }

    /// The next one.
    pub fn next(self) -> VersionNumber {
        VersionNumber(self.0.saturating_add(1))
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for VersionNumber {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<VersionNumber, InvalidVersion> {
        // `+1` and `01` would be second names for the same version.
        let plain = text.starts_with(|first: char| first.is_ascii_digit() && first != '0');
        let number = text.parse().ok().filter(|_| plain);
        number.map(VersionNumber).ok_or_else(|| InvalidVersion(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for VersionNumber {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<VersionNumber, InvalidVersion> {
        text.parse()
    }
}

/// The name that a revision's instances give as their version: `LATEST`, or its number once it is published. Cheap to
/// clone; all clones change together.
#[derive(Clone, Debug)]
pub struct VersionLabel(Arc<ArcSwap<Arc<str>>>);

impl VersionLabel {
    /// A label that says `version` for now.
    pub fn new(version: Arc<str>) -> VersionLabel {
        VersionLabel(Arc::new(ArcSwap::from_pointee(version)))
    }

    /// What it says.
    pub fn get(&self) -> Arc<str> {
        Arc::clone(&self.0.load())
    }

    /// Lets it say `version`.
    pub fn set(&self, version: &Arc<str>) {
        if **self.0.load() != *version {
            self.0.store(Arc::new(version.clone()));
        }
    }
}

/// An alias: 1 to 128 of `a-z A-Z 0-9 _ -`, starting with a letter or `_`, and not `LATEST`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AliasName(Arc<str>);

/// A name that no alias may have.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{name}` is not an alias: 1 to {ALIAS_NAME_MAX} letters, digits, `_` or `-`, starting with a letter or `_`, and not \
     `LATEST`"
)]
pub struct InvalidAlias {
    name: String,
}

impl AliasName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for AliasName {
    type Err = InvalidAlias;

    fn from_str(name: &str) -> Result<AliasName, InvalidAlias> {
        if is_name(name, ALIAS_NAME_MAX) && !name.eq_ignore_ascii_case(LATEST) {
            Ok(AliasName(name.into()))
        } else {
            Err(InvalidAlias { name: name.chars().take(ALIAS_NAME_MAX + 1).collect() })
        }
    }
}

impl Borrow<str> for AliasName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `name` is made of letters, digits, `_` and `-`, and starts with a letter or `_`.
fn is_name(name: &str, length_max: usize) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let valid = |other: char| other.is_ascii_alphanumeric() || other == '_' || other == '-';
    starts && name.len() <= length_max && name.chars().all(valid)
}

/// An instance's identifier: `i-` and 16 hexadecimal digits, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(u64);

/// A text that is no instance's identifier.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an instance identifier: `i-` and 16 hexadecimal digits")]
pub struct InvalidInstanceId(String);

impl InstanceId {
    /// A new identifier: 62 random bits, so that two hosts do not meet either.
    pub fn random() -> InstanceId {
        InstanceId(Uuid::new_v4().as_u64_pair().1)
    }

    /// The identifier as the number that the ledger stores.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The identifier that the ledger stored as `number`.
    pub fn from_u64(number: u64) -> InstanceId {
        InstanceId(number)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i-{:016x}", self.0)
    }
}

impl std::str::FromStr for InstanceId {
    type Err = InvalidInstanceId;

    fn from_str(text: &str) -> Result<InstanceId, InvalidInstanceId> {
        text.strip_prefix("i-")
            .filter(|digits| digits.len() == 16)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(InstanceId)
            .ok_or_else(|| InvalidInstanceId(text.chars().take(64).collect()))
    }
}

/// A request's identifier: the caller's own if it is sane, else a UUID of version 7. Hooks have one as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new identifier; they sort by time.
    pub fn new() -> RequestId {
        // Without a count of those of the same millisecond: threads would have to share it.
        let date = clock::date().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = Uuid::new_v7(Timestamp::from_unix(NoContext, date.as_secs(), date.subsec_nanos()));
        let mut text = Uuid::encode_buffer();
        RequestId(Arc::from(&*id.hyphenated().encode_lower(&mut text)))
    }

    /// The caller's identifier, unless it is empty, too long or holds more than letters, digits and `._:/+=@-`.
    pub fn from_caller(text: &str) -> Option<RequestId> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/+=@-".contains(&byte);
        // Only dots would be a step in a path.
        let named = text.bytes().any(|byte| byte != b'.');
        let sane = named && text.len() <= REQUEST_ID_MAX && text.bytes().all(valid);
        sane.then(|| RequestId(text.into()))
    }

    /// The identifier of a timer's tick. It holds a `~`, so that no caller can take it first.
    pub fn of_tick(trigger: &str, time: &str) -> RequestId {
        RequestId(format!("{trigger}~{time}").into())
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identifier as text that others may keep.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

/// A text that is no request's identifier.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an identifier: 1 to {REQUEST_ID_MAX} letters, digits and `._:/+=@-`")]
pub struct InvalidRequestId(String);

impl std::str::FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(text: &str) -> Result<RequestId, InvalidRequestId> {
        let own = |(trigger, time): (&str, &str)| {
            [trigger, time].iter().all(|part| RequestId::from_caller(part).is_some()).then(|| RequestId(text.into()))
        };
        let id = RequestId::from_caller(text).or_else(|| text.split_once('~').and_then(own));
        id.ok_or_else(|| InvalidRequestId(text.chars().take(REQUEST_ID_MAX).collect()))
    }
}

impl Default for RequestId {
    fn default() -> RequestId {
        RequestId::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["hello", "_x", "A-1_b", &"a".repeat(64)] {
            assert_eq!(good.parse::<FunctionName>().unwrap().as_str(), good);
        }
        for bad in ["", "1a", "-a", "a.1", ".a", "a.", "a.b.c", "a/b", "ü", &"a".repeat(129)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_and_aliases_cannot_be_taken_for_each_other() {
        for good in ["1", "42", "18446744073709551615"] {
            assert_eq!(good.parse::<VersionNumber>().unwrap().to_string(), good);
            assert!(good.parse::<AliasName>().is_err(), "{good}");
        }
        for bad in ["", "0", "01", "+1", "-1", "1a", "18446744073709551616"] {
            assert!(bad.parse::<VersionNumber>().is_err(), "{bad}");
        }
        for good in ["prod", "_x", "A-1_b", &"a".repeat(128)] {
            assert_eq!(good.parse::<AliasName>().unwrap().as_str(), good);
            assert!(good.parse::<VersionNumber>().is_err(), "{good}");
        }
        for bad in ["", "1a", "LATEST", "latest", "a.b", "ü", &"a".repeat(129)] {
            assert!(bad.parse::<AliasName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn instance_ids_survive_text() {
        let id = InstanceId::random();
        assert_eq!(id.to_string().parse::<InstanceId>().unwrap(), id);
        for bad in ["", "i-", "i-xyz", "0123456789abcdef", "i-0123456789abcdeff"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_sane_request_ids_are_taken_from_callers() {
        assert_eq!(RequestId::from_caller("abc-1.2").unwrap().as_str(), "abc-1.2");
        for bad in ["", ".", "..", "a~b", "a b", "a\nb", "<x>", &"a".repeat(129)] {
            assert!(RequestId::from_caller(bad).is_none(), "{bad:?}");
        }
    }
}
