//! Signing in and out.

use axum::body::Body;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use maud::{Markup, html};

use super::{Console, html as answer, page};
use crate::operator::origin::only;
use crate::operator::session::set_cookie;
use crate::web::linger::Lingering;
use crate::web::problem::{Code, Failure};

/// A form with a key and an address.
const FORM_BYTES_MAX: usize = 8 << 10;

/// The form; `wrong` says what was wrong with the last try.
pub(super) fn page(wrong: &str) -> Markup {
    page::plain(
        "Sign in",
        html! {
            form.card method="post" action="/console/sign-in" {
                label for="key" { "Access key or admin token" }
                input id="key" name="key" type="password" autocomplete="current-password" required autofocus;
                @if !wrong.is_empty() { p.wrong role="alert" { (wrong) } }
                button { "Sign in" }
                p.hint { "The host's operator makes a key with " code { "dormouse keys create --functions '*' --allow manage" } "." }
            }
        },
    )
}

/// To the form, for whoever has not signed in.
pub(super) fn redirect() -> http::Response<Body> {
    to("/console/sign-in")
}

pub(super) async fn sign_in(
    console: &Console,
    (uri, fields): (&Uri, &HeaderMap),
    body: Lingering,
) -> http::Response<Body> {
    let signed = async {
        check_page(uri, fields)?;
        let body = Limited::new(body, FORM_BYTES_MAX).collect().await;
        let body = body.map_err(|_| Failure::new(Code::InvalidRequest, "the form cannot be read"))?.to_bytes();
        let key = form_urlencoded::parse(&body).find(|(name, _)| name == "key").map(|(_, key)| key.trim().to_owned());
        console.entrance.sign_in(&key.unwrap_or_default())
    };
    match signed.await {
        Ok(cookie) => {
            let mut response = to("/");
            response.headers_mut().insert(header::SET_COOKIE, set_cookie(Some(&cookie), console.has_tls));
            response
        }
        Err(failure) => answer(failure.code.status(), page(&failure.detail)),
    }
}

pub(super) fn sign_out(console: &Console, uri: &Uri, fields: &HeaderMap) -> http::Response<Body> {
    if let Err(failure) = check_page(uri, fields) {
        return answer(failure.code.status(), page::failed(&failure));
    }
    console.entrance.sign_out(fields);
    let mut response = to("/console/sign-in");
    response.headers_mut().insert(header::SET_COOKIE, set_cookie(None, console.has_tls));
    response
}

/// Refuses a form that another site's page sent.
fn check_page(uri: &Uri, fields: &HeaderMap) -> Result<(), Failure> {
    // In HTTP/2 the host stands in the address.
    let host = only(fields, &header::HOST)?.or(uri.authority().map(Authority::as_str)).unwrap_or_default();
    // The scheme may be another one behind a proxy that speaks TLS. A page without an origin of its own says `null`.
    let is_own = |origin: &str| origin.split_once("://").is_some_and(|(_, own)| own.eq_ignore_ascii_case(host));
    match only(fields, &header::ORIGIN)? {
        Some(origin) if !is_own(origin) => {
            Err(Failure::new(Code::Forbidden, "pages of another origin may not do this"))
        }
        Some(_) | None => Ok(()),
    }
}

fn to(path: &'static str) -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(path));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_host_sign_in_and_out() {
        let is_own = |uri: &str, fields: &[(header::HeaderName, &str)]| {
            let fields =
                fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect();
            check_page(&uri.parse().unwrap(), &fields).is_ok()
        };
        let (host, origin) = (header::HOST, header::ORIGIN);
        let path = "/console/sign-in";
        assert!(is_own(path, &[(host.clone(), "a.example:81")]), "a program says no origin");
        assert!(is_own(path, &[(host.clone(), "a.example:81"), (origin.clone(), "http://a.example:81")]));
        // As in HTTP/2.
        assert!(is_own("https://a.example/console/sign-in", &[(origin.clone(), "https://a.example")]));
        for other in ["null", "http://b.example:81", "http://a.example", ""] {
            assert!(!is_own(path, &[(host.clone(), "a.example:81"), (origin.clone(), other)]), "{other}");
        }
    }
}
