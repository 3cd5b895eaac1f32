//! Who asks for something on the admin plane, and whether that one may.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::access::{Key, Right};
use crate::web::problem::{Code, Failure};
use crate::web::service::Fingerprint;

/// An operator, as the guard recognised it.
#[derive(Clone)]
pub(super) enum Operator {
    /// A program on this machine, where the plane asks for no key.
    Local,
    /// The holder of a certificate that the plane takes.
    Certificate(Fingerprint),
    /// The holder of an access key.
    Key(Arc<Key>),
}

impl Operator {
    /// The name in the audit log.
    pub(super) fn name(&self) -> String {
        match self {
            Operator::Local => "local".to_owned(),
            Operator::Certificate(fingerprint) => format!("certificate:{fingerprint}"),
            Operator::Key(key) => key.id.to_string(),
        }
    }

    /// Whether it may do this with a function of this name, whether or not there is one.
    pub(super) fn may(&self, right: Right, function: &str) -> bool {
        match self {
            Operator::Local | Operator::Certificate(_) => true,
            Operator::Key(key) => key.scope.allows(right, function),
        }
    }

    /// Whether it may do this with all functions and with the host.
    pub(super) fn may_with_all(&self, right: Right) -> bool {
        match self {
            Operator::Local | Operator::Certificate(_) => true,
            Operator::Key(key) => key.scope.allows_with_all(right),
        }
    }

    /// Refuses what it may not do with a function.
    pub(super) fn check(&self, right: Right, function: &str) -> Result<(), Failure> {
        if self.may(right, function) {
            return Ok(());
        }
        let shown: String = function.chars().take(80).collect();
        Err(self.forbidden(&format!("{} function `{shown}`", right.as_str())))
    }

    /// Refuses what it may not do with the host.
    pub(super) fn check_with_all(&self, right: Right) -> Result<(), Failure> {
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

/// The guard has put it there.
impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Failure;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Operator, Failure> {
        let operator = head.extensions.get::<Operator>().cloned();
        operator.ok_or_else(|| Failure::new(Code::Internal, "nobody looked at who asks"))
    }
}
