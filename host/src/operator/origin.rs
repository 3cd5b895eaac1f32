//! Keeps web pages out of a plane that asks programs on the same machine for no key.
//!
//! A page in a browser there could send requests to it. So the `Host` must be a loopback name, that no foreign name can be
//! pointed here, and a request that a page of another origin sent is refused. A field that is there twice, or cannot be read, is
//! refused: whoever else reads it may take the other one.

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::config::is_loopback_name;
use crate::web::problem::{Code, Failure};

/// Refuses what a web page may have sent.
pub fn check_origin(uri: &Uri, fields: &HeaderMap) -> Result<(), Failure> {
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
pub fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
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
    fn of_two_keys_neither_counts() {
        let twice = fields(&[(header::AUTHORIZATION, "Bearer secret"), (header::AUTHORIZATION, "Bearer other")]);
        assert!(only(&twice, &header::AUTHORIZATION).is_err());
    }
}
