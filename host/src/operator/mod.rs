//! Who asks for a change, or to see something; whether that one may; and the note of it in the audit log.
//!
//! The admin plane, the console and Function Compute's APIs ask here. `entrance.rs` recognises who comes to the operators' listener and
//! `session.rs` browsers that signed in; `reach.rs` is about settings by which one function reaches others, and
//! `origin.rs` about web pages that try a plane which asks for no key.

pub mod entrance;
pub mod origin;
pub mod reach;
pub mod session;

use std::sync::Arc;

use crate::access::{Access, Change, EntryId, Key, Right};
use crate::host::Host;
use crate::web::problem::{Code, Failure};
use crate::web::service::Fingerprint;

/// An operator, as a plane recognised it.
#[derive(Clone)]
pub enum Operator {
    /// A program on this machine, where the plane asks for no key.
    Local,
    /// The holder of a certificate that the plane takes.
    Certificate(Fingerprint),
    /// The holder of an access key.
    Key(Arc<Key>),
    /// Somebody who showed nothing, on a plane for callers.
    Nobody,
}

impl Operator {
    /// The name in the audit log.
    pub fn name(&self) -> String {
        match self {
            Operator::Local => "local".to_owned(),
            Operator::Certificate(fingerprint) => format!("certificate:{fingerprint}"),
            Operator::Key(key) => key.id.to_string(),
            Operator::Nobody => "nobody".to_owned(),
        }
    }

    /// Whether it may do this with a function of this name, whether or not there is one.
    pub fn may(&self, right: Right, function: &str) -> bool {
        match self {
            Operator::Local | Operator::Certificate(_) => true,
            Operator::Key(key) => key.scope.allows(right, function),
            Operator::Nobody => false,
        }
    }

    /// Whether it may do this with all functions and with the host.
    pub fn may_with_all(&self, right: Right) -> bool {
        match self {
            Operator::Local | Operator::Certificate(_) => true,
            Operator::Key(key) => key.scope.allows_with_all(right),
            Operator::Nobody => false,
        }
    }

    /// Whether it is still who it was: a key may be revoked while its holder looks at something.
    pub fn is_current(&self, access: &Access) -> bool {
        match self {
            Operator::Local | Operator::Certificate(_) => true,
            Operator::Key(key) => access.is_current(key),
            Operator::Nobody => false,
        }
    }

    /// Refuses whoever may do this with no function at all.
    pub fn check_with_some(&self, right: Right) -> Result<(), Failure> {
        let may = match self {
            Operator::Local | Operator::Certificate(_) => true,
            Operator::Key(key) => key.scope.allows_with_some(right),
            Operator::Nobody => false,
        };
        if may { Ok(()) } else { Err(self.forbidden(right.as_str())) }
    }

    /// Refuses what it may not do with a function.
    pub fn check(&self, right: Right, function: &str) -> Result<(), Failure> {
        if self.may(right, function) {
            return Ok(());
        }
        let shown: String = function.chars().take(80).collect();
        Err(self.forbidden(&format!("{} function `{shown}`", right.as_str())))
    }

    /// Refuses what it may not do with the host.
    pub fn check_with_all(&self, right: Right) -> Result<(), Failure> {
        if self.may_with_all(right) {
            return Ok(());
        }
        Err(self.forbidden(&format!(
            "do this: it takes a key with the right to {} for all functions (`*`)",
            right.as_str()
        )))
    }

    fn forbidden(&self, what: &str) -> Failure {
        Failure::new(Code::Forbidden, format!("the key {} may not {what}", self.name()))
    }
}

/// Makes a change between its two notes in the audit log. `change` gets the entry, and says with which status it ended and what
/// there is to tell of it.
pub async fn noted<T>(
    host: &Arc<Host>,
    noted: Change,
    change: impl AsyncFnOnce(EntryId) -> (T, u16, String),
) -> anyhow::Result<T> {
    let about = noted.detail.clone();
    let entry = host.change_access(move |access| access.note_change(&noted)).await??;
    let (changed, status, told) = change(entry).await;
    let detail = [about, told].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
    let ended = host.change_access(move |access| access.note_end(entry, status, &detail)).await.flatten();
    if let Err(error) = ended {
        tracing::error!("the end of a change is missing in the audit log: {error:#}");
    }
    Ok(changed)
}
