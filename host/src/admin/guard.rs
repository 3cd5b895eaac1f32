//! Who may use the admin plane, and for what.
//!
//! Whoever sends an access key may do what its scope says; the admin token is a key for everything, and so is a certificate
//! that the authority for clients' certificates has signed. Without these, a plane on loopback is open to programs on the same
//! machine, and two more checks keep web pages out that run in a browser there: the `Host` must be a loopback name, so that no
//! foreign name can be pointed here, and a request that a page of another origin sent is refused. A field that is there twice,
//! or cannot be read, is refused: whoever else reads it may take the other one.
//!
//! What a path needs is decided here for all of them ([`need`]), so that a new one is closed until it is listed. Changes are
//! noted in the audit log before they are made.

use std::sync::Arc;

use axum::RequestExt as _;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use super::Plane;
use super::audit::Detail;
use super::operator::Operator;
use super::reject::{instance_not_found, invalid};
use crate::access::{Change, Right};
use crate::config::is_loopback_name;
use crate::ids::InstanceId;
use crate::web::headers;
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
        let operator = recognise(&plane, &request)?;
        let Subject { function, detail } = check(&plane, &operator, need, &mut request).await?;
        let action = path.and_then(|path| plane.actions.name(request.method(), path.as_str()).map(str::to_owned));
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

/// Who sends a request.
fn recognise(plane: &Plane, request: &Request) -> Result<Operator, Failure> {
    let client = request.extensions().get::<Client>();
    let shown = only(request.headers(), &header::AUTHORIZATION)?.is_some();
    if let Some(token) = headers::bearer(request.headers())
        && let Some(key) = plane.host.access().recognise(token)?
    {
        return Ok(Operator::Key(key));
    }
    if let Some(fingerprint) = client.and_then(|client| client.certificate) {
        return Ok(Operator::Certificate(fingerprint));
    }
    if plane.config.is_open {
        return check_origin(request.uri(), request.headers()).map(|()| Operator::Local);
    }
    let certificate = if plane.config.client_ca.is_some() {
        "; or show a certificate that the host's `admin-client-ca` has signed, with `--client-cert`"
    } else {
        ""
    };
    let wrong = if shown { "what was sent is no key of this host: " } else { "" };
    let detail = format!(
        "{wrong}send an access key or the admin token as `Authorization: Bearer KEY`; the command line takes it from `--key`, \
         DORMOUSE_KEY or `dormouse login`{certificate}"
    );
    Err(Failure::new(Code::Unauthorized, detail))
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

/// Makes a change between its two notes in the audit log.
async fn noted(plane: &Plane, change: Change, mut request: Request, next: Next) -> Result<Response, Failure> {
    let about = change.detail.clone();
    let entry = plane.host.change_access(move |access| access.note_change(&change)).await??;
    request.extensions_mut().insert(entry);
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let failed = response.extensions().get::<Failure>().map(|failure| failure.code.as_str().to_owned());
    let told = response.extensions_mut().remove::<Detail>().map(|Detail(text)| text).or(failed).unwrap_or_default();
    let detail = [about, told].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
    let ended = plane.host.change_access(move |access| access.note_end(entry, status, &detail)).await.flatten();
    if let Err(error) = ended {
        tracing::error!("the end of a change is missing in the audit log: {error:#}");
    }
    Ok(response)
}

fn check_origin(uri: &Uri, fields: &HeaderMap) -> Result<(), Failure> {
    let forbidden = |detail: &str| Err(Failure::new(Code::Forbidden, detail));
    // A target with an authority (`GET http://name/ HTTP/1.1`) must name the same host; in HTTP/2 it is all there is.
    let target = uri.authority().map(Authority::as_str);
    let host = only(fields, &header::HOST)?.or(target).unwrap_or_default();
    let target = target.unwrap_or(host);
    if !is_loopback(host) || !target.eq_ignore_ascii_case(host) {
        return forbidden("without a key this plane answers to loopback names only");
    }
    match only(fields, &header::ORIGIN)? {
        Some(origin) if origin.strip_prefix("http://") != Some(host) => {
            forbidden("pages of another origin may not use this plane")
        }
        Some(_) | None => Ok(()),
    }
}

/// The value of a field that may be there once.
fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
    let mut values = fields.get_all(name).iter();
    let refused = |what: &str| Failure::new(Code::Forbidden, format!("the field `{name}` {what}"));
    let value = values.next().map(HeaderValue::to_str).transpose();
    let value = value.map_err(|_| refused("holds characters that are not ASCII"))?;
    if values.next().is_some() {
        return Err(refused("is there more than once"));
    }
    Ok(value)
}

fn is_loopback(authority: &str) -> bool {
    authority.parse::<Authority>().is_ok_and(|authority| is_loopback_name(authority.host()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_bytes(value.as_bytes()).unwrap();
        let mut fields = HeaderMap::new();
        for (name, text) in pairs {
            fields.append(name, value(text));
        }
        fields
    }

    #[test]
    fn pages_of_other_origins_and_foreign_names_are_kept_out() {
        let allowed =
            |pairs: &[(HeaderName, &str)]| check_origin(&Uri::from_static("/v1/host"), &fields(pairs)).is_ok();
        assert!(allowed(&[(header::HOST, "127.0.0.1:8081")]));
        assert!(allowed(&[(header::HOST, "localhost:8081"), (header::ORIGIN, "http://localhost:8081")]));
        assert!(allowed(&[(header::HOST, "[::1]:8081")]));
        assert!(!allowed(&[]));
        assert!(!allowed(&[(header::HOST, "evil.example:8081")]));
        assert!(!allowed(&[(header::HOST, "127.0.0.1:8081"), (header::ORIGIN, "http://evil.example")]));
        assert!(!allowed(&[(header::HOST, "127.0.0.1:8081"), (header::ORIGIN, "http://\u{e9}vil.example")]));
        assert!(!allowed(&[(header::HOST, "127.0.0.1:8081"), (header::HOST, "evil.example")]));
    }

    #[test]
    fn of_two_origins_neither_counts() {
        let own = [(header::HOST, "localhost:8081"), (header::ORIGIN, "http://localhost:8081")];
        let mut fields = fields(&own);
        let uri = Uri::from_static("/v1/host");
        assert!(check_origin(&uri, &fields).is_ok());
        fields.append(header::ORIGIN, HeaderValue::from_static("http://evil.example"));
        assert!(check_origin(&uri, &fields).is_err());
    }

    #[test]
    fn a_target_of_another_name_is_kept_out() {
        let allowed = |uri: &'static str| {
            check_origin(&Uri::from_static(uri), &fields(&[(header::HOST, "localhost:8081")])).is_ok()
        };
        assert!(allowed("http://localhost:8081/v1/host"));
        assert!(!allowed("http://evil.example/v1/host"));
    }

    #[test]
    fn a_path_that_nobody_listed_is_closed() {
        use Need::{Admission, Everything, Function, Instance};
        for (method, path, expected) in [
            (Method::GET, Some("/v1/functions/{name}/logs"), Function(Right::Read)),
            (Method::HEAD, Some("/v1/functions/{name}"), Function(Right::Read)),
            (Method::PUT, Some("/v1/functions/{name}/code"), Function(Right::Manage)),
            (Method::POST, Some("/v1/instances/{id}/stop"), Instance(Right::Manage)),
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

    #[test]
    fn of_two_keys_neither_counts() {
        let twice = fields(&[(header::AUTHORIZATION, "Bearer secret"), (header::AUTHORIZATION, "Bearer other")]);
        assert!(only(&twice, &header::AUTHORIZATION).is_err());
    }
}
