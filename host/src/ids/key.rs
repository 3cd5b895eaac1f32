//! Identifiers of access keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What every identifier of a key begins with, so that it is not taken for anything else.
const PREFIX: &str = "dmk-";
const DIGITS: usize = 16;
const ADMIN_TOKEN: &str = "admin-token";

/// An access key's identifier: `dmk-` and 16 hexadecimal digits, never used twice; `admin-token` for the host's admin token.
/// It is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(u64);

/// A text that is no key's identifier.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a key's identifier: `dmk-` and 16 hexadecimal digits, as `dormouse keys list` shows it")]
pub struct InvalidKeyId(String);

impl KeyId {
    /// The admin token's.
    pub const ADMIN_TOKEN: KeyId = KeyId(0);

    /// A new identifier.
    pub fn random() -> KeyId {
        // Its second half has bits that are always set, so that it is never 0.
        KeyId(Uuid::new_v4().as_u64_pair().1)
    }

    /// The identifier as the number that is stored.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The identifier that was stored as `number`.
    pub fn from_u64(number: u64) -> KeyId {
        KeyId(number)
    }

    /// Whether a text was meant to be a key's identifier, or to begin with one.
    pub fn begins(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Whether there is an identifier somewhere in a text. Four letters are not enough: tokens of others may hold them.
    pub fn is_in(text: &[u8]) -> bool {
        let is_one = |part: &[u8]| str::from_utf8(part).is_ok_and(|part| part.parse::<KeyId>().is_ok());
        text.windows(PREFIX.len() + DIGITS).any(|part| part.starts_with(PREFIX.as_bytes()) && is_one(part))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            KeyId::ADMIN_TOKEN => f.write_str(ADMIN_TOKEN),
            KeyId(number) => write!(f, "{PREFIX}{number:016x}"),
        }
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<KeyId, InvalidKeyId> {
        if text == ADMIN_TOKEN {
            return Ok(KeyId::ADMIN_TOKEN);
        }
        let is_digit = |letter: u8| letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter);
        text.strip_prefix(PREFIX)
            .filter(|digits| digits.len() == DIGITS && digits.bytes().all(is_digit))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .filter(|number| *number != 0)
            .map(KeyId)
            .ok_or_else(|| InvalidKeyId(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidKeyId;

    fn try_from(text: String) -> Result<KeyId, InvalidKeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_found_in_other_text_and_its_beginning_alone_is_none() {
        for text in ["dmk-0123456789abcdef", "Token \"dmk-0123456789abcdef.x\"", "dmk-dmk-0123456789abcdef"] {
            assert!(KeyId::is_in(text.as_bytes()), "{text}");
        }
        for text in ["", "dmk-", "eyJdmk-0123456789abcxyz", "dmk-0123456789ABCDEF", "admin-token"] {
            assert!(!KeyId::is_in(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn identifiers_have_one_spelling() {
        let id = KeyId::random();
        assert_eq!(id.to_string().parse::<KeyId>().unwrap(), id);
        assert_eq!("admin-token".parse::<KeyId>().unwrap(), KeyId::ADMIN_TOKEN);
        for bad in
            ["", "dmk-", "dmk-0000000000000000", "dmk-0123456789ABCDEF", "dmk-+123456789abcdef", "DMK-0123456789abcdef"]
        {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }
}
