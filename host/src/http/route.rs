//! Addresses on the data plane.

use std::borrow::Cow;

use http::request::Parts as Head;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::problem::Failure;

const INVOKE: &str = "/invoke/";
const SERVE: &str = "/fn/";

/// Where a request goes.
pub(super) enum Route<'a> {
    /// `POST /invoke/{function}`: the body is an event.
    Invoke {
        /// The function.
        function: Cow<'a, str>,
        /// The version or alias that the query asks for.
        qualifier: Option<String>,
    },
    /// Any method, `/fn/{function}/{path...}`: the request is the function's.
    Serve {
        /// The function.
        function: Cow<'a, str>,
        /// What the function sees as its path; it begins with `/`.
        path: &'a str,
    },
}

impl Route<'_> {
    /// Reads a request's address.
    pub(super) fn of(head: &Head) -> Result<Route<'_>, Failure> {
        let path = head.uri.path();
        if let Some(name) = path.strip_prefix(INVOKE).filter(|name| !name.is_empty() && !name.contains('/')) {
            if head.method != Method::POST {
                let detail = "functions are invoked with POST; the body is the event";
                return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail));
            }
            return Ok(Route::Invoke { function: decoded(name)?, qualifier: qualifier(head)? });
        }
        if let Some(rest) = path.strip_prefix(SERVE).filter(|rest| !rest.is_empty() && !rest.starts_with('/')) {
            let (name, path) = rest.find('/').map_or((rest, "/"), |end| rest.split_at(end));
            return Ok(Route::Serve { function: decoded(name)?, path });
        }
        let detail = "there is nothing here; functions are at POST /invoke/{function} and /fn/{function}/{path}";
        Err(Failure::new(StatusCode::NOT_FOUND, "not-found", detail))
    }

    /// The function's name.
    pub(super) fn function(&self) -> &str {
        match self {
            Route::Invoke { function, .. } | Route::Serve { function, .. } => function,
        }
    }
}

fn decoded(name: &str) -> Result<Cow<'_, str>, Failure> {
    percent_decode_str(name).decode_utf8().map_err(|_| invalid("the path is not UTF-8"))
}

/// The version or alias that the query asks for.
fn qualifier(head: &Head) -> Result<Option<String>, Failure> {
    let Some(query) = head.uri.query() else { return Ok(None) };
    let mut named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "qualifier");
    let qualifier = named.next().map(|(_, value)| value.into_owned());
    match named.next() {
        None => Ok(qualifier),
        Some(_) => Err(invalid("the query has more than one `qualifier`")),
    }
}

/// A request that cannot be meant.
pub(super) fn invalid(detail: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
}
