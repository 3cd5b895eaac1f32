//! Who may use the admin plane.
//!
//! With a token, whoever sends it. Without one the plane listens on loopback only, and two more checks keep web pages
//! out that run in a browser on the same machine: the `Host` must be a loopback name, so that no foreign name can be
//! pointed here, and a request that a page of another origin sent is refused.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use super::Plane;
use crate::web::problem::{Code, Failure};

pub(super) async fn admit(State(plane): State<Arc<Plane>>, request: Request, next: Next) -> Response {
    let open = matches!(request.uri().path(), "/healthz" | "/readyz");
    let admitted = match &plane.config.token {
        _ if open => Ok(()),
        Some(token) => check_token(request.headers(), token),
        None => check_origin(request.headers()),
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn check_token(fields: &HeaderMap, token: &str) -> Result<(), Failure> {
    let sent = fields.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
    // Digests are compared, so that the time it takes tells nothing about the token.
    if Sha256::digest(sent) == Sha256::digest(token) {
        return Ok(());
    }
    let detail = "send the host's admin token as `Authorization: Bearer TOKEN`; the command line takes it from \
                  `--admin-token` or `DORMOUSE_ADMIN_TOKEN`";
    Err(Failure::new(Code::Unauthorized, detail))
}

fn check_origin(fields: &HeaderMap) -> Result<(), Failure> {
    let forbidden = |detail: &str| Err(Failure::new(Code::Forbidden, detail));
    let host = fields.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_loopback(host) {
        return forbidden("without an admin token this plane answers to loopback names only");
    }
    match fields.get(header::ORIGIN).and_then(|value| value.to_str().ok()) {
        Some(origin) if origin.strip_prefix("http://") != Some(host) => {
            forbidden("pages of another origin may not use this plane")
        }
        Some(_) | None => Ok(()),
    }
}

fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn pages_of_other_origins_and_foreign_names_are_kept_out() {
        let allowed = |pairs: &[(header::HeaderName, &str)]| check_origin(&fields(pairs)).is_ok();
        assert!(allowed(&[(header::HOST, "127.0.0.1:8081")]));
        assert!(allowed(&[(header::HOST, "localhost:8081"), (header::ORIGIN, "http://localhost:8081")]));
        assert!(allowed(&[(header::HOST, "[::1]:8081")]));
        assert!(!allowed(&[]));
        assert!(!allowed(&[(header::HOST, "evil.example:8081")]));
        assert!(!allowed(&[(header::HOST, "127.0.0.1:8081"), (header::ORIGIN, "http://evil.example")]));
    }

    #[test]
    fn only_the_token_itself_is_taken() {
        let taken = |value: &str| check_token(&fields(&[(header::AUTHORIZATION, value)]), "secret").is_ok();
        assert!(taken("Bearer secret"));
        assert!(!taken("Bearer secre"));
        assert!(!taken("secret"));
        assert!(check_token(&HeaderMap::new(), "secret").is_err());
    }
}
