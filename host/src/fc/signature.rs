//! The two ways in which Function Compute's clients sign requests. Pure: what is signed is put together here, and compared with
//! what was sent; who has which secret, and what time it is, others know.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, Method, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::hmac;
use sha2::{Digest as _, Sha256};

use super::fault::Fault;

/// What a query has as it is (RFC 3986, section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const DATE: HeaderName = header::DATE;
const ACS_DATE: HeaderName = HeaderName::from_static("x-acs-date");
const ACS_NONCE: HeaderName = HeaderName::from_static("x-acs-signature-nonce");
const ACS_HASH: HeaderName = HeaderName::from_static("x-acs-content-sha256");
/// What makes a request of ACS3 another one when it changes.
const ACS_SIGNED: [&str; 3] = ["x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"];

/// How a request is signed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signature<'a> {
    /// The access key's identifier.
    pub(super) key: &'a str,
    /// When it was signed, as the client wrote it.
    pub(super) date: &'a str,
    kind: Kind<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// `FC id:signature`, of the API 2016-08-15.
    Fc { text: String, sent: &'a str },
    /// `ACS3-HMAC-SHA256`, of the other two.
    Acs3 { text: String, sent: &'a str, nonce: &'a str, hash: &'a str },
}

impl<'a> Signature<'a> {
    /// Reads the signature of a request; none if it has none of these.
    pub(super) fn read(method: &Method, uri: &Uri, fields: &'a HeaderMap) -> Result<Option<Signature<'a>>, Fault> {
        let Some(sent) = one(fields, &header::AUTHORIZATION)? else { return Ok(None) };
        let (scheme, rest) = sent.split_once(' ').unwrap_or((sent, ""));
        match scheme {
            "FC" => fc(method, uri, fields, rest.trim()).map(Some),
            "ACS3-HMAC-SHA256" => acs3(method, uri, fields, rest.trim()).map(Some),
            "acs" => Err(Fault::denied(
                "signatures with HMAC-SHA1 are not taken; configure the client for ACS3-HMAC-SHA256, which is its default",
            )),
            _ => Ok(None),
        }
    }

    /// Whether it was made with this secret.
    pub(super) fn is_of(&self, secret: &str) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let (text, sent) = match &self.kind {
            Kind::Fc { text, sent } => (text, STANDARD.decode(sent).ok()),
            Kind::Acs3 { text, sent, .. } => (text, hex::decode(sent).ok()),
        };
        sent.is_some_and(|sent| hmac::verify(&key, text.as_bytes(), &sent).is_ok())
    }

    /// What may be used only once, if there is such a thing.
    pub(super) fn nonce(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Fc { .. } => None,
            Kind::Acs3 { nonce, .. } => Some(nonce),
        }
    }

    /// Whether the body is the one that was signed.
    pub(super) fn covers(&self, body: &[u8]) -> bool {
        match self.kind {
            Kind::Fc { .. } => true,
            Kind::Acs3 { hash, .. } => hash.eq_ignore_ascii_case(&hex::encode(Sha256::digest(body))),
        }
    }
}

fn fc<'a>(method: &Method, uri: &Uri, fields: &'a HeaderMap, sent: &'a str) -> Result<Signature<'a>, Fault> {
    let (key, sent) = sent.split_once(':').ok_or_else(|| Fault::denied("`Authorization` must be `FC id:signature`"))?;
    let date = required(fields, &DATE)?;
    let md5 = one(fields, &HeaderName::from_static("content-md5"))?.unwrap_or_default();
    let content_type = one(fields, &header::CONTENT_TYPE)?.unwrap_or_default();
    let mut own: Vec<(&str, &str)> = Vec::new();
    for name in fields.keys().filter(|name| name.as_str().starts_with("x-fc-")) {
        own.push((name.as_str(), one(fields, name)?.unwrap_or_default()));
    }
    own.sort_unstable();
    let own: String = own.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let path = percent_decode_str(uri.path()).decode_utf8_lossy();
    let mut text = format!("{method}\n{md5}\n{content_type}\n{date}\n{own}{path}");
    if uri.path().starts_with("/2016-08-15/proxy/") {
        // Triggers sign their query as well.
        let mut pairs: Vec<String> = query(uri).map(|(name, value)| format!("{name}={value}")).collect();
        pairs.sort_unstable();
        text = format!("{text}\n{}", pairs.join("\n"));
    }
    Ok(Signature { key, date, kind: Kind::Fc { text, sent } })
}

fn acs3<'a>(method: &Method, uri: &Uri, fields: &'a HeaderMap, sent: &'a str) -> Result<Signature<'a>, Fault> {
    let mut parts = [""; 3];
    for part in sent.split(',') {
        let Some((name, value)) = part.trim().split_once('=') else { continue };
        match name {
            "Credential" => parts[0] = value,
            "SignedHeaders" => parts[1] = value,
            "Signature" => parts[2] = value,
            _ => {}
        }
    }
    let [key, signed, sent] = parts;
    if parts.contains(&"") {
        return Err(Fault::denied("`Authorization` must have Credential, SignedHeaders and Signature"));
    }
    let names: BTreeSet<&str> = signed.split(';').collect();
    if let Some(missing) = ACS_SIGNED.iter().find(|name| !names.contains(*name)) {
        return Err(Fault::denied(format!("the field {missing} must be signed")));
    }
    let (date, nonce, hash) =
        (required(fields, &ACS_DATE)?, required(fields, &ACS_NONCE)?, required(fields, &ACS_HASH)?);
    let mut lines = String::new();
    for name in signed.split(';') {
        let parsed = HeaderName::try_from(name).map_err(|_| Fault::denied("SignedHeaders names what is no field"))?;
        // In HTTP/2 the host stands in the address.
        let authority = || uri.authority().filter(|_| parsed == header::HOST).map(|authority| authority.as_str());
        let value = one(fields, &parsed)?.or_else(authority).unwrap_or_default();
        lines.push_str(&format!("{name}:{}\n", value.trim()));
    }
    let encoded = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let mut pairs: Vec<(String, String)> = query(uri).map(|(name, value)| (encoded(&name), encoded(&value))).collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let request = format!("{method}\n{}\n{}\n{lines}\n{signed}\n{hash}", uri.path(), pairs.join("&"));
    let text = format!("ACS3-HMAC-SHA256\n{}", hex::encode(Sha256::digest(request)));
    Ok(Signature { key, date, kind: Kind::Acs3 { text, sent, nonce, hash } })
}

/// The pairs of a query, decoded.
fn query(uri: &Uri) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// The value of a field that may be there once.
fn one<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
    let mut values = fields.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::denied(format!("the field {name} is there more than once")));
    }
    let value = value.to_str().map_err(|_| Fault::denied(format!("the field {name} is not ASCII")))?;
    Ok(Some(value))
}

fn required<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Fault> {
    one(fields, name)?.ok_or_else(|| {
        let message = format!("required HTTP header {name} was not specified");
        Fault::new(http::StatusCode::BAD_REQUEST, "MissingRequiredHeader", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "testsecretkey0002";

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn is_right(method: Method, uri: &str, pairs: &[(&'static str, &str)], secret: &str) -> bool {
        let fields = fields(pairs);
        let uri: Uri = uri.parse().unwrap();
        Signature::read(&method, &uri, &fields).unwrap().unwrap().is_of(secret)
    }

    /// Requests that published clients sent: section 4 of the reference.
    #[test]
    fn requests_of_clients_of_2016_are_right() {
        let create = [
            ("authorization", "FC LTAItestakid0001:6tL7vJd7FRqmT+ayU3A5dwmutuc/X1H9X2DTg5P7yFk="),
            ("content-md5", "YzRhMjExMTQ0ZDZiNmQ5MDhmYmQ4NWY0NmUwOTkzZmI="),
            ("content-type", "application/json"),
            ("date", "Sun, 22 Nov 2026 10:58:02 GMT"),
            ("x-fc-account-id", "1234567890123456"),
        ];
        let path = "/2016-08-15/services/svc-n/functions";
        assert!(is_right(Method::POST, path, &create, SECRET));
        assert!(is_right(Method::POST, &format!("{path}?limit=1"), &create, SECRET), "the query is not signed");
        assert!(!is_right(Method::POST, path, &create, "another"));
        assert!(!is_right(Method::PUT, path, &create, SECRET));
        assert!(!is_right(Method::POST, "/2016-08-15/services/svc-m/functions", &create, SECRET));
        let mut other = create;
        other[4].1 = "1234567890123457";
        assert!(!is_right(Method::POST, path, &other, SECRET));

        let invoke = [
            ("authorization", "FC LTAItestakid0001:yKh2c3voOPhpK99UgU1mc6vNa7+m839DRrxY6HQgjf0="),
            ("content-type", "application/json"),
            ("date", "Sun, 22 Nov 2026 10:58:03 GMT"),
            ("x-fc-log-type", "Tail"),
        ];
        assert!(is_right(Method::POST, "/2016-08-15/services/svc-p/functions/fn/invocations", &invoke, SECRET));
        let trigger = [
            ("authorization", "FC LTAItestakid0001:ArW9K2H6duKQsnfjydHT0WH8R0GxEbln8pVGTcY54/I="),
            ("content-type", "application/json"),
            ("date", "Sun, 22 Nov 2026 10:58:03 GMT"),
        ];
        assert!(is_right(Method::POST, "/2016-08-15/proxy/svc-p/fn/a%20b?q=1%202&r=3&r=4", &trigger, SECRET));
        assert!(!is_right(Method::POST, "/2016-08-15/proxy/svc-p/fn/a%20b?q=1%202&r=3", &trigger, SECRET));
    }

    #[test]
    fn requests_of_generated_clients_are_right() {
        let signed = "accept;host;user-agent;x-acs-action;x-acs-content-sha256;x-acs-credentials-provider;x-acs-date;\
                      x-acs-signature-nonce;x-acs-version";
        let signature = "895d78983f70d332ca1460910bb16db01bc7b6899944bf3be29f15b58d115860";
        let authorization =
            format!("ACS3-HMAC-SHA256 Credential=LTAItestakid0001,SignedHeaders={signed},Signature={signature}");
        let get = [
            ("authorization", authorization.as_str()),
            ("accept", "application/json"),
            ("host", "127.0.0.1:18931"),
            ("user-agent", "AlibabaCloud (Linux; x86_64) Python/3.11.7 Core/0.4.3 TeaDSL/2"),
            ("x-acs-action", "GetFunction"),
            ("x-acs-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("x-acs-credentials-provider", "static_ak"),
            ("x-acs-date", "2026-11-22T10:58:53Z"),
            ("x-acs-signature-nonce", "862057ef592690e3d81e8be358b634f4"),
            ("x-acs-version", "2023-03-30"),
        ];
        assert!(is_right(Method::GET, "/2023-03-30/functions/f3?qualifier=LATEST", &get, SECRET));
        assert!(!is_right(Method::GET, "/2023-03-30/functions/f3?qualifier=1", &get, SECRET));
        assert!(!is_right(Method::GET, "/2023-03-30/functions/f3?qualifier=LATEST", &get, "another"));

        let signed = "content-type;host;x-acs-action;x-acs-content-sha256;x-acs-credentials-provider;x-acs-date;\
                      x-acs-signature-nonce;x-acs-version";
        let signature = "d21121d84fcb46c04aa6714c0f745dd3c73b366194fa287af7673b9362bf2ded";
        let authorization =
            format!("ACS3-HMAC-SHA256 Credential=LTAItestakid0001,SignedHeaders={signed},Signature={signature}");
        let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let invoke = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/octet-stream"),
            ("host", "127.0.0.1:18931"),
            ("x-acs-action", "InvokeFunction"),
            ("x-acs-content-sha256", hash),
            ("x-acs-credentials-provider", "static_ak"),
            ("x-acs-date", "2026-11-22T10:59:41Z"),
            ("x-acs-signature-nonce", "b9b9150a5f12b77a82eca2f71c53a7a1f3a4b2d783154daaf79fd5e4be4cae83"),
            ("x-acs-version", "2023-03-30"),
        ];
        assert!(is_right(Method::POST, "/2023-03-30/functions/f3n/invocations", &invoke, SECRET));
        let fields = fields(&invoke);
        let uri: Uri = "/2023-03-30/functions/f3n/invocations".parse().unwrap();
        let signature = Signature::read(&Method::POST, &uri, &fields).unwrap().unwrap();
        assert!(signature.covers(b"hello") && !signature.covers(b"hello!"));
        assert_eq!(signature.nonce().map(str::len), Some(64));
    }

    #[test]
    fn what_is_no_signature_or_half_of_one_is_told_apart() {
        let read = |pairs: &[(&'static str, &str)]| {
            let fields = fields(pairs);
            let uri = Uri::from_static("/2023-03-30/functions");
            Signature::read(&Method::GET, &uri, &fields).map(|found| found.is_some()).map_err(|fault| fault.code)
        };
        assert_eq!(read(&[]), Ok(false));
        assert_eq!(read(&[("authorization", "Bearer x")]), Ok(false));
        assert_eq!(read(&[("authorization", "FC x")]), Err("AccessDenied"));
        assert_eq!(read(&[("authorization", "FC x:y")]), Err("MissingRequiredHeader"));
        assert_eq!(read(&[("authorization", "acs x:y")]), Err("AccessDenied"));
        let half = "ACS3-HMAC-SHA256 Credential=x,SignedHeaders=host,Signature=00";
        assert_eq!(read(&[("authorization", half)]), Err("AccessDenied"), "neither date nor nonce is signed");
        assert_eq!(read(&[("authorization", "ACS3-HMAC-SHA256 Credential=x")]), Err("AccessDenied"));
    }
}
