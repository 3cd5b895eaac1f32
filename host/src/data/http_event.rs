//! HTTP requests as events, and replies to them as HTTP responses: for handlers of events with the setting `httpEvent`.
//!
//! Both have the form of Function Compute 3.0's HTTP triggers. `rawQueryString` is an addition: the query before it was decoded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::ids::RequestId;
use crate::web::problem::{Code, Failure};

/// A request without its body.
pub(super) struct Head<'a> {
    pub(super) request: &'a RequestId,
    pub(super) method: &'a Method,
    /// As the function sees it.
    pub(super) uri: &'a Uri,
    pub(super) fields: &'a HeaderMap,
    /// Who sent it.
    pub(super) address: IpAddr,
}

/// The request as an event.
pub(super) fn event(head: &Head<'_>, body: &[u8]) -> Vec<u8> {
    let now = clock::date();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (body, is_base64) = match std::str::from_utf8(body) {
        Ok(text) if text.chars().all(is_plain) => (text.to_owned(), false),
        _ => (STANDARD.encode(body), true),
    };
    let query = head.uri.query().unwrap_or_default();
    let host = head.uri.authority().map(|authority| authority.host()).unwrap_or_default();
    let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
    let agent = head.fields.get(header::USER_AGENT).map(text).unwrap_or_default();
    let event = json!({
        "version": "v1",
        "rawPath": path,
        "rawQueryString": query,
        "headers": fields(head.fields),
        "queryParameters": parameters(query),
        "body": body,
        "isBase64Encoded": is_base64,
        "requestContext": {
            "accountId": "0",
            "domainName": host,
            "domainPrefix": host.split('.').next().unwrap_or_default(),
            "requestId": head.request.as_str(),
            "time": humantime::format_rfc3339_seconds(now).to_string(),
            "timeEpoch": since.to_string(),
            "http": {
                "method": head.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": head.address.to_string(),
                "userAgent": agent,
            },
        },
    });
    event.to_string().into_bytes()
}

/// Whether a character takes no more than two bytes more in JSON.
fn is_plain(letter: char) -> bool {
    !letter.is_control() || "\t\n\r".contains(letter)
}

/// Fields of the same name are one, with commas between; cookies have semicolons (RFC 6265, section 5.4).
fn fields(fields: &HeaderMap) -> Map<String, Value> {
    let joined = |name: &HeaderName| {
        let values: Vec<String> = fields.get_all(name).iter().map(text).collect();
        values.join(if *name == header::COOKIE { "; " } else { "," })
    };
    fields.keys().map(|name| (name.to_string(), joined(name).into())).collect()
}

/// A value in which bytes that are not UTF-8 are taken for Latin-1, as older software means them.
fn text(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|byte| char::from(*byte)).collect(), str::to_owned)
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::<String, String>::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let known = parameters.entry(name.into_owned());
        known.and_modify(|known| *known = format!("{known},{value}")).or_insert_with(|| value.to_string());
    }
    parameters
}

/// The response that a reply stands for. One without `statusCode` is the body of a response with 200.
pub(super) fn response(reply: Vec<u8>) -> Result<http::Response<Bytes>, Failure> {
    let written =
        serde_json::from_slice::<Map<String, Value>>(&reply).ok().filter(|map| map.contains_key("statusCode"));
    let Some(written) = written else {
        let mut response = http::Response::new(Bytes::from(reply));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    };
    let mut response = http::Response::new(body(&written)?);
    *response.status_mut() = status(&written["statusCode"])?;
    let own = response.headers_mut();
    let headers = match written.get("headers") {
        None | Some(Value::Null) => None,
        Some(Value::Object(headers)) => Some(headers),
        Some(_) => return Err(invalid("`headers` must be an object")),
    };
    for (name, value) in headers.into_iter().flatten() {
        let wrong = || invalid(&format!("`headers` holds {name:?}, whose name or value no field may have"));
        let field: HeaderName = name.parse().map_err(|_| wrong())?;
        if is_the_hosts(&field) {
            continue;
        }
        for value in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
            let value = match value {
                Value::String(text) => HeaderValue::from_str(text),
                Value::Number(_) | Value::Bool(_) => HeaderValue::from_str(&value.to_string()),
                Value::Null | Value::Array(_) | Value::Object(_) => return Err(wrong()),
            };
            own.append(field.clone(), value.map_err(|_| wrong())?);
        }
    }
    if !own.contains_key(header::CONTENT_TYPE) {
        own.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(response)
}

/// A number, or the text of one, as some frameworks write it.
fn status(value: &Value) -> Result<StatusCode, Failure> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let status = number.and_then(|number| StatusCode::from_u16(u16::try_from(number).ok()?).ok());
    status
        .filter(|status| status.as_u16() >= 200)
        .ok_or_else(|| invalid(&format!("`statusCode` is {value}; it must be 200 to 999")))
}

/// The body; anything but a text is sent as JSON.
fn body(written: &Map<String, Value>) -> Result<Bytes, Failure> {
    let is_base64 = match written.get("isBase64Encoded") {
        Some(Value::Bool(is_base64)) => *is_base64,
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    match written.get("body") {
        None | Some(Value::Null) => Ok(Bytes::new()),
        Some(Value::String(text)) if is_base64 => {
            STANDARD.decode(text).map(Bytes::from).map_err(|error| invalid(&format!("`body` is not base64: {error}")))
        }
        Some(Value::String(text)) => Ok(Bytes::from(text.clone())),
        Some(other) => Ok(Bytes::from(other.to_string())),
    }
}

/// Whether a field is not a function's to set: it belongs to the connection (RFC 9110, section 7.6.1), is the length, which is
/// counted here, or says what only the host knows.
fn is_the_hosts(field: &HeaderName) -> bool {
    const OTHERS: [HeaderName; 7] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::HOST,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let name = field.as_str();
    OTHERS.contains(field) || ["keep-alive", "proxy-connection"].contains(&name) || name.starts_with("x-fc-")
}

fn invalid(detail: &str) -> Failure {
    Failure::new(Code::FunctionResponseInvalid, format!("the function's answer is not a valid HTTP response: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(uri: &str, fields: &[(&'static str, &'static str)], body: &[u8]) -> Value {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        let request = RequestId::from_caller("r-1").unwrap();
        let (uri, address) = (uri.parse().unwrap(), [127, 0, 0, 1].into());
        let head = Head { request: &request, method: &Method::PUT, uri: &uri, fields: &map, address };
        serde_json::from_slice(&event(&head, body)).unwrap()
    }

    #[test]
    fn a_request_is_told_whole() {
        let fields = [("x-one", "1"), ("x-one", "2"), ("cookie", "a=1"), ("cookie", "b=2"), ("user-agent", "me")];
        let told = told("http://shop.example.com:81/a%20b/c?q=1%202&r=3&r=4", &fields, "grüß\n".as_bytes());
        assert_eq!(told["rawPath"], "/a b/c");
        assert_eq!(told["rawQueryString"], "q=1%202&r=3&r=4");
        assert_eq!(told["queryParameters"], json!({"q": "1 2", "r": "3,4"}));
        assert_eq!(told["headers"], json!({"x-one": "1,2", "cookie": "a=1; b=2", "user-agent": "me"}));
        assert_eq!((&told["body"], &told["isBase64Encoded"]), (&json!("grüß\n"), &json!(false)));
        let context = &told["requestContext"];
        assert_eq!((&context["domainName"], &context["domainPrefix"]), (&json!("shop.example.com"), &json!("shop")));
        assert_eq!(context["requestId"], "r-1");
        assert_eq!(context["http"]["method"], "PUT");
        assert_eq!((&context["http"]["sourceIp"], &context["http"]["userAgent"]), (&json!("127.0.0.1"), &json!("me")));
    }

    #[test]
    fn what_is_no_text_is_base64() {
        for body in [&b"\xff\x00"[..], b"a\x01"] {
            let told = told("http://localhost/", &[], body);
            assert_eq!((&told["body"], &told["isBase64Encoded"]), (&json!(STANDARD.encode(body)), &json!(true)));
        }
    }

    fn read(reply: &Value) -> (u16, Vec<String>, Bytes) {
        let response = response(reply.to_string().into_bytes()).unwrap();
        let fields = response.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let (status, fields) = (response.status().as_u16(), fields.collect());
        (status, fields, response.into_body())
    }

    #[test]
    fn a_reply_with_a_status_is_a_response_and_any_other_a_body() {
        let reply = json!({"statusCode": 201, "headers": {"Content-Type": "text/html", "Set-Cookie": ["a=1", "b=2"],
            "Content-Length": 5, "X-Fc-Error-Type": "x", "X-Number": 7}, "body": "aGk=", "isBase64Encoded": true});
        let fields = ["content-type: text/html", "set-cookie: a=1", "set-cookie: b=2", "x-number: 7"];
        assert_eq!(read(&reply), (201, fields.map(str::to_owned).to_vec(), Bytes::from("hi")));
        let json = || vec!["content-type: application/json".to_owned()];
        assert_eq!(
            read(&json!({"statusCode": "404", "headers": null, "isBase64Encoded": null})),
            (404, json(), Bytes::new())
        );
        assert_eq!(read(&json!({"statusCode": 200, "body": {"a": 1}})), (200, json(), Bytes::from(r#"{"a":1}"#)));
        assert_eq!(read(&json!([1])), (200, json(), Bytes::from("[1]")));
        assert_eq!(response(b"plain".to_vec()).unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn a_response_that_cannot_be_one_is_named() {
        for (reply, part) in [
            (json!({"statusCode": 100}), "`statusCode` is 100"),
            (json!({"statusCode": "ok"}), "`statusCode` is \"ok\""),
            (json!({"statusCode": 200, "headers": []}), "`headers` must be an object"),
            (json!({"statusCode": 200, "headers": {"a b": "c"}}), r#"`headers` holds "a b""#),
            (json!({"statusCode": 200, "headers": {"a": "b\nc"}}), r#"`headers` holds "a""#),
            (json!({"statusCode": 200, "headers": {"a": {}}}), r#"`headers` holds "a""#),
            (json!({"statusCode": 200, "body": "!", "isBase64Encoded": true}), "`body` is not base64"),
        ] {
            let failure = response(reply.to_string().into_bytes()).unwrap_err();
            assert!(failure.detail.contains(part), "{}", failure.detail);
        }
    }
}
