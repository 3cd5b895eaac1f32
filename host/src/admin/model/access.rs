//! The JSON of access keys and of the audit log.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Right;

/// An access key, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// Its identifier, which is no secret; `admin-token` for the host's admin token.
    pub id: String,
    /// For people.
    pub description: String,
    /// The functions that it is for: names, prefixes such as `shop-*`, or `*` for all and for the host itself.
    pub functions: Vec<String>,
    /// What it may do with them; `manage` includes the others.
    pub rights: Vec<Right>,
    /// Calls of functions that it may make in a second; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// When it was made; RFC 3339, UTC. Absent for the admin token, as are the times below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When it expires; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// When its secret was last replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<String>,
    /// Until when the secret before that still works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<String>,
    /// When it was last used, to the second; after a kill of the host it may be up to a minute too early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
}

/// A key that was just made or rotated.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyWithSecret {
    /// What to send as `Authorization: Bearer TOKEN`: identifier and secret. It is never shown again.
    pub token: String,
    /// The key.
    #[serde(flatten)]
    pub key: KeyView,
}

/// All keys.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// The oldest first; the admin token is the first of all.
    pub keys: Vec<KeyView>,
}

/// A key to be made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateKeyRequest {
    /// The functions that it is for: 1 to 100 names, prefixes such as `shop-*`, or `*` for all and for the host itself.
    pub functions: Vec<String>,
    /// What it may do with them; at least one.
    pub rights: Vec<Right>,
    /// For people; at most 256 characters.
    #[serde(default)]
    pub description: String,
    /// When it expires; RFC 3339, UTC. Left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Calls of functions that it may make in a second, at least 1. Left out: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
}

/// How to rotate a key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateKeyRequest {
    /// For how long the old secret still works, in ms: at most 2 592 000 000, which are 30 days.
    #[serde(default)]
    pub grace_ms: u64,
}

/// A change that an operator made or asked for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its number; later entries have higher ones.
    pub id: u64,
    /// When it was asked for; RFC 3339, UTC.
    pub time: String,
    /// Who asked: a key's identifier, `admin-token`, `certificate:` and the first 16 digits of its SHA-256 fingerprint, or
    /// `local` for a program on this machine where the plane asks for no key.
    pub operator: String,
    /// The client's address.
    pub address: String,
    /// What was asked for, by its name in this document: `deployFunction`.
    pub action: String,
    /// The function that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// More about it; never a secret or a setting's value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The answer's status. Absent: nobody got an answer, because the client left or the host ended; what was asked for may
    /// have been done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// Entries of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The newest first.
    pub entries: Vec<AuditEntry>,
    /// Older ones follow: pass it as `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}
