//! The platform of a component: tasks, time and HTTP through WASI 0.3.
//!
//! `task`, `time` and `http` call this in a component, as they call `native` in a test. It never blocks the instance:
//! other requests and tasks run during each wait.

use std::time::Duration;

use wasip3::{
    clocks::monotonic_clock,
    http::{
        client,
        types::{ErrorCode, Fields, Method, Request as Outgoing, RequestOptions, Response as Incoming, Scheme},
    },
    wit_future, wit_stream,
};

use crate::http::{Request, Response, Target};

pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    wit_bindgen::spawn_local(task);
}

pub(crate) async fn sleep(duration: Duration) {
    monotonic_clock::wait_for(nanoseconds(duration)).await;
}

pub(crate) async fn send(request: &Request, target: &Target<'_>) -> Result<Response, String> {
    let outgoing = outgoing(request, target)?;
    let incoming = client::send(outgoing).await.map_err(explain)?;
    let status = incoming.get_status_code();
    let headers = incoming
        .get_headers()
        .copy_all()
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
        .collect();

    // The host learns through `consumed` how reading the body ended, so this must live until the body was read.
    let (consumed, consumed_reader) = wit_future::new(|| Ok(()));
    let (body, trailers) = Incoming::consume_body(incoming, consumed_reader);
    let body = body.collect().await;
    // A truncated body ends like a complete one; only the trailers tell them apart.
    trailers.await.map_err(explain)?;
    drop(consumed);

    Ok(Response { status, headers, body })
}

fn outgoing(request: &Request, target: &Target<'_>) -> Result<Outgoing, String> {
    let options = request.timeout.map(options);
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    drop(trailers); // Dropped unwritten, it writes its default: no trailers.
    let (outgoing, _) = Outgoing::new(fields(request)?, contents(&request.body), trailers_reader, options);

    let scheme = if target.tls { Scheme::Https } else { Scheme::Http };
    let fits = outgoing
        .set_method(&method(&request.method))
        .and_then(|()| outgoing.set_scheme(Some(&scheme)))
        .and_then(|()| outgoing.set_authority(Some(target.authority)))
        .and_then(|()| outgoing.set_path_with_query(Some(&target.path_with_query)));
    fits.map(|()| outgoing).map_err(|()| "the method or the URL is not valid".into())
}

fn fields(request: &Request) -> Result<Fields, String> {
    let mut entries: Vec<_> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    // A streamed body has no known length, and small servers need a `content-length`.
    let has_length = entries.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !request.body.is_empty() && !has_length {
        entries.push(("content-length".into(), request.body.len().to_string().into_bytes()));
    }
    Fields::from_list(&entries).map_err(|error| format!("the host refused the headers: {error}"))
}

/// The body as a stream. A task of its own writes it, because it is only read while the request is being sent.
fn contents(body: &[u8]) -> Option<wit_bindgen::StreamReader<u8>> {
    if body.is_empty() {
        return None;
    }
    let (mut writer, reader) = wit_stream::new();
    let body = body.to_vec();
    spawn(async move {
        // A failed write shows in the result of the request.
        writer.write_all(body).await;
    });
    Some(reader)
}

fn options(timeout: Duration) -> RequestOptions {
    let timeout = Some(nanoseconds(timeout));
    let options = RequestOptions::new();
    // A host may not support one of these; the deadline of the call limits the wait in any case.
    let _ = options.set_connect_timeout(timeout);
    let _ = options.set_first_byte_timeout(timeout);
    let _ = options.set_between_bytes_timeout(timeout);
    options
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.into()),
    }
}

/// Common failures in plain words; the rare others by their name in the standard.
fn explain(error: ErrorCode) -> String {
    match error {
        ErrorCode::HttpRequestDenied => "the host is not in allowed-outbound-hosts".into(),
        ErrorCode::DnsError(_) | ErrorCode::DnsTimeout => "the name could not be resolved".into(),
        ErrorCode::ConnectionRefused => "the connection was refused".into(),
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => "the connection broke off".into(),
        ErrorCode::ConnectionTimeout => "timed out while connecting".into(),
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => "timed out while reading".into(),
        ErrorCode::InternalError(Some(text)) => text,
        other => other.to_string(),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}
