//! Events and replies as JSON shows them: text as it is, other bytes in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    /// `utf-8`: `data` is the text itself; `base64`: `data` is the bytes in base64.
    pub encoding: Encoding,
    /// The bytes, as `encoding` says.
    pub data: String,
}

/// How bytes stand in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Encoding {
    /// As they are.
    #[serde(rename = "utf-8")]
    Utf8,
    /// In base64 (RFC 4648, section 4).
    #[serde(rename = "base64")]
    Base64,
}

impl Payload {
    /// The bytes as text if they are text.
    pub fn of(bytes: &[u8]) -> Payload {
        match std::str::from_utf8(bytes) {
            Ok(text) => Payload { encoding: Encoding::Utf8, data: text.to_owned() },
            Err(_) => Payload { encoding: Encoding::Base64, data: STANDARD.encode(bytes) },
        }
    }

    /// The bytes; none if `data` is not what `encoding` says.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self.encoding {
            Encoding::Utf8 => Some(self.data.clone().into_bytes()),
            Encoding::Base64 => STANDARD.decode(&self.data).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_survive() {
        for (bytes, data) in [(&b"{\"a\":1}"[..], "{\"a\":1}"), (&[0xff, 0], "/wA="), (b"", "")] {
            let payload = Payload::of(bytes);
            assert_eq!(payload.data, data);
            assert_eq!(payload.bytes().unwrap(), bytes);
        }
    }
}
