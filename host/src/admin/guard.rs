//! Who may use the admin plane.
//!
//! With a token, whoever sends it; with an authority for clients' certificates, whoever shows one. Without either, the plane
//! listens on loopback only, and two more checks keep web pages out that run in a browser on the same machine: the `Host` must be a loopback name, so that no foreign name can be
//! pointed here, and a request that a page of another origin sent is refused. A field that is there twice, or cannot be
//! read, is refused: whoever else reads it may take the other one.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use sha2::{Digest as _, Sha256};

use super::Plane;
use crate::web::problem::{Code, Failure};
use crate::web::service::Client;

pub(super) async fn admit(State(plane): State<Arc<Plane>>, request: Request, next: Next) -> Response {
    let open = matches!(request.uri().path(), "/healthz" | "/readyz");
    let has_certificate = request.extensions().get::<Client>().is_some_and(|client| client.has_certificate);
    let admitted = match (&plane.config.token, &plane.config.client_ca) {
        _ if open || has_certificate => Ok(()),
        (Some(token), _) => check_token(request.headers(), token),
        (None, Some(_)) => Err(Failure::new(
            Code::Unauthorized,
            "show a certificate that the host's `admin-client-ca` has signed; the command line has `--client-cert`",
        )),
        (None, None) => check_origin(request.uri(), request.headers()),
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn check_token(fields: &HeaderMap, token: &str) -> Result<(), Failure> {
    let sent = only(fields, &header::AUTHORIZATION)?.unwrap_or_default();
    // The scheme's name may be written in any case (RFC 9110, section 11.1).
    let sent = sent.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let sent = sent.map_or("", |(_, token)| token.trim_start_matches(' '));
    // Digests are compared, so that the time it takes tells nothing about the token.
    if Sha256::digest(sent) == Sha256::digest(token) {
        return Ok(());
    }
    let detail = "send the host's admin token as `Authorization: Bearer TOKEN`; the command line takes it from \
                  `--admin-token` or `DORMOUSE_ADMIN_TOKEN`";
    Err(Failure::new(Code::Unauthorized, detail))
}

fn check_origin(uri: &Uri, fields: &HeaderMap) -> Result<(), Failure> {
    let forbidden = |detail: &str| Err(Failure::new(Code::Forbidden, detail));
    // A target with an authority (`GET http://name/ HTTP/1.1`) must name the same host; in HTTP/2 it is all there is.
    let target = uri.authority().map(Authority::as_str);
    let host = only(fields, &header::HOST)?.or(target).unwrap_or_default();
    let target = target.unwrap_or(host);
    if !is_loopback(host) || !target.eq_ignore_ascii_case(host) {
        return forbidden("without an admin token this plane answers to loopback names only");
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
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
    fn only_the_token_itself_is_taken() {
        let taken = |value: &str| check_token(&fields(&[(header::AUTHORIZATION, value)]), "secret").is_ok();
        assert!(taken("Bearer secret") && taken("bearer secret") && taken("BEARER  secret"));
        assert!(!taken("Bearer secre"));
        assert!(!taken("secret") && !taken("Basic secret") && !taken("Bearersecret"));
        let twice = fields(&[(header::AUTHORIZATION, "Bearer secret"), (header::AUTHORIZATION, "Bearer other")]);
        assert!(check_token(&twice, "secret").is_err());
        assert!(check_token(&HeaderMap::new(), "secret").is_err());
    }
}
