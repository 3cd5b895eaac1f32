//! Requests of HTTP as they are kept until they are sent to their function.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};

use super::invocation::{FieldValue, HttpHead};
use crate::guest::Body;

/// A request's head, to be kept.
pub(super) fn of(method: &Method, uri: &Uri, fields: &HeaderMap) -> HttpHead {
    let value = |value: &HeaderValue| match value.to_str() {
        Ok(text) => FieldValue::Text(text.to_owned()),
        Err(_) => FieldValue::Bytes(value.as_bytes().to_vec()),
    };
    let fields = fields.iter().map(|(name, text)| (name.to_string(), value(text))).collect();
    HttpHead { method: method.to_string(), uri: uri.to_string(), fields }
}

/// The request again; none if it cannot be one.
pub(super) fn request(head: &HttpHead, body: Bytes) -> Option<Request<Body>> {
    let mut request = Request::new(Full::from(body).map_err(|never| match never {}).boxed_unsync());
    *request.method_mut() = head.method.parse().ok()?;
    *request.uri_mut() = head.uri.parse().ok()?;
    for (name, value) in &head.fields {
        let value = match value {
            FieldValue::Text(text) => HeaderValue::from_str(text).ok()?,
            FieldValue::Bytes(bytes) => HeaderValue::from_bytes(bytes).ok()?,
        };
        request.headers_mut().append(name.parse::<HeaderName>().ok()?, value);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_same_again() {
        let mut fields = HeaderMap::new();
        for (name, value) in [("x-many", &b"1"[..]), ("x-many", b"2"), ("x-odd", b"\xff\xfe")] {
            fields.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        }
        let uri: Uri = "http://localhost:8080/a%20b?x=1&y".parse().unwrap();
        let head = of(&Method::from_bytes(b"BREW").unwrap(), &uri, &fields);
        let head: HttpHead = serde_json::from_str(&serde_json::to_string(&head).unwrap()).unwrap();
        let again = request(&head, Bytes::new()).unwrap();
        assert_eq!((again.method().as_str(), again.uri(), again.headers()), ("BREW", &uri, &fields));
    }
}
