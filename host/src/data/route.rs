//! Addresses on the data plane.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

use crate::catalog::Address;
use crate::web::problem::{Code, Failure};

const INVOKE: &str = "/invoke/";
const SERVE: &str = "/fn/";

/// Whether a path is one of those that every function has.
pub(super) fn is_reserved(path: &str) -> bool {
    path.starts_with(INVOKE) || path.starts_with(SERVE)
}

/// Where a request goes.
pub(super) struct Route<'a> {
    pub(super) way: Way,
    /// The function.
    pub(super) function: Cow<'a, str>,
    /// The version or alias that the address asks for.
    pub(super) qualifier: Option<Cow<'a, str>>,
    /// What the function sees as its path; it begins with `/`.
    pub(super) path: &'a str,
    /// The address of the function's own that was asked for; none: the address that every function has.
    pub(super) own: Option<Arc<Address>>,
}

/// The two ways to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `POST /invoke/{function}`: the body is an event.
    Invoke,
    /// Any method, `/fn/{function}/{path...}`: the request is the function's.
    Serve,
}

impl Route<'_> {
    /// A request for an address of a function's own.
    pub(super) fn to<'a>(own: Arc<Address>, method: &Method, uri: &'a Uri) -> Result<Route<'a>, Failure> {
        let methods = &own.trigger.methods;
        if !methods.is_empty() && !methods.contains(method) {
            let named: Vec<&str> = methods.iter().map(Method::as_str).collect();
            let detail = format!("this address takes {} only", named.join(", "));
            return Err(Failure::new(Code::MethodNotAllowed, detail));
        }
        let (function, qualifier) = (own.function.to_string().into(), own.qualifier.clone().map(Cow::Owned));
        let (path, strips) = (uri.path(), own.trigger.strips);
        // The slash at the end of the trigger's path is the function's first.
        let path = if strips { &path[own.trigger.path.len() - 1..] } else { path };
        Ok(Route { way: Way::Serve, function, qualifier, path, own: Some(own) })
    }

    /// Reads a request's address.
    pub(super) fn of<'a>(method: &Method, uri: &'a Uri) -> Result<Route<'a>, Failure> {
        let path = uri.path();
        if let Some(name) = path.strip_prefix(INVOKE).filter(|name| !name.is_empty() && !name.contains('/')) {
            if *method != Method::POST {
                let detail = "functions are invoked with POST; the body is the event";
                return Err(Failure::new(Code::MethodNotAllowed, detail));
            }
            let (function, qualifier) = (decoded(name)?, asked_for(uri)?);
            return Ok(Route { way: Way::Invoke, function, qualifier, path: "/", own: None });
        }
        if let Some(rest) = path.strip_prefix(SERVE).filter(|rest| !rest.is_empty() && !rest.starts_with('/')) {
            let (name, path) = rest.find('/').map_or((rest, "/"), |end| rest.split_at(end));
            // Here too, because a function's links stay under its address, and lose a query.
            let name = decoded(name)?;
            let parted = name.split_once(':').map(|(function, qualifier)| (function.to_owned(), qualifier.to_owned()));
            let (function, qualifier) = match parted {
                Some((function, qualifier)) => (Cow::Owned(function), Some(Cow::Owned(qualifier))),
                None => (name, None),
            };
            let qualifier = match (qualifier, asked_for(uri)?) {
                (Some(_), Some(_)) => {
                    return Err(invalid("the path and the query both name a qualifier; leave one out"));
                }
                (one, other) => one.or(other),
            };
            return Ok(Route { way: Way::Serve, function, qualifier, path, own: None });
        }
        let detail = "there is nothing here; functions are at POST /invoke/{function} and /fn/{function}/{path}";
        Err(Failure::new(Code::NotFound, detail))
    }
}

fn decoded(name: &str) -> Result<Cow<'_, str>, Failure> {
    percent_decode_str(name).decode_utf8().map_err(|_| invalid("the path is not UTF-8"))
}

/// The version or alias that the query asks for.
fn asked_for(uri: &Uri) -> Result<Option<Cow<'_, str>>, Failure> {
    let Some(query) = uri.query() else { return Ok(None) };
    let mut named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "qualifier");
    let qualifier = named.next().map(|(_, value)| value);
    match named.next() {
        None => Ok(qualifier),
        Some(_) => Err(invalid("the query has more than one `qualifier`")),
    }
}

/// A request that cannot be meant.
pub(super) fn invalid(detail: &str) -> Failure {
    Failure::new(Code::InvalidRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Result<(String, Option<String>, String), Failure> {
        let uri = uri.parse().unwrap();
        let route = Route::of(&Method::POST, &uri)?;
        Ok((route.function.into_owned(), route.qualifier.map(Cow::into_owned), route.path.to_owned()))
    }

    #[test]
    fn qualifiers_stand_in_the_query_or_behind_the_function() {
        for (uri, function, qualifier, path) in [
            ("/invoke/f", "f", None, "/"),
            ("/invoke/f?a=b&qualifier=prod", "f", Some("prod"), "/"),
            ("/fn/f", "f", None, "/"),
            ("/fn/f/a/b?qualifier=2&x=y", "f", Some("2"), "/a/b"),
            ("/fn/f:prod/a:b", "f", Some("prod"), "/a:b"),
            ("/fn/f%3Aprod", "f", Some("prod"), "/"),
            ("/fn/f:/x", "f", Some(""), "/x"),
        ] {
            let expected = (function.to_owned(), qualifier.map(str::to_owned), path.to_owned());
            assert_eq!(read(uri).unwrap(), expected, "{uri}");
        }
        for uri in ["/fn/f:prod?qualifier=2", "/invoke/f?qualifier=1&qualifier=2", "/fn/%FF"] {
            assert_eq!(read(uri).err().unwrap().code, Code::InvalidRequest, "{uri}");
        }
        for uri in ["/", "/fn/", "/fn//x", "/invoke/", "/invoke/f/x"] {
            assert_eq!(read(uri).err().unwrap().code, Code::NotFound, "{uri}");
        }
    }
}
