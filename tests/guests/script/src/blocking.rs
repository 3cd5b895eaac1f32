//! The world of guests that block where they wait, on WASI 0.2. They have one task.

use std::{mem, thread, time::Duration};

pub use futures::executor::block_on;
use serde_json::{Value, json};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use crate::World;

/// Bytes that are read or written at once; a blocking write takes no more.
pub const CHUNK_BYTES: usize = 4096;

/// Waits and sends by blocking.
pub struct Blocking;

impl World for Blocking {
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

/// Reads a stream to its end.
pub fn read_all(stream: &InputStream, mut take: impl FnMut(Vec<u8>)) {
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

/// Writes all; false if nobody reads it any more.
pub fn write_all(stream: &OutputStream, bytes: &[u8]) -> bool {
    bytes.chunks(CHUNK_BYTES).all(|chunk| stream.blocking_write_and_flush(chunk).is_ok())
}
