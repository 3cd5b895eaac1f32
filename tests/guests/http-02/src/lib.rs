//! The guest that the integration tests script, as an HTTP function of WASI 0.2, with its hooks as exports and as requests. It
//! blocks where it waits.

#![allow(unsafe_code, clippy::too_many_arguments, reason = "what wit-bindgen writes needs both")]

use std::{rc::Rc, thread, time::Duration};

use guest_script::blocking::{Blocking, CHUNK_BYTES, block_on, read_all, write_all};
use guest_script::{Context, Instance, World as _, told};
use serde_json::json;
use wasip2::http::types::{
    ErrorCode, Fields, FutureTrailers, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse,
    ResponseOutparam,
};
use wasip2::io::streams::OutputStream;

mod bindings {
    #![allow(unreachable_pub, reason = "written by wit-bindgen")]
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package dormouse:http-guest;

            world hooks {
                use dormouse:function/types@0.1.0.{context};
                export initializer: func(ctx: context) -> result<_, string>;
                export pre-freeze: func(ctx: context);
                export pre-stop: func(ctx: context);
            }
        ",
        world: "hooks",
        generate_all,
    });
}

struct Http;

thread_local! {
    static INSTANCE: Rc<Instance> = Rc::default();
}

impl bindings::Guest for Http {
    fn initializer(ctx: bindings::Context) -> Result<(), String> {
        block_on(INSTANCE.with(Rc::clone).initialize::<Blocking>(&told!(ctx)))
    }

    fn pre_freeze(ctx: bindings::Context) {
        // It has said on standard error what went wrong, and there is nobody else to tell.
        let _ = block_on(INSTANCE.with(Rc::clone).pre_freeze::<Blocking>(&told!(ctx)));
    }

    fn pre_stop(ctx: bindings::Context) {
        let _ = block_on(INSTANCE.with(Rc::clone).pre_stop::<Blocking>(&told!(ctx)));
    }
}

bindings::export!(Http with_types_in bindings);

impl wasip2::exports::http::incoming_handler::Guest for Http {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let instance = INSTANCE.with(Rc::clone);
        let context = context(&request);
        let path = request.path_with_query().unwrap_or_default();
        let (route, argument) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number: usize = argument.parse().unwrap_or_default();
        match route {
            "initialize" => answer(out, block_on(instance.initialize::<Blocking>(&context)).map(|()| Vec::new())),
            "pre-freeze" => answer(out, block_on(instance.pre_freeze::<Blocking>(&context)).map(|()| Vec::new())),
            "pre-stop" => answer(out, block_on(instance.pre_stop::<Blocking>(&context)).map(|()| Vec::new())),
            "invoke" => match serde_json::from_slice(&body_of(&request)) {
                Ok(script) => answer(out, block_on(instance.handle::<Blocking>(&context, &script))),
                Err(error) => answer(out, Err(error.to_string())),
            },
            "about" => about(&request, out),
            "count" => {
                let mut bytes = 0;
                let trailers = read(&request, |chunk| bytes += chunk.len());
                let end = trailers.iter().find(|(name, _)| name == "x-end").map(|(_, value)| value);
                let told = json!({"bytes": bytes, "end": end, "trailers": trailers.len()});
                answer(out, Ok(told.to_string().into()));
            }
            "echo" => {
                let body = Body::begin(out, 200, &[]);
                read(&request, |chunk| {
                    body.write(&chunk);
                });
                body.finish(None);
            }
            // Messages carry their lengths, so what was sent is a right answer.
            "grpc" => {
                let body = Body::begin(out, 200, &[("content-type", "application/grpc")]);
                read(&request, |chunk| {
                    body.write(&chunk);
                });
                body.end(Some(("grpc-status", "0")));
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
                block_on(Blocking::send("GET", &url, ""));
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
            _ => odd((route, argument), out),
        }
    }
}

wasip2::http::proxy::export!(Http);

/// Answers that are not what was announced, or none.
fn odd((route, argument): (&str, &str), out: ResponseOutparam) {
    let number: usize = argument.parse().unwrap_or_default();
    match route {
        "half" => {
            let body = Body::begin(out, 200, &[("content-length", argument)]);
            body.write(&vec![b'x'; number / 2]);
        }
        "stuck" => {
            let body = Body::begin(out, 200, &[("content-length", argument)]);
            body.write(&vec![b'x'; number / 2]);
            thread::sleep(Duration::from_secs(3600));
        }
        "over" => {
            let body = Body::begin(out, 200, &[("content-length", argument)]);
            body.write(&vec![b'x'; 2 * number]);
            body.finish(None);
        }
        "leak" => {
            let announced = ("content-length", argument);
            let body = Body::begin(out, 200, if argument.is_empty() { &[] } else { std::slice::from_ref(&announced) });
            body.write(&vec![b'x'; number.max(4)]);
            std::mem::forget(body);
        }
        "last" => {
            let body = Body::begin(out, 200, &[]);
            body.write(b"done");
            body.finish(None);
            match argument {
                "exit" => std::process::exit(0),
                _ => std::process::abort(),
            }
        }
        "reset" => {
            let body = Body::begin(out, 205, &[("content-length", "4")]);
            body.write(b"text");
            body.finish(None);
        }
        "status" => Body::begin(out, number as u16, &[]).finish(None),
        "unchanged" => Body::begin(out, 304, &[("content-length", argument)]).finish(None),
        "none" => {} // Goes without an answer.
        "error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("it has no answer".to_owned())))),
        _ => Body::begin(out, 404, &[]).finish(None),
    }
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
        self.end(bytes.map(|bytes| bytes.to_string()).as_deref().map(|bytes| ("x-end", bytes)));
    }

    /// Ends the body, with a trailer if one is given.
    fn end(self, trailer: Option<(&str, &str)>) {
        drop(self.stream);
        let trailers = trailer.map(|(name, value)| {
            Fields::from_list(&[(name.to_owned(), value.as_bytes().to_vec())]).expect("this field is allowed")
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

/// Reads a request's body; returns its trailers.
fn read(request: &IncomingRequest, take: impl FnMut(Vec<u8>)) -> Vec<(String, String)> {
    read_with_trailers(request, take).unwrap_or_default()
}

fn read_with_trailers(request: &IncomingRequest, take: impl FnMut(Vec<u8>)) -> Option<Vec<(String, String)>> {
    let body = request.consume().ok()?;
    read_all(&body.stream().ok()?, take);
    let trailers: FutureTrailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let trailers = trailers.get()?.ok()?.ok()??.entries();
    Some(trailers.into_iter().map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect())
}

fn context(request: &IncomingRequest) -> Context {
    let fields = request.headers();
    Context::from_fields(|name| fields.get(name).first().map(|value| String::from_utf8_lossy(value).into_owned()))
}
