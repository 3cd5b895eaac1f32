//! The guest that the integration tests script, as an HTTP function of WASI 0.3, with its hooks as exports and as requests;
//! and what only HTTP can show: bodies that stream, trailers, callers that leave, responses that are wrong.

#![allow(unsafe_code, clippy::too_many_arguments, reason = "what wit-bindgen writes needs both")]

use std::{mem, rc::Rc, time::Duration};

use bytes::Bytes;
use guest_script::{Context, Instance, World, told};
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use wasip3::clocks::monotonic_clock;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::http_compat::{
    BodyWriter, http_from_wasi_request, http_from_wasi_response, http_into_wasi_request, http_into_wasi_response,
};

mod bindings {
    #![allow(unreachable_pub, reason = "written by wit-bindgen")]
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package dormouse:http-guest;

            world hooks {
                use dormouse:function/types@0.1.0.{context};
                export initializer: async func(ctx: context) -> result<_, string>;
                export pre-freeze: async func(ctx: context);
                export pre-stop: async func(ctx: context);
            }
        ",
        world: "hooks",
        generate_all,
    });
}

const CHUNK_BYTES: usize = 64 << 10;

struct Http;

thread_local! {
    static INSTANCE: Rc<Instance> = Rc::default();
}

impl bindings::Guest for Http {
    async fn initializer(ctx: bindings::Context) -> Result<(), String> {
        INSTANCE.with(Rc::clone).initialize::<Wasi>(&told!(ctx)).await
    }

    async fn pre_freeze(ctx: bindings::Context) {
        // It has said on standard error what went wrong, and there is nobody else to tell.
        let _ = INSTANCE.with(Rc::clone).pre_freeze::<Wasi>(&told!(ctx)).await;
    }

    async fn pre_stop(ctx: bindings::Context) {
        let _ = INSTANCE.with(Rc::clone).pre_stop::<Wasi>(&told!(ctx)).await;
    }
}

bindings::export!(Http with_types_in bindings);

impl wasip3::exports::http::handler::Guest for Http {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let request = http_from_wasi_request(request)?;
        let context = context(request.headers());
        let instance = INSTANCE.with(Rc::clone);
        let path = request.uri().path().to_owned();
        let (route, argument) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number: usize = argument.parse().unwrap_or_default();
        match route {
            "initialize" => answer(instance.initialize::<Wasi>(&context).await.map(|()| Vec::new())),
            "pre-freeze" => answer(instance.pre_freeze::<Wasi>(&context).await.map(|()| Vec::new())),
            "pre-stop" => answer(instance.pre_stop::<Wasi>(&context).await.map(|()| Vec::new())),
            "invoke" => match serde_json::from_slice(&request.into_body().collect().await?.to_bytes()) {
                Ok(script) => answer(instance.handle::<Wasi>(&context, &script).await),
                Err(error) => answer(Err(error.to_string())),
            },
            "about" => about(request),
            "count" => {
                let (mut body, mut bytes, mut end, mut fields) = (request.into_body(), 0, None, 0);
                while let Some(frame) = body.frame().await {
                    let frame = frame.inspect_err(|error| println!("the body broke off: {error}"))?;
                    bytes += frame.data_ref().map_or(0, Bytes::len);
                    fields += frame.trailers_ref().map_or(0, HeaderMap::len);
                    end = frame
                        .trailers_ref()
                        .and_then(|trailers| trailers.get("x-end")?.to_str().ok().map(str::to_owned));
                }
                answer(Ok(json!({"bytes": bytes, "end": end, "trailers": fields}).to_string().into()))
            }
            "echo" => http_into_wasi_response(http::Response::new(request.into_body())),
            // Messages carry their lengths, so what was sent is a right answer.
            "grpc" => {
                let body = request.into_body();
                Ok(streamed(&[("content-type", "application/grpc")], |writer| grpc(writer, body)))
            }
            "bytes" => Ok(streamed(&[("trailer", "x-end")], |writer| bytes(writer, number))),
            "events" => {
                let url = String::from_utf8_lossy(&request.into_body().collect().await?.to_bytes()).into_owned();
                Ok(streamed(&[("content-type", "text/event-stream")], |writer| events(writer, url)))
            }
            "forever" => Ok(streamed(&[], forever)),
            "half" => Ok(streamed(&[("content-length", argument)], |writer| half(writer, number))),
            "stuck" => Ok(streamed(&[("content-length", argument)], |writer| stuck(writer, number))),
            "over" => Ok(streamed(&[("content-length", argument)], async move |mut writer| {
                write(&mut writer, vec![b'x'; 2 * number]).await;
            })),
            "status" => http_into_wasi_response(status(number as u16, Vec::new())),
            "unchanged" => {
                let response = streamed(&[("content-length", argument)], async |writer| drop(writer));
                response.set_status_code(304).expect("this is a status");
                Ok(response)
            }
            "last" => {
                wit_bindgen::spawn_local(last(argument.to_owned()));
                http_into_wasi_response(status(200, b"done".to_vec()))
            }
            "reset" => {
                let response = streamed(&[("content-length", "4")], async |mut writer| {
                    write(&mut writer, "text").await;
                    finish(writer, 4).await;
                });
                response.set_status_code(205).expect("this is a status");
                Ok(response)
            }
            "error" => Err(ErrorCode::InternalError(Some("it has no answer".to_owned()))),
            _ => http_into_wasi_response(status(404, b"nothing here".to_vec())),
        }
    }
}

wasip3::http::service::export!(Http);

struct Wasi;

impl World for Wasi {
    async fn sleep(duration: Duration) {
        monotonic_clock::wait_for(duration.as_nanos() as u64).await;
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        wit_bindgen::spawn_local(task);
    }

    async fn send(method: &str, url: &str, body: &str) -> Value {
        match send(method, url, body).await {
            Ok((status, body)) => json!({"status": status, "body": body}),
            Err(error) => json!({"error": error}),
        }
    }

    fn leak_handle() {
        mem::forget(Fields::new());
    }
}

async fn send(method: &str, url: &str, body: &str) -> Result<(u16, String), String> {
    let request = http::Request::builder().method(method).uri(url).header("content-length", body.len());
    let request = request.body(body.to_owned()).map_err(|error| error.to_string())?;
    let request = http_into_wasi_request(request).map_err(|error| error.to_string())?;
    let response = client::send(request).await.map_err(|error| error.to_string())?;
    let response = http_from_wasi_response(response).map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

/// A script's reply, or its error with the status that says so.
fn answer(result: Result<Vec<u8>, String>) -> Result<Response, ErrorCode> {
    http_into_wasi_response(match result {
        Ok(reply) => status(200, reply),
        Err(error) => status(500, error.into()),
    })
}

fn status(status: u16, body: Vec<u8>) -> http::Response<Full<Bytes>> {
    let length = body.len();
    let mut response = http::Response::new(Full::from(body));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    response
}

/// What the guest sees of a request, and fields that a host must leave alone.
fn about<T>(request: http::Request<T>) -> Result<Response, ErrorCode> {
    let fields: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().ok())).collect();
    let seen = json!({
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().map(|path| path.as_str()),
        "authority": request.uri().authority().map(|authority| authority.as_str()),
        "fields": fields,
    });
    let mut response = status(201, seen.to_string().into());
    for (name, value) in [("x-many", "1"), ("x-many", "2"), ("content-type", "text/x-own; charset=latin-1")] {
        response.headers_mut().append(name, http::HeaderValue::from_static(value));
    }
    http_into_wasi_response(response)
}

/// A response whose body `write` writes after its head is out.
fn streamed<W: Future<Output = ()> + 'static>(
    fields: &[(&str, &str)],
    write: impl FnOnce(BodyWriter) -> W,
) -> Response {
    let (writer, contents, trailers) = BodyWriter::new();
    let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let fields = Fields::from_list(&fields).expect("these fields are allowed");
    let (response, _sent) = Response::new(fields, Some(contents), trailers);
    wit_bindgen::spawn_local(write(writer));
    response
}

/// Writes a part; false if nobody reads it any more.
async fn write(writer: &mut BodyWriter, part: impl Into<Vec<u8>>) -> bool {
    writer.stream_writer.write_all(part.into()).await.is_empty()
}

/// Ends a body, with a trailer that tells its length.
async fn finish(writer: BodyWriter, bytes: usize) {
    end(writer, "x-end", &bytes.to_string()).await;
}

/// Ends a body with a trailer.
async fn end(writer: BodyWriter, name: &str, value: &str) {
    drop(writer.stream_writer);
    let trailers = Fields::from_list(&[(name.to_owned(), value.as_bytes().to_vec())]);
    // Whoever does not read trailers has left already.
    let _ = writer.result_writer.write(Ok(trailers.ok())).await;
}

async fn bytes(mut writer: BodyWriter, total: usize) {
    let mut left = total;
    while left > 0 {
        let chunk = left.min(CHUNK_BYTES);
        if !write(&mut writer, vec![b'x'; chunk]).await {
            return;
        }
        left -= chunk;
    }
    finish(writer, total).await;
}

async fn grpc(mut writer: BodyWriter, mut body: impl BodyExt<Data = Bytes> + Unpin) {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(part) = frame.into_data()
            && !write(&mut writer, part).await
        {
            return;
        }
    }
    end(writer, "grpc-status", "0").await;
}

/// One event, then whatever comes from `url`, then another event.
async fn events(mut writer: BodyWriter, url: String) {
    if write(&mut writer, "data: first\n\n").await {
        let _ = send("GET", &url, "").await;
        write(&mut writer, "data: last\n\n").await;
        finish(writer, 0).await;
    }
}

/// Writes until nobody reads.
async fn forever(mut writer: BodyWriter) {
    while write(&mut writer, "and on\n").await {
        Wasi::sleep(Duration::from_millis(1)).await;
    }
    println!("nobody reads any more");
}

/// Goes, after the answer.
async fn last(how: String) {
    Wasi::sleep(Duration::from_millis(50)).await;
    match &*how {
        "exit" => std::process::exit(0),
        _ => std::process::abort(),
    }
}

/// Writes half of what was announced, and never the rest.
async fn stuck(mut writer: BodyWriter, announced: usize) {
    write(&mut writer, vec![b'x'; announced / 2]).await;
    Wasi::sleep(Duration::from_secs(3600)).await;
}

/// Writes half of what was announced, and goes.
async fn half(mut writer: BodyWriter, announced: usize) {
    if write(&mut writer, vec![b'x'; announced / 2]).await {
        finish(writer, announced / 2).await;
    }
}

fn context(fields: &HeaderMap) -> Context {
    Context::from_fields(|name| fields.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned))
}
