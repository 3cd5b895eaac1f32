//! Web pages of other origins, for functions under an address of their own (the Fetch standard, section 3.3).

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::Full;

use super::reply::{ReplyBody, Response};
use crate::catalog::Cors;

/// The answer to a browser that asks before it sends a request; none if it does not ask.
pub(super) fn preflight(cors: &Cors, method: &Method, asked: &HeaderMap) -> Option<Response> {
    let asks = *method == Method::OPTIONS && asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let origin = Some(asked.get(header::ORIGIN).filter(|_| asks)?);
    let mut response = Response::new(ReplyBody::Whole(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    if allow(cors, origin, fields) {
        fields.insert(header::ACCESS_CONTROL_ALLOW_METHODS, cors.methods.clone());
        if !cors.headers.is_empty() {
            fields.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.clone());
        }
        fields.insert(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
    }
    Some(response)
}

/// Lets a page of this origin read a reply, if it may; none: no page asked.
pub(super) fn let_read(cors: &Cors, origin: Option<&HeaderValue>, fields: &mut HeaderMap) {
    if allow(cors, origin, fields) && !cors.expose_headers.is_empty() {
        fields.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, cors.expose_headers.clone());
    }
}

/// Names the origin in the reply, if it is one of those that may call.
fn allow(cors: &Cors, origin: Option<&HeaderValue>, fields: &mut HeaderMap) -> bool {
    // What the function says itself does not count where the host is told.
    for own in [header::ACCESS_CONTROL_ALLOW_ORIGIN, header::ACCESS_CONTROL_ALLOW_CREDENTIALS] {
        fields.remove(own);
    }
    let Some(origins) = &cors.origins else {
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        return true;
    };
    // The reply is another one for another origin, and caches must know.
    fields.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin.filter(|origin| origins.contains(origin)) else { return false };
    fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if cors.credentials {
        fields.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    true
}
