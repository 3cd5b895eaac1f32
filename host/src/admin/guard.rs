//! Who may use the admin plane, and for what.
//!
//! Whoever sends an access key may do what its scope says; the admin token is a key for everything, and so is a certificate
//! that the authority for clients' certificates has signed. Without these, a plane on loopback is open to programs on the same
//! machine (`operator::origin` keeps web pages out).
//!
//! What a path needs is decided here for all of them ([`need`]), so that a new one is closed until it is listed. Changes are
//! noted in the audit log before they are made.

use std::sync::Arc;

use axum::RequestExt as _;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Method;
use http::request::Parts;

use super::Plane;
use super::audit::Detail;
use super::reject::{instance_not_found, invalid};
use crate::access::{Change, Right};
use crate::ids::InstanceId;
use crate::operator::{self, Operator};
use crate::web::problem::{Code, Failure};
use crate::web::service::Client;

/// What a path asks of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing, not even to be one.
    Nothing,
    /// To be one. Who may see only some functions gets an answer about those: the handler looks at that.
    Admission,
    /// This right over the function that the path names.
    Function(Right),
    /// This right over the function of the instance that the path names.
    Instance(Right),
    /// This right over everything.
    Everything(Right),
}

impl Need {
    /// Whether it takes the right to manage, without which nothing is changed.
    fn is_of_managers(self) -> bool {
        matches!(self, Need::Function(Right::Manage) | Need::Instance(Right::Manage) | Need::Everything(Right::Manage))
    }
}

/// What a request needs, by its method and the path that it matched, if there is one.
fn need(method: &Method, path: Option<&str>) -> Need {
    let right = if matches!(*method, Method::GET | Method::HEAD) { Right::Read } else { Right::Manage };
    match path {
        Some("/healthz" | "/readyz") => Need::Nothing,
        // Nothing is there, and the answer says so.
        None | Some("/openapi.json" | "/v1/host") => Need::Admission,
        Some("/v1/functions" | "/v1/audit" | "/v1/usage" | "/v1/usage/windows" | "/v1/usage/invocations") => {
            Need::Admission
        }
        // Whoever has the secret can send in the function's name.
        Some("/v1/functions/{name}/webhook-secret") => Need::Function(Right::Manage),
        Some("/v1/functions/{name}/invoke") => Need::Function(Right::Invoke),
        Some("/metrics") => Need::Everything(Right::Read),
        Some(path) if path.starts_with("/v1/functions/{name}") => Need::Function(right),
        Some(path) if path.starts_with("/v1/instances/{id}") => Need::Instance(right),
        Some(_) => Need::Everything(Right::Manage),
    }
}

/// Lets a request through, if whoever sends it may do what it asks for.
pub(super) async fn admit(State(plane): State<Arc<Plane>>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let need = need(request.method(), path.as_ref().map(MatchedPath::as_str));
    if need == Need::Nothing {
        return next.run(request).await;
    }
    let admitted = async {
        let operator = match request.extensions().get::<Operator>() {
            // The console asks on behalf of whom it has recognised.
            Some(operator) => operator.clone(),
            None => {
                let head = (request.method(), request.uri(), request.headers());
                plane.entrance.recognise(head, request.extensions().get::<Client>())?
            }
        };
        let Subject { function, detail } = check(&plane, &operator, need, &mut request).await?;
        let action = path
            .filter(|_| need.is_of_managers())
            .and_then(|path| plane.actions.name(request.method(), path.as_str()).map(str::to_owned));
        let address = request.extensions().get::<Client>().map(|client| client.address);
        let change = action.zip(address).map(|(action, address)| {
            let operator = operator.name();
            Change { operator, address, action, function, detail }
        });
        request.extensions_mut().insert(operator);
        Ok::<_, Failure>(change)
    };
    match admitted.await {
        Ok(None) => next.run(request).await,
        Ok(Some(change)) => noted(&plane, change, request, next).await.unwrap_or_else(Failure::into_response),
        Err(failure) => failure.into_response(),
    }
}

/// What a path is about.
#[derive(Default)]
struct Subject {
    function: Option<String>,
    /// The rest of it: an alias, a key.
    detail: String,
}

/// Checks what an operator may do, and says what it is about.
async fn check(plane: &Plane, operator: &Operator, need: Need, request: &mut Request) -> Result<Subject, Failure> {
    match need {
        Need::Nothing | Need::Admission => Ok(Subject::default()),
        Need::Function(right) => {
            let (name, detail) = named_in(request).await?;
            operator.check(right, &name)?;
            Ok(Subject { function: Some(shown(&name)), detail })
        }
        Need::Everything(right) => {
            operator.check_with_all(right)?;
            Ok(Subject { function: None, detail: shown(&named_in(request).await?.0) })
        }
        Need::Instance(right) => {
            let id: InstanceId = named_in(request).await?.0.parse()?;
            let found = plane.host.instance(id).filter(|found| operator.may(right, found.function.as_str()));
            // Another's instance is like one that is not there: that it is is not for everybody to know.
            let function = found.ok_or_else(|| instance_not_found(id))?.function.to_string();
            Ok(Subject { function: Some(function), detail: id.to_string() })
        }
    }
}

/// The first name in a path, and what is named behind it: `alias prod`.
async fn named_in(request: &mut Request) -> Result<(String, String), Failure> {
    let params = request.extract_parts::<RawPathParams>().await;
    let params = params.map_err(|_| invalid("the path cannot be read; it must be UTF-8"))?;
    let mut params = params.iter();
    let first = params.next().map_or("", |(_, value)| value).to_owned();
    let rest: Vec<String> = params.map(|(name, value)| format!("{name} {}", shown(value))).collect();
    Ok((first, rest.join(", ")))
}

/// Text of a stranger's, of a length that is fit to keep.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Makes a change, and notes it in the audit log.
async fn noted(plane: &Plane, change: Change, mut request: Request, next: Next) -> Result<Response, Failure> {
    let run = async move |entry| {
        request.extensions_mut().insert(entry);
        let mut response = next.run(request).await;
        let status = response.status().as_u16();
        let failed = response.extensions().get::<Failure>().map(|failure| failure.code.as_str().to_owned());
        let told = response.extensions_mut().remove::<Detail>().map(|Detail(text)| text).or(failed);
        (response, status, told.unwrap_or_default())
    };
    Ok(operator::noted(&plane.host, change, run).await?)
}

/// The guard has put it there.
impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Failure;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Operator, Failure> {
        let operator = head.extensions.get::<Operator>().cloned();
        operator.ok_or_else(|| Failure::new(Code::Internal, "nobody looked at who asks"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_nobody_listed_is_closed() {
        use Need::{Admission, Everything, Function, Instance};
        for (method, path, expected) in [
            (Method::GET, Some("/v1/functions/{name}/logs"), Function(Right::Read)),
            (Method::HEAD, Some("/v1/functions/{name}"), Function(Right::Read)),
            (Method::PUT, Some("/v1/functions/{name}/code"), Function(Right::Manage)),
            (Method::POST, Some("/v1/instances/{id}/stop"), Instance(Right::Manage)),
            (Method::POST, Some("/v1/functions/{name}/invoke"), Function(Right::Invoke)),
            (Method::GET, Some("/v1/keys"), Everything(Right::Manage)),
            (Method::GET, Some("/v1/anything/new"), Everything(Right::Manage)),
            (Method::GET, Some("/v1/functionsx"), Everything(Right::Manage)),
            (Method::GET, Some("/metrics"), Everything(Right::Read)),
            (Method::GET, Some("/healthz"), Need::Nothing),
            (Method::GET, None, Admission),
        ] {
            assert_eq!(need(&method, path), expected, "{method} {path:?}");
        }
    }
}
