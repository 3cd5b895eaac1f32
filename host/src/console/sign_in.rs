//! Signing in and out.

use axum::body::Body;
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
pub(super) fn redirect(_: &Uri) -> http::Response<Body> {
    to("/console/sign-in")
}

pub(super) async fn sign_in(console: &Console, fields: &HeaderMap, body: Lingering) -> http::Response<Body> {
    let signed = async {
        check_page(fields)?;
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

pub(super) fn sign_out(console: &Console, fields: &HeaderMap) -> http::Response<Body> {
    if let Err(failure) = check_page(fields) {
        return answer(failure.code.status(), page::failed(&failure));
    }
    console.entrance.sign_out(fields);
    let mut response = to("/console/sign-in");
    response.headers_mut().insert(header::SET_COOKIE, set_cookie(None, console.has_tls));
    response
}

/// Refuses a form that another site's page sent.
fn check_page(fields: &HeaderMap) -> Result<(), Failure> {
    let host = only(fields, &header::HOST)?.unwrap_or_default();
    let origin = only(fields, &header::ORIGIN)?.and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    if origin.is_some_and(|origin| origin != host) {
        return Err(Failure::new(Code::Forbidden, "pages of another origin may not do this"));
    }
    Ok(())
}

fn to(path: &'static str) -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(path));
    response
}
