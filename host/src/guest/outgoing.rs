//! `dormouse:function/outgoing`: HTTP requests of components whose toolchain cannot import `wasi:http`.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Method, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, FutureReader, Lift, Linker, Lower};
use wasmtime_wasi_http::{Error, RequestOptions, WasiHttpView as _};

use super::world::World;

/// The size limit of a response: the host buffers all of it.
const RESPONSE_BYTES_MAX: usize = 8 << 20;

#[derive(ComponentType, Lift)]
#[component(record)]
struct Request {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    #[component(name = "timeout-ms")]
    timeout_ms: Option<u64>,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

pub(super) fn add_to_linker(linker: &mut Linker<World>) -> wasmtime::Result<()> {
    linker.instance("dormouse:function/outgoing@0.1.0")?.func_wrap(
        "send",
        |mut store: StoreContextMut<'_, World>, (request,): (Request,)| {
            let response = send(store.data_mut(), request);
            Ok((FutureReader::new(store, async move { wasmtime::error::Ok(response.await) })?,))
        },
    )
}

/// Sends a request as `wasi:http` would, with the same checks and the same rules for headers.
fn send(world: &mut World, request: Request) -> impl Future<Output = Result<Response, String>> + use<> {
    let timeout = request.timeout_ms.map(Duration::from_millis);
    let options =
        RequestOptions { connect_timeout: timeout, first_byte_timeout: timeout, between_bytes_timeout: timeout };
    let sent = build(request, |field| world.http().hooks.is_forbidden_header(field)).map(|request| {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let body_ended = Box::new(std::future::ready(Ok(())));
        (host, Box::into_pin(world.http().hooks.send_request(request, Some(options), body_ended)))
    });
    async move {
        let (host, sent) = sent?;
        let (response, _) = sent.await.map_err(|error| explain(&error, &host))?;
        receive(response, &host).await
    }
}

fn build(
    request: Request,
    mut forbidden: impl FnMut(&HeaderName) -> bool,
) -> Result<http::Request<super::delivery::Body>, String> {
    let Request { method, url, headers, body, .. } = request;
    let body = body.unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method of HTTP"))?;
    let uri: Uri = url.parse().map_err(|_| "the URL cannot be read".to_owned())?;
    let authority = uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https")));
    let Some(authority) = authority else { return Err("the URL needs `http` or `https` and a host".to_owned()) };
    if authority.port().is_none() && authority.as_str() != authority.host() {
        return Err("the URL has a port that is none, or credentials".to_owned());
    }
    let mut built = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no name of a header"))?;
        if forbidden(&field) {
            return Err(format!("header `{name}` is set by the host; leave it out"));
        }
        if field == CONTENT_LENGTH {
            // The host sends the right one.
            if value != body.len().to_string().as_bytes() {
                return Err(format!(
                    "header `{name}` is not the length of the body, {} bytes; leave it out",
                    body.len()
                ));
            }
            continue;
        }
        let value = HeaderValue::from_maybe_shared(Bytes::from(value));
        built = built.header(field, value.map_err(|_| format!("the value of header `{name}` is invalid"))?);
    }
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    built.body(body.boxed_unsync()).map_err(|error| error.to_string())
}

async fn receive(response: http::Response<super::delivery::Body>, host: &str) -> Result<Response, String> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return format!("the response is larger than {} MiB", RESPONSE_BYTES_MAX >> 20);
        }
        error.downcast::<Error>().map_or_else(|other| other.to_string(), |error| explain(&error, host))
    })?;
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    Ok(Response { status: head.status.as_u16(), headers, body: body.to_bytes().into() })
}

fn explain(error: &Error, host: &str) -> String {
    match error {
        Error::HttpRequestDenied => format!("{host} is not in allowed-outbound-hosts"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS;

    use super::*;

    fn built(name: &str, value: &str) -> Result<http::Request<super::super::delivery::Body>, String> {
        let request = Request {
            method: "POST".to_owned(),
            url: "http://example.com/".to_owned(),
            headers: vec![(name.to_owned(), value.as_bytes().to_vec())],
            body: Some(b"four".to_vec()),
            timeout_ms: None,
        };
        build(request, |field| DEFAULT_FORBIDDEN_HEADERS.contains(field))
    }

    #[test]
    fn headers_that_are_the_hosts_to_set_are_refused_by_name() {
        for name in ["host", "Host", "transfer-encoding", "connection", "upgrade", "proxy-authorization"] {
            let refused = built(name, "x").unwrap_err();
            assert!(refused.contains(name) && refused.contains("leave it out"), "{refused}");
        }
        assert!(built("x-own", "x").is_ok());
    }

    #[test]
    fn a_length_that_is_not_the_bodys_is_refused() {
        assert!(built("content-length", "4").unwrap().headers().is_empty(), "the host sends the right one");
        for wrong in ["3", "5", "04", "four"] {
            assert!(built("Content-Length", wrong).unwrap_err().contains("4 bytes"), "{wrong}");
        }
    }
}
