//! Identifiers of functions, instances and requests.
//!
//! Names come from people and are checked here once; instances and requests get random ones. Nothing in this file
//! knows what the identifiers stand for.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

/// The version every request reaches unless it names another.
pub const LATEST: &str = "LATEST";

/// Characters a function's name may have at most.
const FUNCTION_NAME_MAX: usize = 64;

/// Characters of a request identifier that a caller may choose.
const REQUEST_ID_MAX: usize = 128;

/// A function's name: 1 to 64 of `a-z A-Z 0-9 _ -`, starting with a letter or `_`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(Arc<str>);

/// A name that no function may have.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{name}` is not a function name: 1 to {FUNCTION_NAME_MAX} letters, digits, `_` or `-`, starting with a letter or `_`"
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
}

impl std::str::FromStr for FunctionName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<FunctionName, InvalidName> {
        let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let valid = |other: char| other.is_ascii_alphanumeric() || other == '_' || other == '-';
        if starts && name.len() <= FUNCTION_NAME_MAX && name.chars().all(valid) {
            Ok(FunctionName(name.into()))
        } else {
            let name = name.chars().take(FUNCTION_NAME_MAX + 1).collect();
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
        let id = Uuid::new_v7(Timestamp::now(NoContext));
        let mut text = Uuid::encode_buffer();
        RequestId(Arc::from(&*id.hyphenated().encode_lower(&mut text)))
    }

    /// The caller's identifier, unless it is empty, too long or holds more than letters, digits and `._:/+=@-`.
    pub fn from_caller(text: &str) -> Option<RequestId> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/+=@-".contains(&byte);
        let sane = !text.is_empty() && text.len() <= REQUEST_ID_MAX && text.bytes().all(valid);
        sane.then(|| RequestId(text.into()))
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
        for bad in ["", "1a", "-a", "a.b", "a/b", "ü", &"a".repeat(65)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
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
        for bad in ["", "a b", "a\nb", "<x>", &"a".repeat(129)] {
            assert!(RequestId::from_caller(bad).is_none(), "{bad:?}");
        }
    }
}
