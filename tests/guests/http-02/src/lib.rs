//! The guest that the integration tests script, as an HTTP function of WASI 0.2, with its hooks as requests: a component
//! as it could have been written before Dormouse existed. It blocks where it waits.

use std::{mem, rc::Rc, thread, time::Duration};

use futures::executor::block_on;
use guest_script::{Context, Instance, World};
use serde_json::{Value, json};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureTrailers, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest,
    OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// Bytes that are read or written at once; a blocking write takes no more.
const CHUNK_BYTES: usize = 4096;

struct Http;

thread_local! {
    static INSTANCE: Rc<Instance> = Rc::default();
}

impl wasip2::exports::http::incoming_handler::Guest for Http {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let instance = INSTANCE.with(Rc::clone);
        let context = context(&request);
        let path = request.path_with_query().unwrap_or_default();
        let (route, argument) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number: usize = argument.parse().unwrap_or_default();
        match route {
            "initialize" => answer(out, block_on(instance.initialize::<Wasi>(&context)).map(|()| Vec::new())),
            "pre-freeze" => answer(out, block_on(instance.pre_freeze::<Wasi>(&context)).map(|()| Vec::new())),
            "pre-stop" => answer(out, block_on(instance.pre_stop::<Wasi>(&context)).map(|()| Vec::new())),
            "invoke" => match serde_json::from_slice(&body_of(&request)) {
                Ok(script) => answer(out, block_on(instance.handle::<Wasi>(&context, &script))),
                Err(error) => answer(out, Err(error.to_string())),
            },
            "about" => about(&request, out),
            "count" => {
                let mut bytes = 0;
                let end = read(&request, |chunk| bytes += chunk.len());
                answer(out, Ok(json!({"bytes": bytes, "end": end}).to_string().into()));
            }
            "echo" => {
                let body = Body::begin(out, 200, &[]);
                read(&request, |chunk| {
                    body.write(&chunk);
                });
                body.finish(None);
            }
            "bytes" => {
                let body = Body::begin(out, 200, &[("trailer", "x-end")]);
                let mut left = number;
                while left > 0 && body.write(&vec![b'x'; left.min(CHUNK_BYTES)]) {
                    left -= left.min(CHUNK_BYTES);
                }
                body.finish(Some(number));
            }
            "events" => {
                let url = String::from_utf8_lossy(&body_of(&request)).into_owned();
                let body = Body::begin(out, 200, &[("content-type", "text/event-stream")]);
                body.write(b"data: first\n\n");
                // What it answers does not matter, only that it does.
                let _ = send("GET", &url, "");
                body.write(b"data: last\n\n");
                body.finish(None);
            }
            "forever" => {
                let body = Body::begin(out, 200, &[]);
                while body.write(b"and on\n") {
                    thread::sleep(Duration::from_millis(1));
                }
                println!("nobody reads any more");
            }
            "half" => {
                let body = Body::begin(out, 200, &[("content-length", argument)]);
                body.write(&vec![b'x'; number / 2]);
            }
            "none" => {} // Goes without an answer.
            "error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("it has no answer".to_owned())))),
            _ => Body::begin(out, 404, &[]).finish(None),
        }
    }
}

wasip2::http::proxy::export!(Http);

struct Wasi;

impl World for Wasi {
    async fn sleep(duration: Duration) {
        thread::sleep(duration);
    }

    /// There is one task, and it blocks: what is started runs to its end first.
    fn spawn(task: impl Future<Output = ()> + 'static) {
        block_on(task);
    }

    async fn send(method: &str, url: &str, body: &str) -> Value {
        match send(method, url, body) {
            Ok((status, body)) => json!({"status": status, "body": body}),
            Err(error) => json!({"error": error}),
        }
    }

    fn leak_handle() {
        mem::forget(Fields::new());
    }
}

fn send(method: &str, url: &str, body: &str) -> Result<(u16, String), String> {
    let (scheme, rest) = url.split_once("://").ok_or("it is no address")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |end| rest.split_at(end));
    let length = body.len().to_string().into_bytes();
    let fields = Fields::from_list(&[("content-length".to_owned(), length)]).map_err(|error| error.to_string())?;
    let request = OutgoingRequest::new(fields);
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let fits = request
        .set_method(&if method == "GET" { Method::Get } else { Method::Post })
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(path)));
    fits.map_err(|()| "it is no address")?;
    let outgoing = request.body().map_err(|()| "it has no body")?;
    let response = outgoing_handler::handle(request, None).map_err(|error| error.to_string())?;
    let stream = outgoing.write().map_err(|()| "its body cannot be written")?;
    write_all(&stream, body.as_bytes());
    drop(stream);
    OutgoingBody::finish(outgoing, None).map_err(|error| error.to_string())?;
    response.subscribe().block();
    let response = response.get().ok_or("there is no response")?.map_err(|()| "it was taken")?;
    let response = response.map_err(|error| error.to_string())?;
    let incoming = response.consume().map_err(|()| "it was consumed")?;
    let mut bytes = Vec::new();
    read_all(&incoming.stream().map_err(|()| "it is being read")?, |chunk| bytes.extend(chunk));
    Ok((response.status(), String::from_utf8_lossy(&bytes).into_owned()))
}

/// The body of a response whose head is out. The stream goes first: a body outlives its stream.
struct Body {
    stream: OutputStream,
    body: OutgoingBody,
}

impl Body {
    fn begin(out: ResponseOutparam, status: u16, fields: &[(&str, &str)]) -> Body {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        let response = OutgoingResponse::new(Fields::from_list(&fields).expect("these fields are allowed"));
        response.set_status_code(status).expect("this is a status");
        let body = response.body().expect("it is taken once");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("it is taken once");
        Body { stream, body }
    }

    /// Writes a part; false if nobody reads it any more.
    fn write(&self, bytes: &[u8]) -> bool {
        write_all(&self.stream, bytes)
    }

    /// Ends the body, with a trailer that tells its length if that is given.
    fn finish(self, bytes: Option<usize>) {
        drop(self.stream);
        let trailers = bytes.map(|bytes| {
            Fields::from_list(&[("x-end".to_owned(), bytes.to_string().into_bytes())]).expect("this field is allowed")
        });
        // A caller that left needs no end.
        let _ = OutgoingBody::finish(self.body, trailers);
    }
}

/// A script's reply, or its error with the status that says so.
fn answer(out: ResponseOutparam, result: Result<Vec<u8>, String>) {
    let (status, bytes) = match result {
        Ok(reply) => (200, reply),
        Err(error) => (500, error.into_bytes()),
    };
    let body = Body::begin(out, status, &[("content-length", &bytes.len().to_string())]);
    body.write(&bytes);
    body.finish(None);
}

/// What the guest sees of a request, and fields that a host must leave alone.
fn about(request: &IncomingRequest, out: ResponseOutparam) {
    let fields: Vec<_> = request
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
        .collect();
    let method = match request.method() {
        Method::Get => "GET".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        Method::Other(other) => other,
        rare => format!("{rare:?}"),
    };
    let seen = json!({
        "method": method,
        "path": request.path_with_query(),
        "authority": request.authority(),
        "fields": fields,
    });
    let fields = [("x-many", "1"), ("x-many", "2"), ("content-type", "text/x-own; charset=latin-1")];
    let body = Body::begin(out, 201, &fields);
    body.write(seen.to_string().as_bytes());
    body.finish(None);
}

fn body_of(request: &IncomingRequest) -> Vec<u8> {
    let mut bytes = Vec::new();
    read(request, |chunk| bytes.extend(chunk));
    bytes
}

/// Reads a request's body; returns its trailer `x-end`.
fn read(request: &IncomingRequest, take: impl FnMut(Vec<u8>)) -> Option<String> {
    let body = request.consume().ok()?;
    read_all(&body.stream().ok()?, take);
    let trailers: FutureTrailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let trailers = trailers.get()?.ok()?.ok()??;
    trailers.get("x-end").first().map(|value| String::from_utf8_lossy(value).into_owned())
}

fn read_all(stream: &InputStream, mut take: impl FnMut(Vec<u8>)) {
    loop {
        match stream.blocking_read(CHUNK_BYTES as u64) {
            Ok(chunk) => take(chunk),
            Err(StreamError::Closed) => return,
            Err(StreamError::LastOperationFailed(error)) => {
                println!("the body broke off: {}", error.to_debug_string());
                return;
            }
        }
    }
}

fn write_all(stream: &OutputStream, bytes: &[u8]) -> bool {
    bytes.chunks(CHUNK_BYTES).all(|chunk| stream.blocking_write_and_flush(chunk).is_ok())
}

fn context(request: &IncomingRequest) -> Context {
    let fields = request.headers();
    let field = |name: &str| fields.get(name).first().map(|value| String::from_utf8_lossy(value).into_owned());
    let text = |name: &str| field(name).unwrap_or_default();
    Context {
        request_id: text("x-fc-request-id"),
        function: text("x-fc-function-name"),
        version: text("x-fc-version-id"),
        instance_id: text("x-fc-instance-id"),
        memory_mb: text("x-fc-function-memory").parse().unwrap_or_default(),
        deadline_ms: text("x-fc-function-deadline").parse().unwrap_or_default(),
        attempt: text("x-fc-retry-count").parse::<u32>().unwrap_or_default() + 1,
        traceparent: field("traceparent"),
        ..Context::default()
    }
}
